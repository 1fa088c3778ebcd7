"""The plain sampler: any causal language model, through its own forward and its own cache. Right, and slow.

For models that temper's attention cannot serve: attention sinks, recurrent and hybrid layers, position biases. Rows are
decoded together only where their prompts are equally long, so that no model ever sees padding. Draws, ends and
completions are those of the native sampler.

Shapes: B rows in flight, T tokens of a row so far, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from temper.kernels.packing import agree, probe_ids
from temper.models.causal import takes
from temper.models.spare import without_spare
from temper.rollout.draw import draw_tokens, uniform
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.memory import is_out_of_memory
from temper.types import Completion

CACHES = ("past_key_values", "cache_params", "state", "mems")  # what models call what they remember
TOKENS_A_WAVE = 65_536  # prompt tokens that are in memory together

# Rows can leave the model's cache; they can only stay in it; it works for one row alone; it does not work at all.
Memory = Literal["moves", "stays", "alone", "none"]


class PlainEngine:
    """Implements `Engine` for any causal language model of transformers, called without packing."""

    def __init__(
        self, model: Any, max_rows: int = 128, context: int | None = None, version: Callable[[], int] = lambda: 0
    ):
        """`max_rows` are decoded together; `version` says how many updates the weights have seen."""
        self.model = model
        self.max_rows = max_rows
        settings = model.config.get_text_config()
        self.context = context or getattr(settings, "max_position_embeddings", None) or 1 << 30
        self.version = version
        self._memory: Memory | None = None  # found at the first call

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        was_training = self.model.training
        self.model.eval()
        try:
            self._memory = self._memory or find_memory(self.model)
            rows = [Row(number, request) for number, request in enumerate(requests)]
            waves = list(self._waves(rows, sampling))
            while waves:
                wave = waves.pop(0)
                try:
                    self._decode(wave, sampling, watch, finished)
                except RuntimeError as error:  # halves draw the same tokens: a draw does not depend on its batch
                    if not is_out_of_memory(error) or len(wave) == 1:
                        raise
                    left = [row for row in wave if not row.ended]
                    half = len(left) // 2
                    waves[:0] = [part for part in (left[:half], left[half:]) if part]
            return [row.completion(self.version()) for row in rows]
        finally:
            self.model.train(was_training)

    def _waves(self, rows: Sequence[Row], sampling: Sampling) -> Iterator[list[Row]]:
        """Rows of one length, those of one prompt side by side; rows with no room for a token in none."""
        waiting = []
        for row in rows:
            wanted = sampling.max_tokens if row.request.max_tokens is None else row.request.max_tokens
            row.limit = min(wanted, self.context - len(row.prompt))
            if row.limit > 0:
                waiting.append(row)
        waiting.sort(key=lambda row: (len(row.prompt), row.prompt, row.number))
        wave: list[Row] = []
        for row in waiting:
            length = len(row.prompt)
            full = 1 if self._memory == "alone" else min(self.max_rows, TOKENS_A_WAVE // (length + 1) + 1)
            if wave and (len(wave) >= full or len(wave[0].prompt) != length):
                yield wave
                wave = []
            wave.append(row)
        if wave:
            yield wave

    def _decode(self, rows: list[Row], sampling: Sampling, watch: Watch | None, finished: Finished | None) -> None:
        """All of one wave, together."""
        assert self._memory is not None
        for row in rows:
            row.begin()
        steps = Steps(self.model, self._memory)
        logits = steps.begin([row.prompt for row in rows])
        keys = torch.tensor([row.request.key for row in rows], device=logits.device)
        positions = torch.tensor([len(row.request.drawn) for row in rows], device=logits.device)
        while True:
            tokens, logprobs = draw_tokens(without_spare(self.model, logits), uniform(keys, positions), sampling)
            for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
                row.take(token, logprob, sampling, watch)
                if row.ended and finished is not None:
                    finished(row.number, row.completion(self.version()))
            living = [i for i, row in enumerate(rows) if not row.ended]
            if not living:
                return
            rows = [rows[i] for i in living]
            kept = torch.tensor(living, device=logits.device)
            keys, positions = keys[kept], positions[kept] + 1
            logits = steps.go_on(kept, tokens[kept])


@dataclass
class Row:
    """A request and what has been drawn for it; at most `limit` tokens will be."""

    number: int
    request: Request
    limit: int = 0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    told: int = 0  # tokens that were watched

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.request.prompt_ids + self.request.drawn

    @property
    def ended(self) -> bool:
        return self.stopped or len(self.tokens) >= self.limit

    def begin(self) -> None:
        """Nothing is drawn yet."""
        self.tokens, self.logprobs, self.stopped = [], [], False

    def take(self, token: int, logprob: float, sampling: Sampling, watch: Watch | None) -> None:
        """One more token."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if watch is not None and len(self.tokens) > self.told:
            self.told = len(self.tokens)
            watch(self.number, token)
        rule, drawn = sampling.stop_rule, [*self.request.drawn, *self.tokens]
        self.stopped = token in sampling.stop_ids or (rule is not None and rule.ends(drawn))

    def completion(self, version: int) -> Completion:
        return Completion(tuple(self.tokens), tuple(self.logprobs), "stop" if self.stopped else "length", version)


