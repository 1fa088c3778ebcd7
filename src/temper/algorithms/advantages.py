"""From the rewards of a group to advantages. Pure functions of one tensor; the sign is always that of reward − mean."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EPSILON = 1e-4  # keeps std finite for nearly equal rewards; the value of DeepSeekMath's released code and of TRL


def is_dead(rewards: Tensor) -> bool:
    """Whether a group carries no signal: all rewards equal. Tested on the values, for a float std of equals is not 0.

    >>> is_dead(torch.tensor([0.1, 0.1, 0.1]))
    True
    """
    return bool(rewards.max() == rewards.min())


def centred(rewards_G: Tensor) -> Tensor:
    """A = r − mean (Dr. GRPO, 2503.20783; DeepSeek-V3.2).

    >>> centred(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    tensor([ 0.5000, -0.5000,  0.5000, -0.5000])
    """
    if is_dead(rewards_G):
        return torch.zeros_like(rewards_G)
    return rewards_G - rewards_G.mean()


def standardised(rewards_G: Tensor) -> Tensor:
    """A = (r − mean) / (std + eps), std with ddof 1 (DeepSeekMath 2402.03300, section 4.1.2).

    >>> standardised(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([ 1.4997, -0.4999, -0.4999, -0.4999])
    >>> standardised(torch.tensor([0.1, 0.1, 0.1]))
    tensor([0., 0., 0.])
    """
    if is_dead(rewards_G):
        return torch.zeros_like(rewards_G)
    return (rewards_G - rewards_G.mean()) / (rewards_G.std() + EPSILON)


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "std": standardised,
    "none": centred,
}
