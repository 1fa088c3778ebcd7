"""The native sampler: decodes with the trainer's own parameters, in its own process.

Each distinct prompt is prefilled once for all its requests; finished rows leave the batch; a draw depends on its key
and position alone. `generate` reads: plan the waves, prefill, draw and step until no row is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from temper.kernels.layers import in_place, scoring_forwards
from temper.rollout.cache import Cache, Shared
from temper.rollout.draw import draw_tokens, uniform
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.few import Few, fits, torch_step
from temper.rollout.memory import default_budget, is_out_of_memory, wave_bytes
from temper.rollout.prefill import prefill
from temper.types import Completion

MANY = 1 << 30  # steps: until a row ends


class NativeEngine:
    """Implements `Engine` for a transformers model loaded with temper's attention."""

    def __init__(
        self,
        model: Any,
        max_rows: int = 512,
        memory: int | None = None,
        context: int | None = None,
        version: Callable[[], int] = lambda: 0,
    ):
        """At most `max_rows` are decoded together, fewer where they would take more than `memory` bytes (a share of
        the machine's when not given). `version` says how many updates the weights have seen."""
        self.model = model
        self.max_rows = max_rows
        self.memory = memory or default_budget()
        self.context = context or getattr(model.config, "max_position_embeddings", None) or 1 << 30
        self.version = version

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
        done: dict[int, Completion] = {}

        def finish(number: int, completion: Completion) -> None:
            done[number] = completion
            if finished is not None:
                finished(number, completion)

        waves = self._waves(requests, sampling)
        while waves:
            wave = waves.pop(0)
            try:
                with in_place(scoring_forwards(self.model)):
                    self._decode(wave, sampling, watch, finish)
            except RuntimeError as error:  # halves draw the same tokens: a draw does not depend on its batch
                if not is_out_of_memory(error) or len(wave) == 1:
                    raise
                left = [row for row in wave if row.number not in done]
                half = len(left) // 2
                waves[:0] = [part for part in (left[:half], left[half:]) if part]
        self.model.train(was_training)
        nothing = Completion((), (), "length", self.version())
        return [done.get(number, nothing) for number in range(len(requests))]

    def _waves(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Pending]]:
        """Rows that are decoded together, those of one prompt side by side; without rows that have no room left."""
        pending = plan_rows(requests, sampling, self.context)
        columns = max((row.limit for row in pending), default=0)
        waves: list[list[Pending]] = []
        used = 0
        for row in pending:
            new = not waves or waves[-1][-1].tokens != row.tokens
            needed = wave_bytes(self.model.config, 1, columns, int(new), len(row.tokens), self.model.dtype.itemsize)
            if not waves or len(waves[-1]) == self.max_rows or used + needed > self.memory:
                waves.append([])
                used = 0
            waves[-1].append(row)
            used += needed
        return waves

    def _decode(self, wave: Sequence[Pending], sampling: Sampling, watch: Watch | None, finish: Finished) -> None:
        """All of one wave, together."""
        logits, cache = self._prefill(wave)
        flight = Flight.of(wave, sampling)
        tokens = flight.draw(logits, sampling)
        few: Few | None = None
        hears = watch is not None or sampling.stop_rule is not None  # of every token
        while True:
            stopped, ended = flight.ended(tokens, sampling, watch)
            living = flight.count - int(ended.sum())
            if living < flight.count:
                for number, completion in flight.completions(ended, stopped, self.version()):
                    finish(number, completion)
                if living == 0:
                    return
                kept = _fill_holes(ended, living)
                flight.keep(kept)
                cache.keep(kept)
                tokens = tokens[kept]
            if few is None and fits(living, cache):
                few = Few.of(self.model, cache)
            if few is not None:
                tokens = few.decode(flight, cache, tokens, sampling, 1 if hears else MANY)
            else:
                tokens = flight.draw(torch_step(self.model, tokens, cache), sampling)

    def _prefill(self, wave: Sequence[Pending]) -> tuple[Tensor, Cache]:
        """Logits [B, V] after every row's prompt, and the cache that decoding goes on from."""
        run_of: dict[tuple[int, ...], int] = {}
        run_B = torch.tensor([run_of.setdefault(row.tokens, len(run_of)) for row in wave])
        filled = prefill(self.model, list(run_of))
        shared = [Shared(filled.runs, filled.lengths, filled.cut, run_B)]
        if filled.cut:
            shared.insert(0, Shared(filled.prefix, [filled.cut], 0, torch.zeros_like(run_B)))
        starts = torch.tensor([len(row.tokens) for row in wave])
        return filled.logits_RV[run_B], Cache(shared, starts, max(row.limit for row in wave))


