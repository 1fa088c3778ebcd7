"""What a Llama-like layer does between its matrix products, on a GPU: one Triton kernel each, with a gradient.

What `fused.py` is on a CPU, and a residual that is added where it is normed. Numbers come in any width, are computed
with in float32 and rounded once, where they are written.

Shapes: N tokens, S size of what is normed or gated, H heads, K key heads, D head size, W = (H + 2 K) D.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temper.kernels.fused import ACTIVATIONS
from temper.kernels.product import apply

try:
    import triton  # type: ignore[import-not-found]
    import triton.language as tl  # type: ignore[import-not-found]
except ImportError:  # there is no Triton for every platform
    triton: Any = None
    tl: Any = None

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILE = 1024  # numbers of short rows that one program takes together
PROGRAMS = 256  # that share the rows of a norm's backward pass: each sums a part of the weight's gradient
GATES = 1024  # numbers that a program gates


class Places(NamedTuple):
    """Where new keys and values go: row n of the batch to `keys[n, :, columns[n]]`."""

    keys: Tensor  # [N or more, K, T, D]
    values: Tensor
    columns_N: Tensor


class HeadNorms(NamedTuple):
    """Weights [D] of the norms of each query's and each key's head."""

    query: Tensor
    key: Tensor
    eps: float
    offset: float


def serves(device: torch.device) -> bool:
    """Whether Triton's kernels are used on `device` (on a CPU: in its interpreter)."""
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return triton is not None and (device.type == "cuda" or interpreted)


