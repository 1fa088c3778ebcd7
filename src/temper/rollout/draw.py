"""Drawing a token: a counter-based random number and the inverse of the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from temper.rollout.engine import Sampling


def _signed(value: int) -> int:
    """The int64 with the low 64 bits of `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def uniform(keys_B: Tensor, position: int) -> Tensor:
    """A number in [0, 1) for each (key, position), float64: the SplitMix64 finaliser on int64 tensors.

    >>> a, b = uniform(torch.tensor([1, 2]), 0), uniform(torch.tensor([2]), 0)
    >>> bool(a[1] == b[0]), bool((0 <= a).all() and (a < 1).all())
    (True, True)
    """
    x = keys_B + _signed((position + 1) * _GOLDEN)
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
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.zeros_like(tokens, dtype=torch.float32)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    weights = _cut_tail(logprobs.exp(), sampling)
    mass = weights.cumsum(-1)
    total = mass[:, -1:]
    wanted = (uniform_B[:, None] * total.double()).to(mass.dtype)
    last = (mass < total).sum(-1)  # the first index at which all mass is gathered: its weight is not 0
    tokens = torch.minimum((mass <= wanted).sum(-1), last)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def _cut_tail(weights_BV: Tensor, sampling: Sampling) -> Tensor:
    """Zero outside the top k, and outside the smallest set that holds `top_p` of the mass (its last token included)."""
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return weights_BV
    ranked, order = weights_BV.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k:
        ranked[:, sampling.top_k :] = 0
    if sampling.top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked = ranked.masked_fill(before >= sampling.top_p * ranked.sum(-1, keepdim=True), 0)
    return torch.zeros_like(weights_BV).scatter_(-1, order, ranked)
