"""Attention over sequences packed in one row of tokens, no padding; a prefix that several runs share stands there once.

A run sees its prefix and, causally, itself. On a CPU rows that are not long are attended to in one call (`rows`). Else
there are two parts, each a block of flash attention over runs of similar length, merged by their softmax sums. The
backward pass hands the merged result to each part's own backward, which is exact.

Shapes: N packed tokens, R runs of a block, Q and K its longest query and key run, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from temper.kernels import rows, varlen
from temper.kernels.attention import Layers, Options
from temper.kernels.masked import MaskedBlocks
from temper.kernels.runs import ROWS_A_BLOCK, Row, Runs, as_slice, chunks, places

FAMILIES_A_BLOCK = 8
SPREAD = 1.25  # the longest run of a block to its shortest


@dataclass(frozen=True)
class Block:
    """Rows of similar length."""

    queries: Runs
    keys: Runs
    causal: bool  # queries and keys are the same run
    hidden: Tensor | None  # [R, 1, 1, K], −inf at padded keys that a query could reach

    @staticmethod
    def of(queries: Sequence[Sequence[int]], keys: Sequence[Sequence[int]] | None, padding: int) -> Block:
        """Runs that see themselves causally, or, with `keys`, runs that see others whole."""
        asking = Runs.of(queries, padding)
        if keys is None:
            return Block(asking, asking, True, None)
        seen = Runs.of(keys, padding)
        hidden = None
        if seen.padded:
            hidden = torch.zeros(seen.index_RQ.shape).masked_fill_(seen.index_RQ == padding, float("-inf"))
        return Block(asking, seen, False, None if hidden is None else hidden[:, None, None])


@dataclass(frozen=True)
class Part:
    """All blocks of one kind. `queries` and `keys` are the packed tokens that occur in them, `query_places` and
    `key_places` where each stands in the blocks' rows laid end to end."""

    blocks: tuple[Block, ...]
    queries: Tensor | slice
    query_places: Tensor | slice
    keys: Tensor | slice
    key_places: Tensor | slice

    @staticmethod
    def of(blocks: Sequence[Block], padding: int) -> Part:
        queries, query_places = places([block.queries.index_RQ for block in blocks], padding)
        keys, key_places = places([block.keys.index_RQ for block in blocks], padding)
        return Part(tuple(blocks), *map(as_slice, (queries, query_places, keys, key_places)))


