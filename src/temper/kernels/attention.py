"""Attention that knows which tokens may see which, registered with transformers' attention interface.

Who sees whom is a plan made beside the batch and passed to the forward; the model is untouched. A packed forward has an
`AttentionPlan` (`kernels/packed.py`), a decode step a `Cache` (`rollout/cache.py`).

Shapes: R attention rows, Q and K the longest query and key run of a block, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

NAME = "temper"
NOTHING = -1e30  # finite, so that two such parts can be merged too
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
    scores, by which parts are merged; `NOTHING` where the query saw no key."""

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
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, float("-inf"))
    peak = scores.amax(-1, keepdim=True)
    weights = (scores - peak).exp()
    total = weights.sum(-1, keepdim=True)
    return Partial((weights / total).to(value.dtype) @ value, (peak + total.log()).squeeze(-1))


def merge_parts(parts: Sequence[Partial]) -> Partial:
    """Attention over the keys of all `parts` together: each weighted by its share of the sum of scores."""
    if len(parts) == 1:
        return parts[0]
    logsums = torch.stack([part.logsum for part in parts])
    shares = logsums.softmax(0).to(parts[0].mixed.dtype)
    mixed = shares[0][..., None] * parts[0].mixed
    for share, part in zip(shares[1:], parts[1:], strict=True):
        mixed = mixed.addcmul_(share[..., None], part.mixed)
    return Partial(mixed, logsums.logsumexp(0))


def register() -> None:
    """Make `attn_implementation="temper"` known to transformers; doing it twice changes nothing."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS.valid_keys():  # or in the form that a compiled model needs (`layers.py`)
        ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)  # without a mask function transformers makes no mask


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