@dataclass(frozen=True)
class Pending:
    """A request that waits for its wave: `tokens` are its prompt and what was drawn before, `limit` what may come."""

    number: int
    tokens: tuple[int, ...]
    key: int
    drawn: int
    limit: int

    @property
    def begun(self) -> list[int]:
        """The tokens of its completion that were drawn before."""
        return list(self.tokens[len(self.tokens) - self.drawn :])


def plan_rows(requests: Sequence[Request], sampling: Sampling, context: int) -> list[Pending]:
    """Those with room for a token, those of one prompt side by side."""
    rows = []
    for number, request in enumerate(requests):
        tokens = request.prompt_ids + request.drawn
        wanted = sampling.max_tokens if request.max_tokens is None else request.max_tokens
        rows.append(Pending(number, tokens, request.key, len(request.drawn), min(wanted, context - len(tokens))))
    return sorted((row for row in rows if row.limit > 0), key=lambda row: (len(row.tokens), row.tokens, row.number))


@dataclass
class Flight:
    """What is drawn for the rows of a wave; the first `count` rows are still in flight."""

    wave: Sequence[Pending]
    row_B: Tensor  # the place in the wave of each row in flight
    keys_B: Tensor
    positions_B: Tensor  # of the next token in its completion
    limits_B: Tensor
    stop_ids: Tensor
    tokens: Tensor  # [rows of the wave, longest limit]
    logprobs: Tensor
    step: int = 0

    @staticmethod
    def of(wave: Sequence[Pending], sampling: Sampling) -> Flight:
        rows, longest = len(wave), max(row.limit for row in wave)
        return Flight(
            wave,
            torch.arange(rows),
            torch.tensor([row.key for row in wave]),
            torch.tensor([row.drawn for row in wave]),
            torch.tensor([row.limit for row in wave]),
            torch.tensor(sampling.stop_ids, dtype=torch.long),
            torch.zeros(rows, longest, dtype=torch.long),
            torch.zeros(rows, longest),
        )

    @property
    def count(self) -> int:
        return len(self.row_B)

    def draw(self, logits_BV: Tensor, sampling: Sampling) -> Tensor:
        """The next token of every row, written down."""
        tokens, logprobs = draw_tokens(logits_BV, uniform(self.keys_B, self.positions_B), sampling)
        self.tokens[self.row_B, self.step], self.logprobs[self.row_B, self.step] = tokens, logprobs
        self.positions_B += 1
        self.step += 1
        return tokens

    def ended(self, tokens_B: Tensor, sampling: Sampling, watch: Watch | None) -> tuple[Tensor, Tensor]:
        """Which rows in flight [B] the token just drawn stops, and which of them are finished with it."""
        stopped = torch.isin(tokens_B, self.stop_ids)
        if watch is not None:
            for row, token in zip(self.row_B.tolist(), tokens_B.tolist(), strict=True):
                watch(self.wave[row].number, token)
        if sampling.stop_rule is not None:
            drawn = zip(self.row_B.tolist(), self.tokens[self.row_B, : self.step].tolist(), strict=True)
            ends = [sampling.stop_rule.ends(self.wave[row].begun + tokens) for row, tokens in drawn]
            stopped |= torch.tensor(ends)
        return stopped, stopped | (self.limits_B <= self.step)

    def keep(self, rows: Tensor) -> None:
        """Row i is from now on what row `rows[i]` was."""
        self.row_B, self.keys_B = self.row_B[rows], self.keys_B[rows]
        self.positions_B, self.limits_B = self.positions_B[rows], self.limits_B[rows]

    def completions(self, ended_B: Tensor, stopped_B: Tensor, version: int) -> Iterator[tuple[int, Completion]]:
        """Those of the rows that have just ended, with the numbers of their requests."""
        rows = self.row_B[ended_B]
        tokens, logprobs = self.tokens[rows, : self.step].tolist(), self.logprobs[rows, : self.step].tolist()
        for row, drawn, values, stopped in zip(
            rows.tolist(), tokens, logprobs, stopped_B[ended_B].tolist(), strict=True
        ):
            reason = "stop" if stopped else "length"
            yield self.wave[row].number, Completion(tuple(drawn), tuple(values), reason, version)


def _fill_holes(ended_B: Tensor, living: int) -> Tensor:
    """For each of the `living` first places the row that goes there: itself, or, if it ended, one from further back."""
    rows = torch.arange(living)
    rows[ended_B[:living]] = living + (~ended_B[living:]).nonzero().squeeze(-1)
    return rows