class AttentionPlan:
    """Who sees whom in one packed row of tokens; passed to a model's forward as `attention_plan`."""

    def __init__(self, rows: Sequence[Row], positions_N: Tensor, keep: bool = False):
        """Each token belongs to one row. With `keep`, `kept` gathers every layer's keys and values [N, H, D]."""
        self.rows = rows
        self.positions_N = positions_N
        self.longest = int(positions_N.max()) + 1
        self.kept: Layers | None = [] if keep else None

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What runs see of themselves, then what they see of their prefixes."""
        padding = len(self.positions_N)
        ordered = sorted((row.own for row in self.rows), key=len)
        own = Part.of([Block.of(chunk, None, padding) for chunk in _alike(ordered)], padding)
        families: dict[range, list[int]] = {}
        for row in self.rows:
            if len(row.prefix):
                families.setdefault(row.prefix, []).extend(row.own)
        if not families:
            return (own,)
        by_length = sorted(families.items(), key=lambda family: (len(family[0]), len(family[1])))
        shared = [
            Block.of([asking for _, asking in chunk], [prefix for prefix, _ in chunk], padding)
            for chunk in chunks(by_length, FAMILIES_A_BLOCK)
        ]
        return own, Part.of(shared, padding)

    @cached_property
    def masked(self) -> MaskedBlocks:
        return MaskedBlocks(self.rows, self.positions_N)

    @cached_property
    def table_R4(self) -> Tensor:
        return rows.table_of(self.rows)

    @cached_property
    def most_keys(self) -> int:
        """Of a row."""
        return max(len(row.prefix) + len(row.own) for row in self.rows)

    @cached_property
    def spans(self) -> tuple[varlen.Spans, ...]:
        return varlen.spans_of(self.rows, self.positions_N.device)

    @staticmethod
    def _fits_varlen(query_NHD: Tensor, key_NHD: Tensor) -> bool:
        if query_NHD.device.type != "cuda" or query_NHD.dtype.itemsize != 2:
            return False
        _, heads, size = query_NHD.shape
        return varlen.works_on(query_NHD.device, query_NHD.dtype, heads, key_NHD.shape[1], size)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        query_NHD, key_NHD, value_NHD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        if self.kept is not None:
            self.kept.append((key_NHD, value_NHD))
        windowed = options.window is not None and options.window < self.longest
        flash = query.shape[-1] == value.shape[-1] and not windowed and options.softcap is None
        if flash and self._fits_varlen(query_NHD, key_NHD):
            return varlen.attend(query_NHD, key_NHD, value_NHD, self.spans, options.scale)[None]
        if flash and rows.works_on(query_NHD, self.most_keys):
            return rows.attend_rows(query_NHD, key_NHD, value_NHD, self.table_R4, options.scale)[None]
        if flash and query.device.type == "cpu":
            return _MergedFlash.apply(query_NHD, key_NHD, value_NHD, self.parts, options.scale)[None]  # type: ignore
        return self.masked.attend(query_NHD, key_NHD, value_NHD, options)[None]


class _MergedFlash(torch.autograd.Function):
    """Flash attention of each part, merged. Needs torch's CPU kernel, which hands out the softmax sums."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Part], scale: float) -> Tensor:
        own, *shared = parts
        mixed, logsum = _flash(query, key, value, own, scale)
        for part in shared:
            other_mixed, other_logsum = _flash(query, key, value, part, scale)
            before = logsum[part.queries]
            total = torch.logaddexp(before, other_logsum)
            ours, theirs = ((part_sum - total).exp()[..., None].to(mixed.dtype) for part_sum in (before, other_logsum))
            mixed[part.queries] = mixed[part.queries] * ours + other_mixed * theirs
            logsum[part.queries] = total
        ctx.save_for_backward(query, key, value, mixed, logsum)
        ctx.parts, ctx.scale = parts, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, mixed, logsum = ctx.saved_tensors
        padded = gradient
        if any(block.queries.padded for part in ctx.parts for block in part.blocks):  # a padded query has none
            padded = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])
        own, *shared = ctx.parts
        gradients = _flash_backward(padded, query, key, value, mixed, logsum, own, ctx.scale)
        for part in shared:
            more = _flash_backward(padded, query, key, value, mixed, logsum, part, ctx.scale)
            gradients[0][part.queries] += more[0]
            gradients[1][part.keys] += more[1]
            gradients[2][part.keys] += more[2]
        return *gradients, None, None


def _flash(query: Tensor, key: Tensor, value: Tensor, part: Part, scale: float) -> tuple[Tensor, Tensor]:
    """(mixed, log of the softmax sums) of the part's queries, [n, H, D] and [n, H]."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mixed, logsums = [], []
    for block in part.blocks:
        asked, keys, values = block.queries.rows(query), block.keys.rows(key), block.keys.rows(value)
        out, logsum = attention(asked, keys, values, 0.0, block.causal, attn_mask=_mask(block, asked), scale=scale)
        mixed.append(out.transpose(1, 2).flatten(0, 1))
        logsums.append(logsum.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)[part.query_places], torch.cat(logsums)[part.query_places]


def _flash_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, logsum: Tensor, part: Part, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the part's queries, keys and values. `gradient` has a row of zeros more where
    queries are padded."""
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    gradients: list[list[Tensor]] = [[], [], []]
    for block in part.blocks:
        asked = block.queries.rows(query)
        of_block = backward(
            block.queries.rows(gradient),
            asked,
            block.keys.rows(key),
            block.keys.rows(value),
            block.queries.rows(mixed),
            block.queries.rows(logsum).contiguous(),
            0.0,
            block.causal,
            attn_mask=_mask(block, asked),
            scale=scale,
        )
        for gathered, tensor in zip(gradients, of_block, strict=True):
            gathered.append(tensor.transpose(1, 2).flatten(0, 1))
    places = (part.query_places, part.key_places, part.key_places)
    return tuple(torch.cat(tensors)[place] for tensors, place in zip(gradients, places, strict=True))  # type: ignore


def _mask(block: Block, query: Tensor) -> Tensor | None:
    return None if block.hidden is None else block.hidden.to(query.dtype).expand(-1, -1, query.shape[2], -1)


def _alike(runs: Sequence[range]) -> Iterator[Sequence[range]]:
    """Runs in order of length, in chunks whose longest is not much longer than their shortest."""
    start = 0
    for i, run in enumerate(runs):
        if i - start == ROWS_A_BLOCK or len(run) > SPREAD * len(runs[start]):
            yield runs[start:i]
            start = i
    yield runs[start:]
