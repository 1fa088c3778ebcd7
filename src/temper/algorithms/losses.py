"""Losses per target token. None of them divides: they return one value a token, and the learner, which alone knows the
whole optimiser step, weighs and divides. Shapes: M target tokens of one micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor


def negative_log_likelihood(logprobs_M: Tensor) -> Tensor:
    """Supervised fine-tuning: −log π."""
    return -logprobs_M


def clipped_surrogate(
    logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, low: float, high: float
) -> Tensor:
    """−min[ρA, clip(ρ, 1−low, 1+high) A] with ρ = π_θ/π_old (PPO 1707.06347, equation 7).

    A gain past the bound earns no gradient; a loss past it still does:

    >>> two = torch.tensor([2.0]).log()
    >>> clipped_surrogate(two, torch.zeros(1), torch.tensor([1.0]), 0.2, 0.2)
    tensor([-1.2000])
    >>> clipped_surrogate(two, torch.zeros(1), torch.tensor([-1.0]), 0.2, 0.2)
    tensor([2.])
    """
    ratio = torch.exp(logprobs_M - old_logprobs_M)
    return -torch.minimum(ratio * advantages_M, ratio.clamp(1 - low, 1 + high) * advantages_M)


def clipped_share(logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, low: float, high: float) -> Tensor:
    """1 for each token whose gradient the clip took away, else 0.

    >>> clipped_share(torch.tensor([2.0]).log(), torch.zeros(1), torch.tensor([1.0]), 0.2, 0.2)
    tensor([1.])
    """
    ratio = torch.exp(logprobs_M - old_logprobs_M)
    above = (ratio > 1 + high) & (advantages_M > 0)
    below = (ratio < 1 - low) & (advantages_M < 0)
    return (above | below).to(logprobs_M.dtype)
