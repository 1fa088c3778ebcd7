"""Decode steps in C, one call a step or for many: layers and draws of a whole wave by `kernels/step.c`.

A step of torch is some hundreds of calls, whatever they do: all of the time where a chat, step labels, an evaluation
of few prompts or the last rows of a wave are decoded, and a third of it with hundreds of rows of a small model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from temper.kernels import step
from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.kernels.stack import Filled, Laid, Stack, find_stack
from temper.kernels.step import FlightC, SharedC
from temper.models.spare import spare_ids, without_spare
from temper.rollout.cache import Cache, Shared
from temper.rollout.draw import plain
from temper.rollout.engine import Sampling
from temper.rollout.flight import Flight
from temper.rollout.memory import default_budget, may_lay
from temper.rollout.prefill import prefill

LONG = 1024  # tokens that rows share, beyond which many rows had better look at them together, as torch does
MANY = 8  # rows
TOLERANCE = 1e-4  # of the largest logit

_known: WeakKeyDictionary[Any, tuple[int, Stack | None]] = WeakKeyDictionary()
_frozen: WeakKeyDictionary[Any, list[Laid]] = WeakKeyDictionary()


class CompiledSteps:
    """For the rows of one wave."""

    def __init__(self, filled: Filled, vocabulary: int):
        self.parts, self.vocabulary = filled, vocabulary
        self.flight: FlightC | None = None
        self.held: list[Any] = []  # what C reads
        self.logits = torch.empty(0)

    @staticmethod
    def of(model: Any, cache: Cache, rows: int) -> CompiledSteps | None:
        """For the rows of `cache`; None where `model` is of other parts, there is no compiler, or torch is faster."""
        if rows > MANY and max(map(_tokens, cache.shared)) > LONG:
            return None
        stack = stack_of(model)
        return None if stack is None else CompiledSteps.filled(stack, model, cache)

    @staticmethod
    def filled(stack: Stack, model: Any, cache: Cache) -> CompiledSteps | None:
        columns = cache.own[0][0].shape[2]
        positions = int(cache.positions_B.max()) + columns - cache.column
        filled = stack.fill(positions, spare_ids(model), _laid(stack, model))
        return None if filled is None else CompiledSteps(filled, len(stack.head.weight))

    def decode(self, flight: Flight, cache: Cache, tokens_B: Tensor, sampling: Sampling, steps: int) -> Tensor:
        """The tokens [B] drawn after `tokens_B` and some more, until a row ends or there have been `steps` steps."""
        if not plain(sampling):
            return flight.draw(self.logits_after(tokens_B, cache), sampling)
        c = self._look(cache, tokens_B)
        stops = flight.stop_ids
        c.row, c.draw_keys, c.limits, c.stops = (
            tensor.data_ptr() for tensor in (flight.row_B, flight.keys_B, flight.limits_B, stops)
        )
        c.drawn, c.all_tokens, c.all_logprobs = (
            tensor.data_ptr() for tensor in (flight.positions_B, flight.tokens, flight.logprobs)
        )
        c.longest, c.step, c.stop_count = flight.tokens.shape[1], flight.step, len(stops)
        c.temperature = sampling.temperature
        taken = step.decode(self.parts.c, c, steps)
        flight.step += taken
        cache.column += taken
        return self.tokens

    def logits_after(self, tokens_B: Tensor, cache: Cache) -> Tensor:
        """Logits [B, V] after one more token in every row; those of no token are at NEVER."""
        step.forward(self.parts.c, self._look(cache, tokens_B))
        cache.column += 1
        return self.logits

    def draw(self, flight: Flight, row_B: Tensor, sampling: Sampling) -> Tensor:
        """The tokens [B] that the requests of `flight` draw, request b from the logits of row `row_B[b]` after the last
        step. Those logits are of no use afterwards."""
        if not plain(sampling):
            return flight.draw(self.logits[row_B], sampling)
        assert self.flight is not None
        c, tokens = self.flight, torch.empty_like(row_B)
        c.row, c.draw_keys = flight.row_B.data_ptr(), flight.keys_B.data_ptr()
        c.drawn, c.all_tokens, c.all_logprobs = (
            tensor.data_ptr() for tensor in (flight.positions_B, flight.tokens, flight.logprobs)
        )
        c.longest, c.step, c.temperature = flight.tokens.shape[1], flight.step, sampling.temperature
        step.draw(self.parts.c, c, row_B, tokens)
        flight.step += 1
        return tokens

    def look_anew(self) -> None:
        """The rows of the cache have changed, though perhaps not their number."""
        self.flight = None

    def _look(self, cache: Cache, tokens_B: Tensor) -> FlightC:
        """`cache` as C takes it; made anew when its rows have changed."""
        rows = len(tokens_B)
        if self.flight is None or len(self.logits) != rows:
            self._prepare(cache, rows)
        assert self.flight is not None
        self.tokens = tokens_B if tokens_B.is_contiguous() else tokens_B.contiguous()
        self.flight.tokens, self.flight.positions = self.tokens.data_ptr(), cache.positions_B.data_ptr()
        self.flight.column = cache.column
        return self.flight

    def _prepare(self, cache: Cache, rows: int) -> None:
        keys, values = ([pair[i] for pair in cache.own] for i in (0, 1))
        columns = keys[0].shape[2]
        visible = columns + sum(_tokens(shared) for shared in cache.shared)
        self.logits, self.held = torch.empty(rows, self.vocabulary), []
        shared = (SharedC * len(cache.shared))(*(self._shared(one) for one in cache.shared))
        arrays = step.addresses(keys), step.addresses(values)
        self.held += [shared, *arrays]
        self.flight = FlightC(shared, *arrays, shares=len(shared), rows=rows, columns=columns, visible=visible,
                              logits=self.logits.data_ptr())  # fmt: skip
        scratch = torch.empty(step.scratch(self.parts.c, self.flight))
        self.flight.scratch = scratch.data_ptr()
        self.held.append(scratch)

    def _shared(self, one: Shared) -> SharedC:
        layers = [tuple(part.contiguous() for part in pair) for pair in one.layers]
        arrays = [step.addresses([pair[i] for pair in layers]) for i in (0, 1)]
        self.held += [layers, one.run_B, one.lengths_R, *arrays]
        return SharedC(*arrays, one.run_B.data_ptr(), one.lengths_R.data_ptr(), layers[0][0].shape[2], one.start)


def freeze(model: Any) -> None:
    """The weights of `model` change no more, so that one copy of them serves all waves."""
    _frozen.setdefault(model, [])


def _laid(stack: Stack, model: Any) -> Laid | None:
    """The weights' copy; in half the space, with the same bits, where that keeps all of them."""
    if _frozen.get(model):
        return _frozen[model][0]
    weights, budget = stack.weights(), default_budget()
    halved = may_lay(weights, budget, 2) and stack.fits_half()
    if not halved and not may_lay(weights, budget):
        return None
    laid = stack.lay(step.HALVED if halved else step.WHOLE)
    if model in _frozen:
        _frozen[model].append(laid)
    return laid


