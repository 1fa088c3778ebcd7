"""Drawing a token: a counter-based random number and the inverse of the cumulative distribution.

Shapes: B rows, V tokens of the vocabulary, K blocks of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temper.rollout.engine import Sampling

BLOCK = 256  # tokens of the vocabulary whose weights are summed together, so that only one block a row is searched
FEW = 1024  # tokens that nearly always hold `top_p` of the weights


def _signed(value: int) -> int:
    """The int64 with the low 64 bits of `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def uniform(keys_B: Tensor, positions_B: Tensor) -> Tensor:
    """A number in [0, 1) for each (key, position), float64: the SplitMix64 finaliser on int64 tensors.

    >>> here = torch.tensor([0, 0])
    >>> a, b = uniform(torch.tensor([1, 2]), here), uniform(torch.tensor([2]), here[:1])
    >>> bool(a[1] == b[0]), bool((0 <= a).all() and (a < 1).all())
    (True, True)
    """
    x = keys_B + (positions_B + 1) * _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return _shift(x ^ _shift(x, 31), 11).double() * 2.0**-53


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def draw_tokens(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """(token [B], log-prob [B] in float32). A token of probability 0 is never drawn.

    >>> tokens, logprobs = draw_tokens(torch.tensor([[0.0, 0.0]]), torch.tensor([0.6]), Sampling(max_tokens=1))
    >>> tokens.item(), round(logprobs.item(), 4)
    (1, -0.6931)
    """
    logits = logits_BV.float()
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    probabilities = logits.softmax(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = _invert(_cut_tail(probabilities, sampling), uniform_B)
    return tokens, probabilities.gather(-1, tokens[:, None]).squeeze(-1).log()


def plain(sampling: Sampling) -> bool:
    """Whether nothing is cut off before a draw."""
    return sampling.top_k == 0 and sampling.top_p >= 1 and sampling.min_p <= 0


def _invert(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at which the running sum of the weights passes `uniform_B` of their total: first its block, then it."""
    whole = weights_BV.shape[1] // BLOCK * BLOCK
    if whole == 0:
        return _first_above(weights_BV, uniform_B * weights_BV.sum(-1, dtype=torch.float64))
    sums = weights_BV[:, :whole].unflatten(-1, (-1, BLOCK)).sum(-1)
    if whole < weights_BV.shape[1]:
        sums = torch.cat([sums, weights_BV[:, whole:].sum(-1, keepdim=True)], dim=-1)
    wanted = uniform_B * sums.sum(-1, dtype=torch.float64)
    block = _first_above(sums, wanted)
    before = (sums.double().cumsum(-1) - sums).gather(-1, block[:, None]).squeeze(-1)
    index = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)
    inside = weights_BV.gather(-1, index.clamp_max(weights_BV.shape[1] - 1))
    inside = inside.masked_fill(index >= weights_BV.shape[1], 0)
    return block * BLOCK + _first_above(inside, wanted - before)


def _first_above(weights_BK: Tensor, wanted_B: Tensor) -> Tensor:
    """The first index whose running sum is above `wanted_B`, or, should rounding leave none, the last with a weight."""
    mass = weights_BK.cumsum(-1, dtype=torch.float64)
    last = (mass < mass[:, -1:]).sum(-1)
    return torch.minimum((mass <= wanted_B[:, None]).sum(-1), last)


def _cut_tail(weights_BV: Tensor, sampling: Sampling) -> Tensor:
    """Zero outside the top k, below `min_p` of the largest, and outside the smallest set that holds `top_p` of what is
    left (its last token included)."""
    if sampling.min_p > 0:
        floor = sampling.min_p * weights_BV.amax(-1, keepdim=True)
        weights_BV = weights_BV.masked_fill(weights_BV < floor, 0)
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return weights_BV
    vocabulary = weights_BV.shape[1]
    ranked, order = _largest(weights_BV, sampling)
    if sampling.top_k:
        ranked[:, sampling.top_k :] = 0
        weights_BV = ranked
    if sampling.top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked = ranked.masked_fill(before >= sampling.top_p * weights_BV.sum(-1, keepdim=True), 0)
    return torch.zeros(len(order), vocabulary, device=order.device).scatter_(-1, order, ranked)


def _largest(weights_BV: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The largest weights and their tokens, in order: as many as the cut can keep, found without a full sort if few."""
    few = max(sampling.top_k, FEW)
    if weights_BV.device.type == "cpu" and few < weights_BV.shape[1]:
        ranked, order = weights_BV.topk(few)
        if sampling.top_k or bool((ranked.sum(-1) > sampling.top_p * weights_BV.sum(-1)).all()):
            return ranked, order
    return weights_BV.sort(dim=-1, descending=True, stable=True)
