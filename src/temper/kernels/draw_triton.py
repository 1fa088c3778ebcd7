"""What a step of fixed slots does beside the model, on a GPU: what is fed is looked up in one launch, the next token is
drawn, written down and judged in another.

Draws are those of `rollout/draw.py`: the same random number of a key and a position, the same token but where rounding
decides. Shapes: S slots, V tokens of the vocabulary, C columns of a slot's tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton  # type: ignore[import-not-found]
    import triton.language as tl  # type: ignore[import-not-found]
except ImportError:  # there is no Triton for every platform
    triton: Any = None
    tl: Any = None

BLOCK = 8192  # tokens of the vocabulary that a program looks at together


class Slots(NamedTuple):
    """The tensors of slots that are fed and drawn for. Rows of `state`: key of the draw, tokens drawn before, position
    of the first token, tokens it may have, tokens it has, whether it goes on."""

    state: Tensor  # [6, S] int64
    tokens_SC: Tensor
    logprobs_SC: Tensor


def fed(slots: Slots, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(the last token, its column, its position) of each of the first `count` slots."""
    found = torch.empty(3, count, dtype=torch.long, device=slots.state.device)
    block = min(1024, triton.next_power_of_2(count))
    _feed[(triton.cdiv(count, block),)](
        slots.state, slots.tokens_SC, found, slots.state.stride(0), slots.tokens_SC.stride(0), count, BLOCK=block
    )
    return found[0], found[1], found[2]


def draw(slots: Slots, numbers: Tensor, logits: Tensor, temperature: float, stop_ids: Tensor) -> None:
    """Write down the next token of the slots `numbers` [n], by `logits` [n, V], with nothing cut off before the draw; a
    slot whose row has ended stays as it is."""
    count, vocabulary = logits.shape
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    _draw[(count,)](
        logits, *slots, stop_ids, numbers, logits.stride(0), slots.state.stride(0), slots.tokens_SC.stride(0),
        slots.logprobs_SC.stride(0), len(stop_ids), vocabulary, temperature or 1.0,
        BLOCK=min(BLOCK, triton.next_power_of_2(vocabulary)), STOPS=triton.next_power_of_2(max(1, len(stop_ids))),
        GREEDY=temperature == 0, num_warps=16 if vocabulary > BLOCK // 2 else 4,
    )  # fmt: skip


# pyright: reportInvalidTypeForm=false
if triton is not None:

    @triton.jit
    def _feed(state, tokens, found, state_row, tokens_row, count, BLOCK: tl.constexpr):
        """One program: BLOCK slots."""
        slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = slot < count
        column = tl.load(state + 4 * state_row + slot, mask=inside, other=1) - 1
        start = tl.load(state + 2 * state_row + slot, mask=inside, other=0)
        tl.store(found + slot, tl.load(tokens + slot * tokens_row + column, mask=inside), mask=inside)
        tl.store(found + count + slot, column, mask=inside)
        tl.store(found + 2 * count + slot, start + column, mask=inside)

    @triton.jit
    def _uniform(key, position):
        """A number in [0, 1): the SplitMix64 finaliser."""
        x = key.to(tl.uint64, bitcast=True) + (position + 1).to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB
        x = (x ^ (x >> 31)) >> 11
        return x.to(tl.int64, bitcast=True).to(tl.float64) * 1.1102230246251565e-16  # 2^-53

    @triton.jit
    def _weights(logits, first, vocabulary, temperature, peak, BLOCK: tl.constexpr):
        """exp(logit − peak) of a block of tokens, and 0 behind the last."""
        token = first + tl.arange(0, BLOCK)
        number = tl.load(logits + token, mask=token < vocabulary, other=float("-inf")).to(tl.float32) / temperature
        return tl.exp(number - peak)

    @triton.jit
    def _draw(
        logits, state, tokens, logprobs, stops, numbers, logits_row, state_row, tokens_row, logprobs_row, stop_count,
        vocabulary, temperature, BLOCK: tl.constexpr, STOPS: tl.constexpr, GREEDY: tl.constexpr,
    ):  # fmt: skip
        """One program: one slot. Twice over its logits: for their sum, and to where the running sum passes the draw."""
        slot = tl.load(numbers + tl.program_id(0))
        logits += tl.program_id(0).to(tl.int64) * logits_row
        lane = tl.arange(0, BLOCK)
        higher, sums = tl.full([BLOCK], float("-inf"), tl.float32), tl.zeros([BLOCK], tl.float32)
        for first in range(0, vocabulary, BLOCK):
            inside = first + lane < vocabulary
            number = tl.load(logits + first + lane, mask=inside, other=float("-inf")).to(tl.float32) / temperature
            now = tl.maximum(higher, number)
            base = tl.where(now == float("-inf"), 0.0, now)
            sums = sums * tl.exp(higher - base) + tl.exp(number - base)
            higher = now
        peak = tl.max(higher, axis=0)
        total = tl.sum((sums * tl.exp(higher - peak)).to(tl.float64), axis=0)
        at = state + slot
        length = tl.load(at + 4 * state_row)
        if GREEDY:
            token = vocabulary
            for first in range(0, vocabulary, BLOCK):
                inside = first + lane < vocabulary
                number = tl.load(logits + first + lane, mask=inside, other=float("-inf")).to(tl.float32)
                token = tl.minimum(token, tl.min(tl.where(number == peak, first + lane, vocabulary), axis=0))
        else:
            wanted = _uniform(tl.load(at), tl.load(at + state_row) + length) * total
            first, kept = 0, 0
            before = total - total
            mass = tl.sum(_weights(logits, 0, vocabulary, temperature, peak, BLOCK).to(tl.float64), axis=0)
            while (before + mass <= wanted) & (first + BLOCK < vocabulary):
                kept = tl.where(mass > 0, first, kept)
                before += mass
                first += BLOCK
                mass = tl.sum(_weights(logits, first, vocabulary, temperature, peak, BLOCK).to(tl.float64), axis=0)
            passed = before + mass <= wanted  # rounding left nothing above the draw: the last token with a weight
            first = tl.where(mass > 0, first, kept)
            weights = _weights(logits, first, vocabulary, temperature, peak, BLOCK)
            running = before + tl.cumsum(weights.to(tl.float64), axis=0)
            last = tl.max(tl.where(weights > 0, lane, 0), axis=0)
            index = tl.minimum(tl.sum((running <= wanted).to(tl.int32), axis=0), last)
            token = first + tl.where(passed, last, index)
        chosen = tl.load(logits + token).to(tl.float32) / temperature
        alive, limit = tl.load(at + 5 * state_row), tl.load(at + 3 * state_row)
        tl.store(tokens + slot * tokens_row + length, token)
        tl.store(logprobs + slot * logprobs_row + length, chosen - peak - tl.log(total).to(tl.float32))
        stop = tl.load(stops + tl.arange(0, STOPS), mask=tl.arange(0, STOPS) < stop_count, other=-1)
        stopped = tl.max((stop == token).to(tl.int64), axis=0)
        tl.store(at + 4 * state_row, length + alive)
        tl.store(at + 5 * state_row, alive * (length + 1 < limit).to(tl.int64) * (1 - stopped))
