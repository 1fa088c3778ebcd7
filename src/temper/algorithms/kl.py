"""Estimators of the divergence from a reference, per token, with u = log π_ref − log π_θ."""

from __future__ import annotations

import torch
from torch import Tensor


def k3(logprobs_M: Tensor, reference_logprobs_M: Tensor) -> Tensor:
    """e^u − u − 1 ≥ 0: what DeepSeekMath and R1 put in the loss (2402.03300, equation 4).

    >>> k3(torch.tensor([-1.0]), torch.tensor([-1.0])), k3(torch.tensor([0.0]), torch.tensor([-1.0]))
    (tensor([0.]), tensor([0.3679]))
    """
    u = reference_logprobs_M - logprobs_M
    return torch.expm1(u) - u
