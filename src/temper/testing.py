"""For tests of code that uses temper: an engine whose replies are written down, so that no model is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temper.types import Completion, Message

if TYPE_CHECKING:
    from temper.rollout.engine import Finished, Request, Sampling, Watch

END = 256


@dataclass(frozen=True)
class FakeChat:
    """A chat format of bytes: token i is byte i, 256 ends a reply. A prompt is its messages, `role: content`, a line
    each."""

    thinking_opened: bool = False
    context_length: int | None = None
    eos_ids: tuple[int, ...] = (END,)

    def prompts_ids(self, conversations: Sequence[Sequence[Message]], room: int = 0) -> list[tuple[int, ...]]:
        return [tuple("\n".join(f"{m.role}: {m.content}" for m in turns).encode()) for turns in conversations]

    def ids_on(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(token for token in ids if token < END).decode(errors="replace")


class FakeEngine:
    """A sampler that replies what it is told to: the texts of `replies` in turn, over and over, or what a function says
    of the prompt. It keeps every prompt it was asked in `asked`.

    A reply longer than `max_tokens` bytes is cut off there; a stop string ends it. With `thinking_opened` it answers as
    a model whose template ends with `<think>`. Log-probs are 0.

    >>> import temper
    >>> model = temper.load(FakeEngine(lambda prompt: f"You said {prompt!r}."))
    >>> model.generate(["Hello"], form="plain")[0][0].text
    "You said 'user: Hello'."
    """

    def __init__(self, replies: Sequence[str] | Callable[[str], str], *, thinking_opened: bool = False):
        if not callable(replies) and not replies:
            raise ValueError("no replies")
        self.chat = FakeChat(thinking_opened)
        self.asked: list[str] = []
        self._replies = replies

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        completions = []
        for number, request in enumerate(requests):
            completion = self._complete(self.chat.decode(request.prompt_ids), number, sampling, watch)
            if finished is not None:
                finished(number, completion)
            completions.append(completion)
        return completions

    def _complete(self, prompt: str, number: int, sampling: Sampling, watch: Watch | None) -> Completion:
        drawn: list[int] = []
        ended = False
        for token in (*self._reply(prompt).encode(), END):
            if ended or len(drawn) == sampling.max_tokens:
                break
            drawn.append(token)
            ended = token == END or (sampling.stop_rule is not None and sampling.stop_rule.ends(drawn))
            if watch is not None:
                watch(number, token)
        return Completion(tuple(drawn), (0.0,) * len(drawn), "stop" if ended else "length")

    def _reply(self, prompt: str) -> str:
        self.asked.append(prompt)
        if callable(self._replies):
            return self._replies(prompt)
        return self._replies[(len(self.asked) - 1) % len(self._replies)]
