"""A model that can be asked: `load(…).generate(prompts, n=…)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from temper.errors import ConfigError, Fault
from temper.types import Completion, Message, Reply, ReplyForm

if TYPE_CHECKING:
    from temper.rollout.engine import Engine, Sampling
    from temper.testing import FakeEngine

Conversation = Sequence[Message | Mapping[str, str]]


@dataclass(frozen=True)
class Generated:
    """One reply: its text, cut into thinking and answer by the form it was asked in, and the tokens it was drawn as."""

    reply: Reply
    completion: Completion

    @property
    def text(self) -> str:
        return self.reply.text

    @property
    def thinking(self) -> str | None:
        return self.reply.thinking

    @property
    def answer(self) -> str | None:
        return self.reply.answer

    @property
    def is_cut_off(self) -> bool:
        """Whether it reached `max_tokens` before it ended."""
        return self.completion.finish_reason == "length"


class Model:
    """A model and its chat format. Made by `load`; weights are read when it is first asked."""

    def __init__(self, name: str, chat: Any, open_engine: Callable[[], AbstractContextManager[Engine]]):
        self.name, self.chat, self.open_engine = name, chat, open_engine

    def __repr__(self) -> str:
        return f"temper.load({self.name!r})"

    def generate(
        self,
        prompts: str | Sequence[str | Conversation],
        n: int = 1,
        *,
        temperature: float = 0.6,
        top_p: float = 0.95,
        top_k: int = 0,
        min_p: float = 0.0,
        max_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int = 0,
        system_prompt: str | None = None,
        form: ReplyForm = "tags",
    ) -> list[list[Generated]]:
        """`n` replies to each prompt, in order. A prompt is a question or a conversation: a list of messages, each a
        `Message` or a `{"role", "content"}`. The defaults are R1's evaluation setting; temperature 0 is greedy.

        The same seed gives the same replies to a prompt, whatever else is asked beside it; a prompt given twice is
        drawn twice. Raises ConfigError for options out of range, DataError for a prompt that the model cannot take.
        """
        from temper.rng import seed_for
        from temper.rollout.engine import Request

        if n < 1:
            raise ConfigError(Fault(f"n = {n}: at least 1 reply a prompt"))
        sampling = self._sampling(max_tokens, temperature, top_p, top_k, min_p, stop)
        asked = [conversation(prompt, system_prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        ids = self.chat.prompts_ids(asked)
        before: Counter[tuple[Message, ...]] = Counter()
        requests = []
        for messages, prompt_ids in zip(asked, ids, strict=True):
            words = "\0".join(f"{message.role}\0{message.content}" for message in messages)
            for _ in range(n):
                requests.append(Request(prompt_ids, seed_for(seed, "generate", words, before[messages])))
                before[messages] += 1
        if not requests:
            return []
        with self.open_engine() as engine:
            drawn = [self._read(completion, form) for completion in engine.generate(requests, sampling)]
        return [drawn[start : start + n] for start in range(0, len(drawn), n)]

    def _read(self, completion: Completion, form: ReplyForm) -> Generated:
        from temper.text.reply import parse_reply

        text = self.chat.decode(completion.token_ids)
        return Generated(parse_reply(text, self.chat.thinking_opened, form), completion)

    def _sampling(
        self, max_tokens: int, temperature: float, top_p: float, top_k: int, min_p: float, stop: Sequence[str]
    ) -> Sampling:
        from temper.rollout.engine import Sampling
        from temper.text.stops import StopStrings

        stop = [stop] if isinstance(stop, str) else list(stop)
        checks = [
            (max_tokens >= 1, f"max_tokens = {max_tokens}", "at least 1"),
            (0 <= temperature <= 10, f"temperature = {temperature:g}", "between 0 (greedy) and 10"),
            (0 < top_p <= 1, f"top_p = {top_p:g}", "above 0, at most 1"),
            (top_k >= 0, f"top_k = {top_k}", "at least 1, or 0 for all tokens"),
            (0 <= min_p <= 1, f"min_p = {min_p:g}", "between 0 and 1"),
            (all(stop), "an empty text in `stop`", "a text that the reply should end at"),
        ]
        faults = [Fault(f"{what} is out of range", fix=fix) for holds, what, fix in checks if not holds]
        if faults:
            raise ConfigError(faults)
        rule = StopStrings(self.chat.decode, stop) if stop else None
        return Sampling(max_tokens, temperature, top_p, top_k, min_p, self.chat.eos_ids, rule)


def conversation(prompt: str | Conversation, system_prompt: str | None = None) -> tuple[Message, ...]:
    """A prompt as messages. Raises ConfigError for what is neither a question nor a list of messages.

    >>> conversation("2+3", "Be brief.")
    (Message(role='system', content='Be brief.'), Message(role='user', content='2+3'))
    """
    if isinstance(prompt, (Message, Mapping)):
        raise ConfigError(Fault("one message is no prompt", fix="a list of prompts holds questions or conversations: "
                                "generate([[message, message], …])"))  # fmt: skip
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", prompt),)
    else:
        messages = tuple(message if isinstance(message, Message) else _message(message) for message in prompt)
    if system_prompt and not (messages and messages[0].role == "system"):
        messages = (Message("system", system_prompt), *messages)
    return messages


def _message(written: Mapping[str, str]) -> Message:
    role, content = (written.get(key) if isinstance(written, Mapping) else None for key in ("role", "content"))
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        fix = '{"role": "user", "content": "…"}; a role is system, user or assistant'
        raise ConfigError(Fault("a message without a role and a text", fix=fix))
    return Message(role, content)  # type: ignore[arg-type]


class _Weights:
    """The weights in a directory, read once, when they are first needed."""

    def __init__(self, path: Path, device: str, dtype: str):
        self.path, self.device, self.dtype = path, device, dtype

    @cached_property
    def model(self) -> Any:
        from temper.models.device import DeviceConfig, missing_device, placed
        from temper.models.load import load_model

        config = DeviceConfig(device=self.device, dtype=self.dtype)  # type: ignore[arg-type]
        if faults := missing_device(config.device):
            raise ConfigError(faults)
        return load_model(self.path, *placed(config))

    def engine(self) -> AbstractContextManager[Engine]:
        from temper.rollout.open import open_engine

        return open_engine(self.model)


def load(
    model: str | Path | FakeEngine,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
) -> Model:
    """A model to be asked: a Hugging Face directory, a run (its last model), `RUN:stage`, a shipped model, a name of
    the Hub; or an engine of `temper.testing`, which needs no weights.

    Raises ArtifactError if there is none, or it is damaged; ConfigError if the run or stage is unknown.

    >>> from temper.testing import FakeEngine
    >>> [[first, second]] = load(FakeEngine(["<think>2+3</think><answer>5</answer>", "Six."])).generate("2+3", n=2)
    >>> first.thinking, first.answer, second.answer
    ('2+3', '5', None)
    """
    if hasattr(model, "generate"):
        engine: Any = model
        return Model("FakeEngine", engine.chat, lambda: nullcontext(engine))
    from temper.environment import go_offline
    from temper.runs import resolve_model

    go_offline()
    from temper.text.chat import ChatFormat

    path = resolve_model(str(model))
    return Model(str(model), ChatFormat.load(path), _Weights(path, device, dtype).engine)
