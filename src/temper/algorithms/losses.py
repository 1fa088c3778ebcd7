"""Losses per target token. None of them divides: they return one value a token, and the learner, which alone knows the
whole optimiser step, weighs and divides. Shapes: M target tokens of one micro-batch. A new surrogate is a function here
and a line in `SURROGATES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from temper.algorithms.ratios import powers


def negative_log_likelihood(logprobs_M: Tensor) -> Tensor:
    """Supervised fine-tuning: −log π."""
    return -logprobs_M


@dataclass(frozen=True)
class Bounds:
    """How far a surrogate follows the ratio ρ: it is clipped to [1 − low, 1 + high], for negative advantages to at most
    `negative`, by `cispo` to at most `cap`, and fades in `sapo` the faster the higher `gate`, or `negative_gate`."""

    low: float = 0.2
    high: float = 0.2
    negative: float = math.inf
    cap: float = math.inf
    gate: float = 1.0
    negative_gate: float = 1.05


def clip(logprobs_M: Tensor, log_ratio_M: Tensor, advantages_M: Tensor, bounds: Bounds) -> Tensor:
    """−min[ρA, clip(ρ, 1−low, 1+high) A] (PPO 1707.06347, equation 7); ρ ≤ `negative` where A < 0 (1912.09729).

    A gain past the bound earns no gradient; a loss past it still does, up to `negative`:

    >>> two, one = torch.tensor([2.0]).log(), torch.tensor([1.0])
    >>> clip(two, two, one, Bounds()), clip(two, two, -one, Bounds()), clip(two, two, -one, Bounds(negative=1.5))
    (tensor([-1.2000]), tensor([2.]), tensor([1.5000]))
    """
    ratio = powers(log_ratio_M)
    clipped = ratio.clamp(1 - bounds.low, 1 + bounds.high) * advantages_M
    bounded = torch.where(advantages_M < 0, ratio.clamp(max=bounds.negative), ratio)
    return -torch.minimum(bounded * advantages_M, clipped)


def cispo(logprobs_M: Tensor, log_ratio_M: Tensor, advantages_M: Tensor, bounds: Bounds) -> Tensor:
    """−sg(min(ρ, cap)) A log π: every token keeps its gradient, its weight is bounded (MiniMax-M1 2506.13585, equation
    4, without a lower bound as there).

    >>> cispo(torch.tensor([-0.5]), torch.tensor([8.0]).log(), torch.tensor([1.0]), Bounds(cap=5.0))
    tensor([2.5000])
    """
    return -powers(log_ratio_M.detach()).clamp(max=bounds.cap) * advantages_M * logprobs_M


def sapo(logprobs_M: Tensor, log_ratio_M: Tensor, advantages_M: Tensor, bounds: Bounds) -> Tensor:
    """−(4/τ) σ(τ(ρ − 1)) A, τ of positive advantages `gate`, of others `negative_gate`: a gate in place of a clip,
    whose gradient is that of ρA at ρ = 1 and fades smoothly on both sides (SAPO 2511.20347, equations 5 and 6).

    >>> one = torch.tensor([1.0])
    >>> sapo(one.log(), one.log(), one, Bounds()), sapo(one.log(), torch.tensor([3.0]).log(), one, Bounds())
    (tensor([-2.]), tensor([-3.5232]))
    """
    gate = torch.where(advantages_M > 0, bounds.gate, bounds.negative_gate).to(log_ratio_M.dtype)
    return -torch.sigmoid(gate * (powers(log_ratio_M) - 1)) * 4 / gate * advantages_M


def reinforce(logprobs_M: Tensor, log_ratio_M: Tensor, advantages_M: Tensor, bounds: Bounds) -> Tensor:
    """−A log π, whatever the ratio (REINFORCE).

    >>> reinforce(torch.tensor([-0.5]), torch.tensor([0.0]), torch.tensor([2.0]), Bounds())
    tensor([1.])
    """
    return -advantages_M * logprobs_M


SURROGATES: dict[str, Callable[[Tensor, Tensor, Tensor, Bounds], Tensor]] = {
    "clip": clip,
    "cispo": cispo,
    "sapo": sapo,
    "reinforce": reinforce,
}


def bound_share(log_ratio_M: Tensor, advantages_M: Tensor, surrogate: str, bounds: Bounds) -> Tensor:
    """1 for each token whose gradient the surrogate's bounds took away or made smaller, else 0.

    >>> two, one = torch.tensor([2.0]).log(), torch.tensor([1.0])
    >>> bound_share(two, one, "clip", Bounds()), bound_share(two, -one, "clip", Bounds())
    (tensor([1.]), tensor([0.]))
    """
    ratio = torch.exp(log_ratio_M)
    if surrogate == "clip":
        above = (ratio > 1 + bounds.high) & (advantages_M > 0)
        below = ((ratio < 1 - bounds.low) | (ratio > bounds.negative)) & (advantages_M < 0)
        bound = above | below
    else:
        bound = (ratio > bounds.cap) & (surrogate == "cispo")
    return bound.to(log_ratio_M.dtype)
