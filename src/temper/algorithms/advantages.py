"""From the rewards of groups to advantages. Pure functions of one tensor [..., G], a group along its last axis.

Each keeps the shape and, but for `best`, `success_mean` and `batch_whitened`, the sign of reward − group mean; a group
whose rewards are all equal, up to rounding, has advantage exactly 0 (but for `batch_whitened`). A new one is a function
here and a line in `ADVANTAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROUNDING = 8  # units in the last place that rewards may differ by and are still equal: 0.1 + 0.2 is 0.3
EPSILON = 1e-4  # keeps std finite for nearly equal rewards; the value of TRL (DeepSeekMath states none)


def is_dead(rewards_NG: Tensor) -> Tensor:
    """[..., 1]: groups without signal, all rewards equal up to rounding. Tested on the values, for a float std of
    equals is not 0.

    >>> is_dead(torch.tensor([[0.1 + 0.2, 0.3, 0.3], [0.0, 1.0, 0.0]], dtype=torch.float64))
    tensor([[ True],
            [False]])
    """
    return _is_best(rewards_NG).all(-1, keepdim=True)


def _is_best(rewards_NG: Tensor) -> Tensor:
    """Which rewards equal the largest of their group, up to rounding."""
    scale = rewards_NG.abs().amax(-1, keepdim=True)
    return rewards_NG >= rewards_NG.amax(-1, keepdim=True) - ROUNDING * torch.finfo(rewards_NG.dtype).eps * scale


def differ(rewards: Sequence[float]) -> bool:
    """Whether the rewards of one group differ by more than rounding.

    >>> differ([0.1 + 0.2, 0.3]), differ([0.0, 1.0]), differ([5.0])
    (False, True, False)
    """
    return not bool(is_dead(torch.tensor(rewards, dtype=torch.float64)))


def centred(rewards_NG: Tensor) -> Tensor:
    """A = r − mean (Dr. GRPO, 2503.20783, section 3.2; DeepSeek-V3.2).

    >>> centred(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    tensor([ 0.5000, -0.5000,  0.5000, -0.5000])
    """
    return (rewards_NG - rewards_NG.mean(-1, keepdim=True)).masked_fill(is_dead(rewards_NG), 0.0)


def standardised(rewards_NG: Tensor, ddof: int = 1) -> Tensor:
    """A = (r − mean) / (std + eps), a sample std unless `ddof` is 0 (DeepSeekMath 2402.03300, section 4.1.2).

    >>> standardised(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([ 1.4997, -0.4999, -0.4999, -0.4999])
    >>> standardised(torch.tensor([0.1, 0.1, 0.1]))
    tensor([0., 0., 0.])
    """
    return centred(rewards_NG) / (rewards_NG.std(-1, correction=ddof, keepdim=True) + EPSILON)


def standardised_population(rewards_NG: Tensor) -> Tensor:
    """`standardised` with the population's std (ddof 0): ±1 for half right, half wrong.

    >>> standardised_population(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    tensor([ 0.9998, -0.9998,  0.9998, -0.9998])
    """
    return standardised(rewards_NG, ddof=0)


def batch_standardised(rewards_NG: Tensor) -> Tensor:
    """A = (r − group mean) / (std over all rewards of the step + eps) (Lite PPO 2508.08221).

    >>> batch_standardised(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[ 0.9998, -0.9998],
            [ 0.0000,  0.0000]])
    """
    return centred(rewards_NG) / (rewards_NG.std() + EPSILON)


def batch_normalised(rewards_NG: Tensor) -> Tensor:
    """A = (r − group mean) / (its std over the step + eps) (REINFORCE++-baseline 2501.03262, section 3.2;
    ScaleRL 2510.13786, section 3.2). This std, unlike that of `batch_standardised`, does not see how unlike the
    prompts are.

    >>> batch_normalised(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    tensor([[ 0.8659, -0.8659],
            [ 0.8659, -0.8659]])
    """
    centred_NG = centred(rewards_NG)
    return centred_NG / (centred_NG.std() + EPSILON)


def leave_one_out(rewards_NG: Tensor) -> Tensor:
    """A = r − mean of the others = G/(G−1) (r − mean) (RLOO 2402.14740, equation 8).

    >>> leave_one_out(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([ 1.0000, -0.3333, -0.3333, -0.3333])
    """
    size = rewards_NG.shape[-1]
    return centred(rewards_NG) * (size / (size - 1))


def relative(rewards_NG: Tensor) -> Tensor:
    """A = (r − mean) / mean: with binary rewards, the gradient of the log of the pass rate (MaxRL 2602.02710).

    Raises ValueError for negative rewards, where dividing by their mean could turn the sign.

    >>> relative(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([ 3., -1., -1., -1.])
    """
    if bool((rewards_NG < 0).any()):
        raise ValueError("the advantage `maxrl` divides by the mean reward: rewards must not be negative")
    mean = rewards_NG.mean(-1, keepdim=True)
    return centred(rewards_NG) / mean.masked_fill(is_dead(rewards_NG), 1.0)


def success_mean(rewards_NG: Tensor) -> Tensor:
    """A = r / mean: with binary rewards the mean of ∇ log π over the completions that succeed, and nothing of the
    others (the estimator of maximum likelihood before a baseline is taken from it, MaxRL 2602.02710).

    Raises ValueError for negative rewards.

    >>> success_mean(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([[4., 0., 0., 0.],
            [0., 0., 0., 0.]])
    """
    if bool((rewards_NG < 0).any()):
        raise ValueError("the advantage `success_mean` divides by the mean reward: rewards must not be negative")
    dead = is_dead(rewards_NG)
    return (rewards_NG / rewards_NG.mean(-1, keepdim=True).masked_fill(dead, 1.0)).masked_fill(dead, 0.0)


def batch_whitened(rewards_NG: Tensor) -> Tensor:
    """A = (r − mean) / (std + eps), both over all rewards of the step (REINFORCE++ 2501.03262, section 3.1): the one
    advantage that compares prompts with each other, so that a group of equal rewards has a signal beside others. 0
    where all of the step are equal.

    >>> batch_whitened(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    tensor([[ 0.8659,  0.8659],
            [-0.8659, -0.8659]])
    """
    return standardised(rewards_NG.flatten()).view(rewards_NG.shape)


def best(rewards_NG: Tensor) -> Tensor:
    """A = 1 for the best of a group that differs, else 0: rejection-sampling fine-tuning (RAFT 2304.06767).

    >>> best(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    tensor([[1., 0., 1.],
            [0., 0., 0.]])
    """
    return (_is_best(rewards_NG) & ~is_dead(rewards_NG)).to(rewards_NG.dtype)


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "std": standardised,
    "std_population": standardised_population,
    "none": centred,
    "batch": batch_standardised,
    "batch_centred": batch_normalised,
    "rloo": leave_one_out,
    "maxrl": relative,
    "success_mean": success_mean,
    "batch_whitened": batch_whitened,
    "best": best,
}


def decoupled(rewards_KNG: Tensor, weights_K: Sequence[float]) -> Tensor:
    """[N, G]: each of K rewards standardised in its group, their weighted sum divided by its std over the step (GDPO
    2601.05242). The sum's mean is 0, since each part's is. A reward that does not apply to a completion is nan: it is
    standardised over the others, and is 0 there.

    >>> rewards = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[5.0, 0.0], [2.0, 2.0]]])
    >>> decoupled(rewards, [1.0, 1.0])
    tensor([[ 1.0954, -1.0954],
            [ 0.5477, -0.5477]])
    """
    weights = torch.tensor(weights_K, dtype=rewards_KNG.dtype)[:, None, None]
    parts_KNG = _standardised_where_it_applies(rewards_KNG) * weights
    total_NG = parts_KNG.sum(0)
    residue = total_NG.abs() <= ROUNDING * torch.finfo(total_NG.dtype).eps * parts_KNG.abs().sum(0)
    total_NG = total_NG.masked_fill(residue.all(-1, keepdim=True), 0.0)  # rewards that cancel out but for rounding
    spread = total_NG.std() if total_NG.numel() > 1 else total_NG.new_zeros(())
    return total_NG / (spread + EPSILON)


def _standardised_where_it_applies(rewards_KNG: Tensor) -> Tensor:
    if not bool(rewards_KNG.isnan().any()):
        return standardised(rewards_KNG)
    found = torch.zeros_like(rewards_KNG)
    for rewards_G, found_G in zip(rewards_KNG.flatten(0, 1), found.flatten(0, 1), strict=True):
        applies_G = ~rewards_G.isnan()
        if int(applies_G.sum()) > 1:
            found_G[applies_G] = standardised(rewards_G[applies_G])
    return found
