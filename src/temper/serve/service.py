"""One model that is served: what is asked becomes jobs for the sampler, and what was drawn becomes choices."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from temper.errors import TemperError
from temper.rng import seed_for
from temper.rollout.engine import Sampling
from temper.serve.batcher import Batcher, Job
from temper.serve.protocol import Ask, BadRequest, Defaults
from temper.serve.replies import ReplyPieces, chat_logprobs, text_logprobs, token_texts
from temper.serve.scoring import ScoredText, score_text
from temper.text.stops import StopStrings
from temper.types import ReplyForm

DRAW = random.Random()  # keys of replies without a seed: seeded by the system once, not asked for each


@dataclass(frozen=True)
class Choice:
    """One reply of an answer: its number in it, and the job that draws it."""

    index: int
    job: Job


class Service:
    """A model with its chat format and its sampler, open for as long as the batcher is."""

    def __init__(
        self, name: str, model: Any, chat: Any, batcher: Batcher, defaults: Defaults, form: ReplyForm = "tags"
    ):
        self.name, self.model, self.chat, self.batcher, self.defaults = name, model, chat, batcher, defaults
        self.form: ReplyForm = form
        self.context = chat.context_length or 1 << 30
        self.vocabulary = model.config.get_text_config().vocab_size
        self._stops = lru_cache(64)(lambda kind, strings: StopStrings(self._decode(kind), strings))

    def _decode(self, kind: str) -> Callable[[Sequence[int]], str]:
        return self.chat.decode if kind == "chat" else self._text

    def _text(self, ids: Sequence[int]) -> str:
        """The text of tokens that go on with a text, without end tokens."""
        ends = set(self.chat.eos_ids)
        return self.chat.tokenizer.decode_on([token for token in ids if token not in ends])

    def choices(self, ask: Ask, told: Callable[[], None]) -> list[Choice]:
        """The replies that `ask` wants, not yet drawn. Raises BadRequest for what the model cannot be asked."""
        if ask.model is not None and ask.model != self.name:
            what = f"there is no model {ask.model[:100]!r} here: it is {self.name!r}"
            raise BadRequest([("model", what)], 404, "model_not_found")
        drawing = drawing_of(ask)
        rule = self._stops(ask.kind, ask.stop) if ask.stop else None
        found = []
        for number, prompt in enumerate(ask.prompts):
            ids = self._ids(ask, prompt)
            for i in range(ask.n):
                key = DRAW.getrandbits(63) if ask.seed is None else seed_for(ask.seed, "serve", i)
                job = Job(ids, key, ask.max_tokens, drawing, told, rule.ends if rule else None, ask.stream)
                job.done = "length" if ask.max_tokens == 0 else None
                found.append(Choice(number * ask.n + i, job))
        return found

    def _ids(self, ask: Ask, prompt: Any) -> tuple[int, ...]:
        key = "messages" if ask.kind == "chat" else "prompt"
        if ask.kind == "chat":
            try:
                return self.chat.prompt_ids(prompt)
            except TemperError as error:
                faults = [(key, " – ".join(filter(None, (f.what, f.why)))) for f in error.faults]
                raise BadRequest(faults, code="context_length_exceeded" if "context" in str(error) else None) from None
        ids = self.chat.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if not ids:
            raise BadRequest([(key, "no token in it")])
        if wrong := next((token for token in ids if token >= self.vocabulary), None):
            raise BadRequest([(key, f"{wrong} is no token: the model has {self.vocabulary}")])
        if len(ids) + (ask.max_tokens > 0) > self.context:
            what = f"{len(ids):,} tokens do not fit the model's context of {self.context:,}"
            raise BadRequest([(key, what)], code="context_length_exceeded")
        return tuple(ids)

    def pieces(self, ask: Ask) -> ReplyPieces:
        """What makes the text of one reply, piece by piece."""
        if ask.kind == "chat":
            return ReplyPieces(self.chat.decode, ask.stop, self.form, self.chat.thinking_opened)
        return ReplyPieces(self._text, ask.stop, None)

    # ---- log-probs ------------------------------------------------------------------------------------------------

    def needs_scores(self, ask: Ask) -> bool:
        """Whether more is asked for than the sampler says: log-probs of the prompt, or of what was not drawn."""
        return ask.likeliest is not None and (ask.echo or ask.likeliest > 0)

    def score(self, ask: Ask, job: Job) -> ScoredText:
        """For the sampler's thread."""
        ids = (*job.prompt_ids, *job.tokens)
        start = 1 if ask.echo else len(job.prompt_ids)
        return score_text(self.model, ids, start, ask.likeliest or 0, ask.temperature)

    def logprobs(self, ask: Ask, job: Job, scored: ScoredText | None) -> dict[str, Any] | None:
        """What a choice says of its tokens' log-probs."""
        if ask.likeliest is None:
            return None
        tokens = [token for token in job.tokens if token not in self.chat.eos_ids]
        texts = token_texts(self._decode(ask.kind), tokens) + [""] * (len(job.tokens) - len(tokens))
        values: list[float | None] = list(job.logprobs)
        ids = list(job.tokens)
        if ask.echo and scored is not None:
            ids = [*job.prompt_ids, *ids]
            texts = token_texts(self.chat.tokenizer.decode_on, job.prompt_ids) + texts
            values = [None, *scored.logprobs]
        top = self._likeliest(ids, texts, scored)
        if ask.kind == "chat":
            return chat_logprobs(texts, job.logprobs, top)
        return text_logprobs(texts, values, top)

    def _likeliest(self, ids: Sequence[int], texts: Sequence[str], scored: ScoredText | None) -> list[Any]:
        """The likeliest tokens of each place as text; the one that stands there reads as it does there."""
        if scored is None or not scored.likeliest:
            return []
        rows: list[Any] = [None] * (len(ids) - len(scored.likeliest))
        for token, text, row in zip(ids[len(rows) :], texts[len(rows) :], scored.likeliest, strict=True):
            rows.append([(text if i == token else self.chat.tokenizer.decode_on([i]), value) for i, value in row])
        return rows

    # ---- answers --------------------------------------------------------------------------------------------------

    def choice_body(self, ask: Ask, choice: Choice, scored: ScoredText | None) -> dict[str, Any]:
        """A reply that is over, as it stands in an answer."""
        job = choice.job
        reply = self.pieces(ask).whole(job.tokens)
        body = {"index": choice.index, "logprobs": self.logprobs(ask, job, scored), "finish_reason": job.done}
        if ask.kind == "text":
            return {**body, "text": self.echoed(ask, job) + reply["content"]}
        thinking = reply["reasoning_content"] or None
        message = {"role": "assistant", "content": reply["content"], "reasoning_content": thinking, "refusal": None}
        return {**body, "message": message}

    def echoed(self, ask: Ask, job: Job) -> str:
        """The prompt, where it is given back."""
        return self.chat.tokenizer.decode_on(job.prompt_ids) if ask.echo else ""

    @staticmethod
    def usage(choices: Sequence[Choice], n: int) -> dict[str, int]:
        read = sum(len(choice.job.prompt_ids) for choice in choices[::n])
        drawn = sum(len(choice.job.tokens) for choice in choices)
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}


def drawing_of(ask: Ask) -> Sampling:
    """How tokens are drawn. Where the likeliest is taken no cut of the tail matters: all such requests are alike."""
    if ask.temperature == 0:
        return Sampling(1, 0.0)
    return Sampling(1, ask.temperature, ask.top_p, max(0, ask.top_k), ask.min_p)


@contextlib.contextmanager
def open_service(
    path: Path, name: str, defaults: Defaults, form: ReplyForm, capacity: int, warn: Callable[[str], None]
) -> Iterator[Service]:
    """The model in a directory, on a CUDA device if there is one."""
    from temper.models.device import DeviceConfig, placed
    from temper.models.load import load_model
    from temper.rollout.open import open_engine
    from temper.text.chat import ChatFormat

    chat = ChatFormat.load(path)
    dtype, device = placed(DeviceConfig())
    model = load_model(path, dtype, str(device), warn=warn)
    with open_engine(model, frozen=True) as engine, Batcher(engine, chat.eos_ids, capacity) as batcher:
        yield Service(name, model, chat, batcher, defaults, form)
