"""Packed attention on CUDA: one variable-length flash call for what runs see of themselves, one for what they see of
their prefixes, merged by their softmax sums. Nothing is padded and no mask is made.

Shapes: N packed tokens, n of them that have a prefix, K prefix tokens, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from temper.kernels.attention import Options
from temper.kernels.masked import MaskedBlocks
from temper.kernels.runs import Index, Row, as_slice


@dataclass(frozen=True)
class Spans:
    """Queries and keys of some sequences, each end to end: `queries` and `keys` say which packed tokens they are."""

    queries: Index
    keys: Index
    query_ends: Tensor  # [sequences + 1], int32, from 0
    key_ends: Tensor
    longest_query: int
    longest_key: int
    causal: bool

    @staticmethod
    def of(queries: Sequence[Sequence[int]], keys: Sequence[Sequence[int]] | None, device: torch.device) -> Spans:
        """Runs that see themselves causally, or, with `keys`, runs that see others whole."""
        asked, asked_ends, longest_query = _laid(queries, device)
        if keys is None:
            return Spans(asked, asked, asked_ends, asked_ends, longest_query, longest_query, True)
        seen, seen_ends, longest_key = _laid(keys, device)
        return Spans(asked, seen, asked_ends, seen_ends, longest_query, longest_key, False)


def _laid(runs: Sequence[Sequence[int]], device: torch.device) -> tuple[Index, Tensor, int]:
    lengths = [len(run) for run in runs]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    index = as_slice(torch.tensor([token for run in runs for token in run]))
    return index if isinstance(index, slice) else index.to(device), ends, max(lengths)


def spans_of(rows: Sequence[Row], device: torch.device) -> tuple[Spans, ...]:
    """What runs see of themselves, then, where there are prefixes, what they see of those."""
    ordered = sorted(rows, key=lambda row: row.own.start)
    own = Spans.of([row.own for row in ordered], None, device)
    families: dict[range, list[int]] = {}
    for row in ordered:
        if len(row.prefix):
            families.setdefault(row.prefix, []).extend(row.own)
    if not families:
        return (own,)
    return own, Spans.of(list(families.values()), list(families), device)


def flash_forward(query: Tensor, key: Tensor, value: Tensor, spans: Spans, scale: float) -> tuple[Tensor, Tensor]:
    """(mixed [n, H, D], softmax sums [n, H], float32) of one flash call."""
    mixed, logsum, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, spans.query_ends, spans.key_ends, spans.longest_query, spans.longest_key, 0.0, spans.causal,
        False, scale=scale,
    )  # fmt: skip
    return mixed, logsum.transpose(0, 1)


def flash_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, logsum: Tensor, spans: Spans,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and values, for the attention that `mixed` and `logsum` are the whole of."""
    state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # of dropout, of which there is none
    return torch.ops.aten._flash_attention_backward(
        gradient, query, key, value, mixed, logsum.transpose(0, 1).contiguous(), spans.query_ends, spans.key_ends,
        spans.longest_query, spans.longest_key, 0.0, spans.causal, state, torch.empty(0, device=query.device),
        scale=scale,
    )  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """Attention of sequences laid end to end, and its backward pass."""

    forward: Callable[..., tuple[Tensor, Tensor]] = flash_forward
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = flash_backward


FLASH = Kernels()


def attend(
    query: Tensor, key: Tensor, value: Tensor, spans: Sequence[Spans], scale: float, kernels: Kernels = FLASH
) -> Tensor:
    """[N, H, D] of queries [N, H, D] over keys and values [N, H_kv, D]."""
    return _Merged.apply(query, key, value, spans, scale, kernels)  # type: ignore[return-value]


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, spans: Sequence[Spans], scale: float, kernels: Kernels
    ) -> Tensor:
        wide = torch.promote_types(query.dtype, torch.float32)
        mixed, logsum = query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=wide)
        own, *shared = spans
        inputs = (query[own.queries], key[own.keys], value[own.keys])
        mixed[own.queries], logsum[own.queries] = kernels.forward(*inputs, own, scale)
        for part in shared:
            inputs = (query[part.queries], key[part.keys], value[part.keys])
            other_mixed, other_logsum = kernels.forward(*inputs, part, scale)
            before = logsum[part.queries]
            total = torch.logaddexp(before, other_logsum)
            ours, theirs = ((sums - total).exp()[..., None].to(mixed.dtype) for sums in (before, other_logsum))
            mixed[part.queries] = mixed[part.queries] * ours + other_mixed * theirs
            logsum[part.queries] = total
        ctx.save_for_backward(query, key, value, mixed, logsum)
        ctx.spans, ctx.scale, ctx.kernels = spans, scale, kernels
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, mixed, logsum = ctx.saved_tensors
        gradients = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for part in ctx.spans:
            found = ctx.kernels.backward(
                gradient[part.queries], query[part.queries], key[part.keys], value[part.keys],
                mixed[part.queries], logsum[part.queries], part, ctx.scale,
            )  # fmt: skip
            for whole, index, of_part in zip(gradients, (part.queries, part.keys, part.keys), found, strict=True):
                whole[index] += of_part  # within a part every token occurs once
        return *gradients, None, None, None


# -- can it be trusted? -----------------------------------------------------------------------------------------------

TOLERANCE = 0.03  # of the largest value, in bfloat16


@cache
def works_on(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, size: int) -> bool:
    """Whether the flash calls say on this device what masked attention says, values and gradients; tried once a shape.

    They are torch's own, but not its public interface, and releases differ in what they take and give.
    """
    prefix, runs = range(7), (range(7, 16), range(16, 19), range(19, 24))
    rows = [Row(prefix), Row(runs[0], prefix), Row(runs[1], prefix), Row(runs[2])]
    positions = torch.tensor([*range(7), *range(7, 16), *range(7, 10), *range(5)], device=device)
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, count, size) for count in (heads, key_heads, key_heads, heads)]
    *inputs, weights = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    scale = size**-0.5
    found = []
    try:
        for way in (
            lambda q, k, v: attend(q, k, v, spans_of(rows, device), scale),
            lambda q, k, v: MaskedBlocks(rows, positions).attend(q, k, v, Options(scale, None, None)),
        ):
            leaves = [tensor.clone().requires_grad_() for tensor in inputs]
            mixed = way(*leaves)
            found.append([mixed, *torch.autograd.grad((mixed * weights).sum(), leaves)])
    except (RuntimeError, TypeError, NotImplementedError):  # another signature, an unsupported head size, no kernel
        return False
    return all(bool((a - b).abs().max() <= TOLERANCE * b.abs().max()) for a, b in zip(*found, strict=True))