def _tokens(shared: Shared) -> int:
    return shared.layers[0][0].shape[2]


def stack_of(model: Any) -> Stack | None:
    """The parts of `model`, if a step of them says what a step of the model says; tried once a model."""
    if not step.available():
        return None
    count = sum(1 for _ in model.modules())  # adapters add some
    if model not in _known or _known[model][0] != count:
        stack = find_stack(model)
        _known[model] = count, stack if stack is not None and _says_the_same(stack, model) else None
    return _known[model][1]


def _says_the_same(stack: Stack, model: Any) -> bool:
    """Of a few steps after made-up prompts, to rows that share them."""
    vocabulary = len(stack.head.weight)
    prompts = [tuple((7 + 31 * i * (j + 1)) % vocabulary for i in range(3 + 4 * j)) for j in range(2)]
    run_B = torch.tensor([0, 1, 1])
    with torch.no_grad(), in_place(scoring_forwards(model)):
        found, expected = (
            _steps(model, stack if in_c else None, prompts, run_B) for in_c in (True, False)
        )  # fmt: skip
    if found is None or expected is None:
        return False
    real = expected.isfinite() & (expected > -1e29)
    largest = expected[real].abs().max()
    return bool((found - expected)[real].abs().max() <= TOLERANCE * largest) and bool(largest > 0)


def _steps(model: Any, stack: Stack | None, prompts: Sequence[tuple[int, ...]], run_B: Tensor) -> Tensor | None:
    filled = prefill(model, prompts)
    starts = torch.tensor(filled.lengths)[run_B]
    cache = Cache([Shared(filled.runs, filled.lengths, 0, run_B)], starts, 3)
    steps = None if stack is None else CompiledSteps.filled(stack, model, cache)
    if stack is not None and steps is None:
        return None
    vocabulary, said = filled.logits_RV.shape[1], []
    for number in range(3):
        tokens = (torch.arange(len(run_B)) * 13 + 5 + number) % vocabulary
        logits = torch_step(model, tokens, cache) if steps is None else steps.logits_after(tokens, cache)
        said.append(logits.clone())
    return torch.cat(said)


def torch_step(model: Any, tokens_B: Tensor, cache: Cache) -> Tensor:
    """Logits [B, V] after one more token in every row, by the model's own forward."""
    logits = model(
        input_ids=tokens_B[:, None],
        position_ids=cache.positions_B[:, None],
        attention_plan=cache,
        use_cache=False,
    ).logits[:, 0]
    cache.advance()
    return without_spare(model, logits)