class Steps:
    """The logits of rows that grow by a token a step, by whatever memory the model has."""

    def __init__(self, model: Any, memory: Memory):
        self.model, self.memory = model, memory
        self._last_only = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
        self._positioned = memory != "none" and takes(model, "position_ids")
        self._seen = 0  # tokens of a row that are in the cache
        self._cache: dict[str, Any] = {}
        self._places: Tensor | None = None  # where the rows in flight stand in a cache that they cannot leave
        self._tokens_BT = torch.empty(0, 0, dtype=torch.long)

    def begin(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Logits [B, V] after prompts of equal length; equal prompts are computed once where rows can be copied."""
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        if self.memory == "moves" and len(numbers) < len(prompts):
            run_B = torch.tensor([numbers[prompt] for prompt in prompts], device=self.model.device)
            logits = self._forward(torch.tensor(list(numbers), device=self.model.device))[run_B]
            self._move(run_B)
            return logits
        self._tokens_BT = torch.tensor(prompts, device=self.model.device)
        self._places = torch.arange(len(prompts), device=self.model.device)
        return self._forward(self._tokens_BT)

    def go_on(self, kept: Tensor, tokens_B: Tensor) -> Tensor:
        """Logits [B, V] of the rows `kept` of those of the last call, with one more token each."""
        if self.memory == "moves":
            self._move(kept)
            return self._forward(tokens_B[:, None])
        if self.memory == "none":
            self._tokens_BT = torch.cat([self._tokens_BT[kept], tokens_B[:, None]], dim=1)
            return self._forward(self._tokens_BT)
        assert self._places is not None
        everywhere = self._tokens_BT[:, -1:].clone()  # a row that has ended is fed anything
        self._places = self._places[kept]
        everywhere[self._places, 0] = tokens_B
        return self._forward(everywhere)[self._places]

    def _forward(self, tokens_BT: Tensor) -> Tensor:
        cached = self.memory != "none"
        places = {}
        if self._positioned:
            end = self._seen + tokens_BT.shape[1]
            places["position_ids"] = torch.arange(self._seen, end, device=tokens_BT.device).expand(len(tokens_BT), -1)
            self._seen = end
        output = self.model(input_ids=tokens_BT, use_cache=cached, **places, **self._cache, **self._last_only)
        if cached:
            self._cache = {name: output[name] for name in CACHES if output.get(name) is not None}
            if not self._cache:
                raise TypeError("the model returns no cache")
        return output.logits[:, -1]

    def _move(self, rows: Tensor) -> None:
        """Row i of the cache is from now on what row `rows[i]` was."""
        self._cache = {name: _select(cache, rows) for name, cache in self._cache.items()}


def _select(cache: Any, rows: Tensor) -> Any:
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(rows)
        return cache
    if isinstance(cache, Tensor):
        return cache[rows]
    return type(cache)(_select(part, rows) for part in cache)


def find_memory(model: Any) -> Memory:
    """How the model can be decoded, tried on the model itself: what its cache says must be what it says without."""
    rows = probe_ids(model, 12).view(2, 6).to(model.device)
    expected = torch.cat([model(input_ids=row[None], use_cache=False).logits[:, 3:] for row in rows])
    for memory in ("moves", "stays", "alone"):
        try:
            if memory == "alone":
                found = torch.cat([_by_steps(model, memory, row[None], [0], [0]) for row in rows])
            else:
                found = _by_steps(model, memory, rows, [1, 0, 1], [1, 2])
        except Exception:  # a model that fails here in whatever way has no memory of this kind
            continue
        if agree(found, expected):
            return memory
    return "none"


def _by_steps(model: Any, memory: Memory, rows: Tensor, order: list[int], kept: list[int]) -> Tensor:
    """Logits [B, 3, V] after each of the last tokens of `rows` taken in `order`, all but `kept` left at the end."""
    tokens = rows[order]
    steps = Steps(model, memory)
    first = steps.begin([tuple(row) for row in tokens[:, :4].tolist()])
    second = steps.go_on(torch.arange(len(order), device=rows.device), tokens[:, 4])
    third = steps.go_on(torch.tensor(kept, device=rows.device), tokens[kept, 5])
    return torch.stack([first[kept], second[kept], third], dim=1)
