"""Estimators of the divergence from a reference, per token, with u = log π_ref − log π_θ and ρ = π_θ/π_old.

In the loss, what counts is an estimator's gradient: that of `k2` and `k3_corrected` is the reverse KL's, that of `k3`
the forward KL's, and that of `k1` is 0 on average (`tests/algorithms/test_bandit.py` enumerates it): `k1` is for
rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from temper.algorithms.ratios import powers


def k1(logprobs_M: Tensor, reference_logprobs_M: Tensor, log_ratio_M: Tensor | float = 0.0) -> Tensor:
    """−u: unbiased, of either sign. Subtracted from rewards (PPO for RLHF 2203.02155; RLOO 2402.14740).

    >>> k1(torch.tensor([0.0]), torch.tensor([-1.0]))
    tensor([1.])
    """
    return logprobs_M - reference_logprobs_M


def k2(logprobs_M: Tensor, reference_logprobs_M: Tensor, log_ratio_M: Tensor | float = 0.0) -> Tensor:
    """u²/2 (REINFORCE++-baseline 2501.03262).

    >>> k2(torch.tensor([0.0]), torch.tensor([-1.0]))
    tensor([0.5000])
    """
    return (reference_logprobs_M - logprobs_M).square() / 2


def k3(logprobs_M: Tensor, reference_logprobs_M: Tensor, log_ratio_M: Tensor | float = 0.0) -> Tensor:
    """e^u − u − 1 ≥ 0: what DeepSeekMath and R1 put in the loss (2402.03300, equation 4).

    >>> k3(torch.tensor([-1.0]), torch.tensor([-1.0])), k3(torch.tensor([0.0]), torch.tensor([-1.0]))
    (tensor([0.]), tensor([0.3679]))
    """
    u = reference_logprobs_M - logprobs_M
    return torch.expm1(u.clamp(max=_most(u))) - u


def k3_corrected(logprobs_M: Tensor, reference_logprobs_M: Tensor, log_ratio_M: Tensor | float = 0.0) -> Tensor:
    """ρ·k3, its gradient taken through ρ too (DeepSeek-V3.2, 2512.02556, section 3.1).

    >>> k3_corrected(torch.tensor([0.0]), torch.tensor([-1.0]), torch.tensor([2.0]).log())
    tensor([0.7358])
    """
    u = (reference_logprobs_M - logprobs_M).detach()
    room = torch.maximum(u, u.abs().log1p())  # the product must be finite too
    return powers(torch.as_tensor(log_ratio_M, dtype=logprobs_M.dtype), room) * k3(logprobs_M, reference_logprobs_M)


def _most(u_M: Tensor) -> float:
    """The largest u whose e^u is finite."""
    return math.log(torch.finfo(u_M.dtype).max) - 0.01


KL: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3_corrected": k3_corrected,
}
