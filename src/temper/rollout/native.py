"""The native sampler: decodes with the trainer's own parameters, in its own process.

Each distinct prompt is prefilled once for all its requests; finished rows leave the batch; a draw depends on its key
and position alone. `generate` reads: plan the waves, prefill, draw and step until no row is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.rollout.cache import Cache, Shared
from temper.rollout.compiled import CompiledSteps, torch_step
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.flight import Flight, Pending, fill_holes, plan_rows
from temper.rollout.memory import default_budget, is_out_of_memory, row_bytes, token_bytes
from temper.rollout.prefill import prefill
from temper.rollout.stems import Stems
from temper.types import Completion

STEPS = 16  # between two looks of the host, unless a row ends before


def room(flight: Flight, sampling: Sampling, watch: Watch | None) -> int:
    """How many tokens may be drawn of each row before somebody is told or asked."""
    if watch is not None:
        return 1
    return STEPS if sampling.stop_rule is None else max(1, min(STEPS, flight.until_asked(sampling.stop_rule)))


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
        config, itemsize = self.model.config, self.model.dtype.itemsize
        a_row, a_token = row_bytes(config, columns, itemsize), token_bytes(config, itemsize)
        waves: list[list[Pending]] = []
        used = 0
        for row in pending:
            new = not waves or waves[-1][-1].tokens != row.tokens
            needed = a_row + (len(row.tokens) * a_token if new else 0)
            if not waves or len(waves[-1]) == self.max_rows or used + needed > self.memory:
                waves.append([])
                used = 0
            waves[-1].append(row)
            used += needed
        return waves

    def _decode(self, wave: Sequence[Pending], sampling: Sampling, watch: Watch | None, finish: Finished) -> None:
        """All of one wave, together."""
        logits, cache, run_B = self._prefill(wave)
        flight = Flight.of(wave, sampling)
        tokens = flight.draw(logits, sampling)
        compiled = CompiledSteps.of(self.model, cache, len(wave))
        stems = Stems(cache, compiled, run_B)
        while True:
            stopped, ended = flight.ended(tokens, sampling, watch)
            living = flight.count - int(ended.sum())
            if living < flight.count:
                for number, completion in flight.completions(ended, stopped, self.version()):
                    finish(number, completion)
                if living == 0:
                    return
                kept = fill_holes(ended, living)
                flight.keep(kept)
                stems.keep(kept)
                tokens = tokens[kept]
            shared = stems.share(tokens, logits.shape[-1])
            if shared is not None:
                tokens = stems.draw(shared, flight, sampling)
                continue
            tokens = self._next(tokens, flight, cache, compiled, sampling, room(flight, sampling, watch))

    def _next(
        self, tokens: Tensor, flight: Flight, cache: Cache, compiled: CompiledSteps | None, sampling: Sampling,
        steps: int,
    ) -> Tensor:  # fmt: skip
        """The tokens [B] drawn after one more step, or after up to `steps` where they are compiled and no row ends."""
        if compiled is not None:
            return compiled.decode(flight, cache, tokens, sampling, steps)
        return flight.draw(torch_step(self.model, tokens, cache), sampling)

    def _prefill(self, wave: Sequence[Pending]) -> tuple[Tensor, Cache, Tensor]:
        """Logits [B, V] after every row's prompt, the cache that decoding goes on from, and each row's prompt [B]."""
        run_of: dict[tuple[int, ...], int] = {}
        run_B = torch.tensor([run_of.setdefault(row.tokens, len(run_of)) for row in wave])
        filled = prefill(self.model, list(run_of))
        shared = [Shared(filled.runs, filled.lengths, filled.cut, run_B)]
        if filled.cut:
            shared.insert(0, Shared(filled.prefix, [filled.cut], 0, torch.zeros_like(run_B)))
        starts = torch.tensor([len(row.tokens) for row in wave])
        return filled.logits_RV[run_B], Cache(shared, starts, max(row.limit for row in wave)), run_B
