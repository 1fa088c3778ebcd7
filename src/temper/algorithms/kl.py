"""Estimators of the divergence from a reference, per token, with u = log π_ref − log π_θ and ρ = π_θ/π_old.

In the loss, what counts is an estimator's gradient: that of `k2` and `k3_corrected` is the reverse KL's, that of `k3`
the forward KL's, and that of `k1` is 0 on average (`tests/test_bandit.py` enumerates it): `k1` is for rewards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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
    return torch.expm1(u) - u


def k3_corrected(logprobs_M: Tensor, reference_logprobs_M: Tensor, log_ratio_M: Tensor | float = 0.0) -> Tensor:
    """ρ·k3, its gradient taken through ρ too (DeepSeek-V3.2, 2512.02556, section 3.1).

    >>> k3_corrected(torch.tensor([0.0]), torch.tensor([-1.0]), torch.tensor([2.0]).log())
    tensor([0.7358])
    """
    return torch.exp(torch.as_tensor(log_ratio_M)) * k3(logprobs_M, reference_logprobs_M)


KL: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3_corrected": k3_corrected,
}
