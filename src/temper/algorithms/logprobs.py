"""Log-probabilities of chosen tokens, in float32 whatever the logits are in."""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_logprobs(logits_MV: Tensor, targets_M: Tensor, temperature: float = 1.0) -> Tensor:
    """log π(target) under softmax(logits / temperature).

    >>> chosen_logprobs(torch.zeros(1, 4), torch.tensor([2]))
    tensor([-1.3863])
    """
    scaled = logits_MV.float() / temperature
    return scaled.gather(-1, targets_M[:, None]).squeeze(-1) - scaled.logsumexp(-1)


def entropy(logits_MV: Tensor, temperature: float = 1.0) -> Tensor:
    """−Σ π log π in nats, one a row.

    >>> entropy(torch.zeros(1, 4))
    tensor([1.3863])
    """
    logprobs = torch.log_softmax(logits_MV.float() / temperature, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)
