"""Attention over sequences packed in one row of tokens, no padding; a prefix that several runs share stands there once.

A run sees its prefix and, causally, itself: two parts, each a block of flash attention over runs of similar length,
merged by their softmax sums. The backward pass hands the merged result to each part's own backward, which is exact.

Shapes: N packed tokens, R runs of a block, Q and K its longest query and key run, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from temper.models.attention import Layers, Options, scores_and_mix

ROWS_A_BLOCK = 64


@dataclass(frozen=True)
class Row:
    """A run of packed tokens, and the run before it in its sequence that it shares with others, if any."""

    own: range
    prefix: range = range(0)


@dataclass(frozen=True)
class Block:
    """Rows of similar length, padded to the longest. Index N stands for padding."""

    queries_RQ: Tensor
    keys_RK: Tensor
    causal: bool  # queries and keys are the same run
    hidden: Tensor | None  # [R, 1, 1, K], −inf at padded keys, where there are any

    @staticmethod
    def of(queries: Sequence[Iterable[int]], keys: Sequence[Iterable[int]], causal: bool, padding: int) -> Block:
        queries_RQ = _pad(queries, padding)
        keys_RK = queries_RQ if causal else _pad(keys, padding)
        hidden = None
        if not causal and bool((keys_RK == padding).any()):
            hidden = torch.zeros(keys_RK.shape).masked_fill_(keys_RK == padding, float("-inf"))[:, None, None]
        return Block(queries_RQ, keys_RK, causal, hidden)


@dataclass(frozen=True)
class Part:
    """All blocks of one kind. `queries` and `keys` are the packed tokens that occur in them, `query_places` and
    `key_places` where each stands in the blocks' rows laid end to end."""

    blocks: tuple[Block, ...]
    queries: Tensor
    query_places: Tensor
    keys: Tensor
    key_places: Tensor

    @staticmethod
    def of(blocks: Sequence[Block], padding: int) -> Part:
        queries, query_places = _places([block.queries_RQ for block in blocks], padding)
        keys, key_places = _places([block.keys_RK for block in blocks], padding)
        return Part(tuple(blocks), queries, query_places, keys, key_places)


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
        ordered = sorted(self.rows, key=lambda row: len(row.own))
        own = [
            Block.of([row.own for row in chunk], [], True, padding) for chunk in _chunks(ordered, ROWS_A_BLOCK)
        ]
        families: dict[range, list[int]] = {}
        for row in self.rows:
            if len(row.prefix):
                families.setdefault(row.prefix, []).extend(row.own)
        if not families:
            return (Part.of(own, padding),)
        by_length = sorted(families.items(), key=lambda family: (len(family[0]), len(family[1])))
        shared = [
            Block.of([asking for _, asking in chunk], [prefix for prefix, _ in chunk], False, padding)
            for chunk in _chunks(by_length, ROWS_A_BLOCK // 8)
        ]
        return Part.of(own, padding), Part.of(shared, padding)

    @cached_property
    def masked(self) -> MaskedBlocks:
        return MaskedBlocks(self.rows, self.positions_N)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        query_NHD, key_NHD, value_NHD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        if self.kept is not None:
            self.kept.append((key_NHD, value_NHD))
        windowed = options.window is not None and options.window < self.longest
        flash = query.device.type == "cpu" and query.shape[-1] == value.shape[-1]
        if flash and not windowed and options.softcap is None:
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
        keys, values = _rows(key, block.keys_RK), _rows(value, block.keys_RK)
        asked = _rows(query, block.queries_RQ)
        out, logsum = attention(asked, keys, values, 0.0, block.causal, attn_mask=_mask(block, asked), scale=scale)
        mixed.append(out.transpose(1, 2).flatten(0, 1))
        logsums.append(logsum.transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)[part.query_places], torch.cat(logsums)[part.query_places]


def _flash_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, logsum: Tensor, part: Part, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the part's queries, keys and values. `gradient` has a row of zeros more, for padded queries."""
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    gradients: list[list[Tensor]] = [[], [], []]
    for block in part.blocks:
        asked = _rows(query, block.queries_RQ)
        of_block = backward(
            gradient[block.queries_RQ].transpose(1, 2),
            asked,
            _rows(key, block.keys_RK),
            _rows(value, block.keys_RK),
            _rows(mixed, block.queries_RQ),
            _rows(logsum, block.queries_RQ).contiguous(),
            0.0,
            block.causal,
            attn_mask=_mask(block, asked),
            scale=scale,
        )
        for gathered, tensor in zip(gradients, of_block, strict=True):
            gathered.append(tensor.transpose(1, 2).flatten(0, 1))
    places = (part.query_places, part.key_places, part.key_places)
    return tuple(torch.cat(tensors)[place] for tensors, place in zip(gradients, places, strict=True))  # type: ignore


def _rows(packed: Tensor, index_RQ: Tensor) -> Tensor:
    """[R, H, Q(, D)] of packed [N, H(, D)]; at padding stands some token."""
    rows, length = index_RQ.shape
    index = index_RQ.flatten().clamp_max(len(packed) - 1)
    return packed.index_select(0, index).unflatten(0, (rows, length)).transpose(1, 2)


def _mask(block: Block, query: Tensor) -> Tensor | None:
    return None if block.hidden is None else block.hidden.to(query.dtype).expand(-1, -1, query.shape[2], -1)


class MaskedBlocks:
    """The same attention by masks over gathered keys: for windows, capped scores and devices without the kernel."""

    def __init__(self, rows: Sequence[Row], positions_N: Tensor):
        device, positions = positions_N.device, positions_N.cpu()
        padding = len(positions)
        self.masks: dict[tuple[int, int | None], Tensor] = {}
        self.blocks = []
        ordered = sorted(rows, key=lambda row: (len(row.own), len(row.prefix)))
        for chunk in _chunks(ordered, ROWS_A_BLOCK):
            queries = _pad([row.own for row in chunk], padding)
            keys = _pad([[*row.prefix, *row.own] for row in chunk], padding)
            self.blocks.append((queries.to(device), keys.to(device)))
        _, self.places = _places([queries.cpu() for queries, _ in self.blocks], padding)
        self.places = self.places.to(device)
        self.query_positions = torch.cat([positions, torch.tensor([-1])]).to(device)  # a padded query sees no key
        self.key_positions = torch.cat([positions, torch.tensor([1 << 40])]).to(device)  # no query sees a padded key

    def attend(self, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        mixed = []
        query, key, value = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (query, key, value))
        for number, (queries, keys) in enumerate(self.blocks):
            asked, seen, values = (_rows(x, i) for x, i in ((query, queries), (key, keys), (value, keys)))
            out = scores_and_mix(asked, seen, values, self._mask(number, options.window), options)
            mixed.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed).index_select(0, self.places)

    def _mask(self, number: int, window: int | None) -> Tensor:
        """[R, 1, Q, K], true where a query may look; computed once for each window length."""
        if (number, window) not in self.masks:
            queries, keys = self.blocks[number]
            asking = self.query_positions[queries]
            distance = asking[:, :, None] - self.key_positions[keys][:, None, :]
            seen = distance >= 0
            if window is not None:
                seen &= distance < window
            seen[:, :, 0] |= asking < 0  # a padded query looks somewhere, so that no row is empty
            self.masks[number, window] = seen[:, None]
        return self.masks[number, window]


def _pad(runs: Sequence[Iterable[int]], padding: int) -> Tensor:
    tensors = [torch.tensor(run if isinstance(run, list) else list(run)) for run in runs]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)


def _places(indices: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """The tokens that the index tensors name, in ascending order, and where each stands in them laid end to end."""
    flat = torch.cat([index.flatten() for index in indices])
    real = (flat < padding).nonzero().squeeze(-1)
    tokens, order = flat[real].sort()
    return tokens, real[order]


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
