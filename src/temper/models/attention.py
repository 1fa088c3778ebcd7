"""Attention that knows which tokens may see which, registered with transformers' attention interface.

A packed forward holds any number of sequences in one row of tokens, no padding; a shared prompt stands there once and
every completion's queries reach back to it. Who sees whom is an `AttentionPlan`, made beside the batch; the model is
untouched. A decode step uses a `Cache` the same way (`rollout/cache.py`).

Shapes: N packed tokens, R attention rows, Q and K the longest query and key run of a block, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

NAME = "temper"
Layers = list[tuple[Tensor, Tensor]]  # keys and values of each layer


class Attends(Protocol):
    """What a forward passes as `attention_plan`: asked once a layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor: ...


@dataclass(frozen=True)
class Options:
    """What a layer asks for: `scale` of the scores, `window` (a query sees that many last tokens), `softcap`."""

    scale: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True)
class Row:
    """One run of queries and the runs of keys it may see, as ranges of packed tokens in order of position."""

    queries: range
    keys: tuple[range, ...]


@dataclass(frozen=True)
class Block:
    """Rows of similar length, padded to the longest: indices of packed tokens, and what is not padding."""

    queries_RQ: Tensor
    keys_RK: Tensor
    query_positions_RQ: Tensor  # -1 at padding
    key_positions_RK: Tensor  # very large at padding, so that no query reaches it
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor:
        """[R, 1, Q, K], true where a query may look; computed once for each window length."""
        if window not in self.masks:
            distance = self.query_positions_RQ[:, :, None] - self.key_positions_RK[:, None, :]
            seen = distance >= 0
            if window is not None:
                seen &= distance < window
            seen[:, :, 0] |= self.query_positions_RQ < 0  # a padded query looks somewhere, so that no row is empty
            self.masks[window] = seen[:, None]
        return self.masks[window]


@dataclass(frozen=True)
class AttentionPlan:
    """Who sees whom in one packed row of tokens. `order_N[i]` finds token i in the blocks' outputs laid end to end."""

    blocks: tuple[Block, ...]
    order_N: Tensor
    kept: Layers | None = None  # a prefill keeps each layer's keys and values here, [N, H, D]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        query_NHD, key_NHD, value_NHD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        if self.kept is not None:
            self.kept.append((key_NHD, value_NHD))
        outputs = [
            scores_and_mix(
                query_NHD[block.queries_RQ].transpose(1, 2),
                key_NHD[block.keys_RK].transpose(1, 2),
                value_NHD[block.keys_RK].transpose(1, 2),
                block.mask(options.window),
                options,
            )
            for block in self.blocks
        ]  # each [R, H, Q, D]
        flat = [output.transpose(1, 2).flatten(0, 1) for output in outputs]
        return (torch.cat(flat) if len(flat) > 1 else flat[0])[self.order_N][None]


def scores_and_mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Options) -> Tensor:
    """Attention of [R, H, Q, D] queries over [R, H_kv, K, D] keys; grouped queries share their keys without a copy."""
    rows, heads, length, size = query.shape
    shared = heads // key.shape[1]
    if shared > 1:
        query = query.reshape(rows, key.shape[1], shared * length, size)
        mask = mask.repeat(1, 1, shared, 1) if mask is not None else None
    if options.softcap is None:
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=options.scale)
    else:
        mixed = _by_hand(query, key, value, mask, options).mixed
    return mixed.reshape(rows, heads, length, value.shape[-1])


class Partial(NamedTuple):
    """Attention over some of a query's keys: `mixed` [..., D], and `logsum` [...], the log of the sum of exponentiated
    scores, by which parts are merged; −inf where the query saw no key."""

    mixed: Tensor
    logsum: Tensor


def attend_part(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Options) -> Partial:
    """[R, H, Q, D] queries over [R, H, K, D] keys where `mask` [R, 1, 1 or Q, K] is 0, and not where it is −inf."""
    flash = options.softcap is None and query.shape[2] > 1 and query.shape[-1] == value.shape[-1]
    if not (flash and query.device.type == "cpu"):  # for a single query a row, two matrix products are faster
        return _by_hand(query, key, value, mask, options)
    if mask is not None:
        mask = mask.expand(-1, -1, query.shape[2], -1)
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return Partial(*attention(query, key, value, attn_mask=mask, scale=options.scale))


def _by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Options) -> Partial:
    scores = (query * options.scale) @ key.transpose(-1, -2)
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    scores = scores.float()
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, float("-inf"))
    peak = scores.amax(-1, keepdim=True)
    weights = (scores - peak).exp()
    total = weights.sum(-1, keepdim=True)
    return Partial((weights / total).to(value.dtype) @ value, (peak + total.log()).squeeze(-1))


def merge_parts(parts: Sequence[Partial]) -> Tensor:
    """Attention over the keys of all `parts` together: each weighted by its share of the sum of scores."""
    if len(parts) == 1:
        return parts[0].mixed
    logsums = torch.stack([part.logsum for part in parts])
    shares = logsums.softmax(0).to(parts[0].mixed.dtype)
    return sum(share[..., None] * part.mixed for share, part in zip(shares, parts, strict=True))  # type: ignore


def plan_attention(rows: Sequence[Row], positions: Tensor, keep: bool = False, block_rows: int = 64) -> AttentionPlan:
    """The plan of packed `rows` over tokens at `positions` [N]; every token is a query of exactly one row."""
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].queries), sum(map(len, rows[i].keys)), i))
    device, positions = positions.device, positions.cpu()
    order = torch.empty(len(positions), dtype=torch.long)
    blocks, offset = [], 0
    for start in range(0, len(rows), block_rows):
        chosen = [rows[i] for i in by_length[start : start + block_rows]]
        longest_query = max(len(row.queries) for row in chosen)
        longest_key = max(sum(map(len, row.keys)) for row in chosen)
        queries = torch.zeros(len(chosen), longest_query, dtype=torch.long)
        keys = torch.zeros(len(chosen), longest_key, dtype=torch.long)
        query_positions = torch.full_like(queries, -1)
        key_positions = torch.full_like(keys, 1 << 40)
        for i, row in enumerate(chosen):
            asked = torch.arange(row.queries.start, row.queries.stop)
            seen = torch.cat([torch.arange(run.start, run.stop) for run in row.keys])
            queries[i, : len(asked)], keys[i, : len(seen)] = asked, seen
            query_positions[i, : len(asked)], key_positions[i, : len(seen)] = positions[asked], positions[seen]
            order[asked] = torch.arange(len(asked)) + offset + i * longest_query
        offset += queries.numel()
        blocks.append(Block(queries.to(device), keys.to(device), query_positions.to(device), key_positions.to(device)))
    return AttentionPlan(tuple(blocks), order.to(device), [] if keep else None)


def register() -> None:
    """Make `attn_implementation="temper"` known to transformers; doing it twice changes nothing."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    attention_plan: Attends | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls in every layer: query [B, H, T, D] in, mixed values [B, T, H, D] out."""
    if attention_plan is None:
        raise ValueError("a model loaded with temper's attention is called through temper's forward, with a plan")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: Any = module.layer_idx
    return attention_plan.attend(layer, query, key, value, Options(scale, sliding_window, softcap)), None