def rms_norm(x_NS: Tensor, weight_S: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """x · (weight + offset) / √(mean(x²) + eps)."""
    return apply(_RmsNorm, x_NS.contiguous(), weight_S, eps, offset)


def add_norm(
    x_NS: Tensor, added_NS: Tensor, weight_S: Tensor, eps: float, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(x + added, and what `rms_norm` makes of that)."""
    return apply(_AddNorm, x_NS.contiguous(), added_NS.contiguous(), weight_S, eps, offset)  # type: ignore[return-value]


def gated(x_N2S: Tensor, activation: str) -> Tensor:
    """[N, S]: activation(gate) · value of rows that hold S gates and then S values."""
    return apply(_Gated, x_N2S.contiguous(), *ACTIVATIONS[activation])


def rotated(x_NW: Tensor, cosine_ND: Tensor, sine_ND: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [N, H, D], keys and values [N, K, D] of rows that hold `heads` queries, then the keys, then the values:
    queries and keys with rotary positions (2104.09864)."""
    return apply(_Rotated, x_NW.contiguous(), cosine_ND, sine_ND, heads)  # type: ignore[return-value]


def placed(
    x_NW: Tensor, cosine_ND: Tensor, sine_ND: Tensor, heads: int, norms: HeadNorms | None, places: Places | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What `rotated` says of heads normed before, keys and values written to `places`. No gradient."""
    rows, size = cosine_ND.shape
    key_heads = (x_NW.shape[1] // size - heads) // 2
    query = x_NW.new_empty(rows, heads, size)
    if places is None:
        key, value = (x_NW.new_empty(rows, key_heads, 1, size) for _ in range(2))
    else:
        key, value = places.keys, places.values
    half = triton.next_power_of_2(size // 2)
    _rotate[(rows,)](
        x_NW, cosine_ND, sine_ND, query, key, value, None if places is None else places.columns_N,
        *(norms or HeadNorms(x_NW, x_NW, 0.0, 0.0)), x_NW.stride(0), cosine_ND.stride(0), sine_ND.stride(0),
        *key.stride()[:3], *value.stride()[:3],
        H=heads, K=key_heads, D=size, HEADS=triton.next_power_of_2(heads + 2 * key_heads), HALF=half,
        NORMED=norms is not None, PLACED=places is not None, num_warps=4,
    )  # fmt: skip
    return (query, key, value) if places is not None else (query, key[:, :, 0], value[:, :, 0])


def angles(positions_N: Tensor, frequencies: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, D] of position · frequency, times `scale`, each half of D the same."""
    rows, size = positions_N.numel(), 2 * len(frequencies)
    cosine, sine = (torch.empty(rows, size, dtype=dtype, device=frequencies.device) for _ in range(2))
    half = triton.next_power_of_2(len(frequencies))
    _angles[(rows,)](positions_N.contiguous(), frequencies, cosine, sine, scale, D=size, HALF=half, num_warps=1)
    return cosine, sine


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        _, out, inverse = _normed(x, None, weight, eps, offset)
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        return *_norm_gradients(x, weight, inverse, ctx.offset, gradient, None), None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor, weight: Tensor, eps: float, offset: float
    ) -> tuple[Tensor, Tensor]:
        total, out, inverse = _normed(x, added, weight, eps, offset)
        ctx.save_for_backward(total, weight, inverse)
        ctx.offset = offset
        return total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, of_out: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, inverse = ctx.saved_tensors
        of_x, of_weight = _norm_gradients(total, weight, inverse, ctx.offset, of_out, of_total)
        return of_x, of_x, of_weight, None, None


def _normed(
    x: Tensor, added: Tensor | None, weight: Tensor, eps: float, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x + added, its norm times the weight, 1 / √(mean of squares + eps))."""
    rows, size = x.shape
    total, out = x if added is None else torch.empty_like(x), torch.empty_like(x)
    inverse = torch.empty(rows, device=x.device)
    block, together, warps = _tile(size)
    _norm[(triton.cdiv(rows, together),)](
        x, added, weight, total, out, inverse, eps, offset, rows,
        S=size, BLOCK=block, ROWS=together, ADDS=added is not None, num_warps=warps,
    )  # fmt: skip
    return total, out, inverse


def _norm_gradients(
    x: Tensor, weight: Tensor, inverse: Tensor, offset: float, of_out: Tensor, of_total: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, size = x.shape
    block, together, warps = _tile(size)
    programs = min(PROGRAMS, triton.cdiv(rows, together))
    of_x, parts = torch.empty_like(x), torch.empty(programs, size, device=x.device)
    _norm_backward[(programs,)](
        x, weight, inverse, of_out.contiguous(), None if of_total is None else of_total.contiguous(), of_x, parts,
        offset, rows, S=size, BLOCK=block, ROWS=together, ADDED=of_total is not None, num_warps=warps,
    )  # fmt: skip
    return of_x, parts.sum(0).to(weight.dtype)


def _tile(size: int) -> tuple[int, int, int]:
    """(a power of two that holds a row, rows that a program takes together, its warps).

    >>> _tile(896)[:2] if triton else (1024, 1)
    (1024, 1)
    """
    block = triton.next_power_of_2(size)
    return block, max(1, TILE // block), 8 if block >= 4096 else 4


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: float, b: float) -> Tensor:
        rows, size = x.shape[0], x.shape[1] // 2
        out = x.new_empty(rows, size)
        ctx.save_for_backward(x)
        ctx.numbers = a, b
        block = min(GATES, triton.next_power_of_2(size))
        _gate[(rows, triton.cdiv(size, block))](x, out, a, b, S=size, BLOCK=block)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        rows, size = x.shape[0], x.shape[1] // 2
        of_x = torch.empty_like(x)
        block = min(GATES, triton.next_power_of_2(size))
        grid = rows, triton.cdiv(size, block)
        _gate_backward[grid](x, gradient.contiguous(), of_x, *ctx.numbers, S=size, BLOCK=block)
        return of_x, None, None


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cosine, sine)
        return placed(x, cosine, sine, heads, None, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        query, key, value = (gradient.contiguous() for gradient in gradients)
        (rows, heads, size), key_heads = query.shape, key.shape[1]
        of_x = query.new_empty(rows, (heads + 2 * key_heads) * size)
        _rotate_back[(rows,)](
            query, key, value, cosine, sine, of_x, cosine.stride(0), sine.stride(0), H=heads, K=key_heads, D=size,
            HEADS=triton.next_power_of_2(heads + 2 * key_heads), HALF=triton.next_power_of_2(size // 2), num_warps=4,
        )  # fmt: skip
        return of_x, None, None, None


# pyright: reportInvalidTypeForm=false
if triton is not None:

    @triton.jit
    def _norm(
        x, added, scale, total, out, inverse, eps, offset, rows,
        S: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADDS: tl.constexpr,
    ):  # fmt: skip
        """One program: ROWS rows."""
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        column = tl.arange(0, BLOCK)
        at = row[:, None] * S + column[None, :]
        inside = (row < rows)[:, None] & (column < S)[None, :]
        number = tl.load(x + at, mask=inside, other=0).to(tl.float32)
        if ADDS:
            number += tl.load(added + at, mask=inside, other=0).to(tl.float32)
            rounded = number.to(total.dtype.element_ty)
            tl.store(total + at, rounded, mask=inside)
            number = rounded.to(tl.float32)
        root = 1 / tl.sqrt(tl.sum(number * number, axis=1) / S + eps)
        weight = tl.load(scale + column, mask=column < S, other=0).to(tl.float32) + offset
        tl.store(inverse + row, root, mask=row < rows)
        tl.store(out + at, (number * root[:, None] * weight[None, :]).to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _norm_backward(
        x, scale, inverse, of_out, of_total, of_x, parts, offset, rows,
        S: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADDED: tl.constexpr,
    ):  # fmt: skip
        """One program: every so many rows, and what they say of the weight in all."""
        column = tl.arange(0, BLOCK)
        weight = tl.load(scale + column, mask=column < S, other=0).to(tl.float32) + offset
        of_weight = tl.zeros([ROWS, BLOCK], tl.float32)
        for first in range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS):
            row = first + tl.arange(0, ROWS)
            at = row.to(tl.int64)[:, None] * S + column[None, :]
            inside = (row < rows)[:, None] & (column < S)[None, :]
            root = tl.load(inverse + row, mask=row < rows, other=0)[:, None]
            normed = tl.load(x + at, mask=inside, other=0).to(tl.float32) * root
            gradient = tl.load(of_out + at, mask=inside, other=0).to(tl.float32)
            of_weight += gradient * normed
            scaled = gradient * weight[None, :]
            change = root * (scaled - normed * (tl.sum(scaled * normed, axis=1) / S)[:, None])
            if ADDED:
                change += tl.load(of_total + at, mask=inside, other=0).to(tl.float32)
            tl.store(of_x + at, change.to(of_x.dtype.element_ty), mask=inside)
        tl.store(parts + tl.program_id(0) * S + column, tl.sum(of_weight, axis=0), mask=column < S)

    @triton.jit
    def _gate(x, out, a, b, S: tl.constexpr, BLOCK: tl.constexpr):
        """One program: BLOCK numbers of a row."""
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < S
        gate = tl.load(x + row * 2 * S + column, mask=inside, other=0).to(tl.float32)
        value = tl.load(x + row * 2 * S + S + column, mask=inside, other=0).to(tl.float32)
        active = gate * tl.sigmoid(gate * (a + b * gate * gate))
        tl.store(out + row * S + column, (active * value).to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _gate_backward(x, gradient, of_x, a, b, S: tl.constexpr, BLOCK: tl.constexpr):
        row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < S
        gate = tl.load(x + row * 2 * S + column, mask=inside, other=0).to(tl.float32)
        value = tl.load(x + row * 2 * S + S + column, mask=inside, other=0).to(tl.float32)
        of_out = tl.load(gradient + row * S + column, mask=inside, other=0).to(tl.float32)
        share = tl.sigmoid(gate * (a + b * gate * gate))
        slope = share + gate * share * (1 - share) * (a + 3 * b * gate * gate)
        kind = of_x.dtype.element_ty
        tl.store(of_x + row * 2 * S + column, (of_out * value * slope).to(kind), mask=inside)
        tl.store(of_x + row * 2 * S + S + column, (of_out * gate * share).to(kind), mask=inside)

    @triton.jit
    def _angles(positions, frequencies, cosine, sine, scale, D: tl.constexpr, HALF: tl.constexpr):
        """One program: one position."""
        row, column = tl.program_id(0).to(tl.int64), tl.arange(0, HALF)
        inside = column < D // 2
        angle = tl.load(positions + row).to(tl.float32) * tl.load(frequencies + column, mask=inside).to(tl.float32)
        at = row * D + column
        kind = cosine.dtype.element_ty
        tl.store(cosine + at, (tl.cos(angle) * scale).to(kind), mask=inside)
        tl.store(cosine + at + D // 2, (tl.cos(angle) * scale).to(kind), mask=inside)
        tl.store(sine + at, (tl.sin(angle) * scale).to(kind), mask=inside)
        tl.store(sine + at + D // 2, (tl.sin(angle) * scale).to(kind), mask=inside)

    @triton.jit
    def _rotate(
        x, cosine, sine, query, key, value, columns, query_scale, key_scale, eps, offset, x_row, cosine_row, sine_row,
        key_row, key_head, key_token, value_row, value_head, value_token,
        H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
        NORMED: tl.constexpr, PLACED: tl.constexpr,
    ):  # fmt: skip
        """One program: all heads of a token, in their two halves."""
        row, head, column = tl.program_id(0).to(tl.int64), tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
        inside = column < D // 2
        at = x + row * x_row + head * D + column
        first = tl.load(at, mask=inside & (head < H + 2 * K), other=0).to(tl.float32)
        second = tl.load(at + D // 2, mask=inside & (head < H + 2 * K), other=0).to(tl.float32)
        if NORMED:
            root = 1 / tl.sqrt(tl.sum(first * first + second * second, axis=1) / D + eps)[:, None]
            low_q = tl.load(query_scale + column, mask=inside, other=0).to(tl.float32) + offset
            low_k = tl.load(key_scale + column, mask=inside, other=0).to(tl.float32) + offset
            high_q = tl.load(query_scale + D // 2 + column, mask=inside, other=0).to(tl.float32) + offset
            high_k = tl.load(key_scale + D // 2 + column, mask=inside, other=0).to(tl.float32) + offset
            first = tl.where(head < H + K, first * root * tl.where(head < H, low_q, low_k), first)
            second = tl.where(head < H + K, second * root * tl.where(head < H, high_q, high_k), second)
        turns = inside & (head < H + K)
        low_c = tl.load(cosine + row * cosine_row + column + head * 0, mask=turns, other=0).to(tl.float32)
        low_s = tl.load(sine + row * sine_row + column + head * 0, mask=turns, other=0).to(tl.float32)
        high_c = tl.load(cosine + row * cosine_row + D // 2 + column + head * 0, mask=turns, other=0).to(tl.float32)
        high_s = tl.load(sine + row * sine_row + D // 2 + column + head * 0, mask=turns, other=0).to(tl.float32)
        low = tl.where(turns, first * low_c - second * low_s, first).to(query.dtype.element_ty)
        high = tl.where(turns, second * high_c + first * high_s, second).to(query.dtype.element_ty)
        token = tl.load(columns + row).to(tl.int64) if PLACED else row * 0
        to = query + (row * H + head) * D + column
        tl.store(to, low, mask=inside & (head < H))
        tl.store(to + D // 2, high, mask=inside & (head < H))
        to = key + row * key_row + (head - H) * key_head + token * key_token + column
        tl.store(to, low, mask=turns & (head >= H))
        tl.store(to + D // 2, high, mask=turns & (head >= H))
        to = value + row * value_row + (head - H - K) * value_head + token * value_token + column
        tl.store(to, low, mask=inside & (head >= H + K) & (head < H + 2 * K))
        tl.store(to + D // 2, high, mask=inside & (head >= H + K) & (head < H + 2 * K))

    @triton.jit
    def _rotate_back(
        query, key, value, cosine, sine, of_x, cosine_row, sine_row,
        H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
    ):  # fmt: skip
        """One program: gradients of all heads of a token, turned back."""
        row, head, column = tl.program_id(0).to(tl.int64), tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
        inside = column < D // 2
        of_query, of_key = inside & (head < H), inside & (head >= H) & (head < H + K)
        of_value = inside & (head >= H + K) & (head < H + 2 * K)
        at_q, at_k = query + (row * H + head) * D + column, key + (row * K + head - H) * D + column
        at_v = value + (row * K + head - H - K) * D + column
        first = tl.load(at_q, mask=of_query, other=0).to(tl.float32)
        first += tl.load(at_k, mask=of_key, other=0).to(tl.float32)
        first += tl.load(at_v, mask=of_value, other=0).to(tl.float32)
        at_q, at_k, at_v = at_q + D // 2, at_k + D // 2, at_v + D // 2
        second = tl.load(at_q, mask=of_query, other=0).to(tl.float32)
        second += tl.load(at_k, mask=of_key, other=0).to(tl.float32)
        second += tl.load(at_v, mask=of_value, other=0).to(tl.float32)
        turns = inside & (head < H + K)
        low_c = tl.load(cosine + row * cosine_row + column + head * 0, mask=turns, other=0).to(tl.float32)
        low_s = tl.load(sine + row * sine_row + column + head * 0, mask=turns, other=0).to(tl.float32)
        high_c = tl.load(cosine + row * cosine_row + D // 2 + column + head * 0, mask=turns, other=0).to(tl.float32)
        high_s = tl.load(sine + row * sine_row + D // 2 + column + head * 0, mask=turns, other=0).to(tl.float32)
        to = of_x + row * (H + 2 * K) * D + head * D + column
        kind = of_x.dtype.element_ty
        low = tl.where(turns, first * low_c + second * high_s, first)
        high = tl.where(turns, second * high_c - first * low_s, second)
        tl.store(to, low.to(kind), mask=inside & (head < H + 2 * K))
        tl.store(to + D // 2, high.to(kind), mask=inside & (head < H + 2 * K))
