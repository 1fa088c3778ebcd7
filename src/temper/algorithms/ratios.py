"""Ratios between policies: of each token or of a whole completion; corrections and masks for samples that stem from
another policy than the one that is trained. Shapes: M target tokens, `rows_M` the completion of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def powers(log_M: Tensor, room_M: Tensor | float = 0.0) -> Tensor:
    """e^x, with x held below what its type can hold (88.7 in float32), less `room`: beyond it the value stays and the
    gradient is 0, where ∞ times 0 would be no number.

    >>> powers(torch.tensor([0.0, 89.0])) < float("inf")
    tensor([True, True])
    """
    limit = math.log(torch.finfo(log_M.dtype).max) - 0.01 - torch.as_tensor(room_M, device=log_M.device)
    return torch.exp(torch.minimum(log_M, limit.to(log_M.dtype)))


def of_sequences(values_M: Tensor, rows_M: Tensor, mean: bool) -> Tensor:
    """[M]: each token gets the mean, or the sum, over its completion.

    >>> of_sequences(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), mean=True)
    tensor([2., 2., 5.])
    """
    sums = values_M.new_zeros(int(rows_M.max()) + 1 if len(rows_M) else 0).index_add(0, rows_M, values_M)
    if mean:
        sums = sums / torch.bincount(rows_M, minlength=len(sums)).clamp(min=1)
    return sums[rows_M]


def token_ratio(log_ratio_M: Tensor, rows_M: Tensor) -> Tensor:
    """log ρ of each token as it is (PPO, GRPO)."""
    return log_ratio_M


def sequence_ratio(log_ratio_M: Tensor, rows_M: Tensor) -> Tensor:
    """log ρ = mean over the completion of log π_θ − log π_old, the same for all its tokens (GSPO 2507.18071, eq. 7)."""
    return of_sequences(log_ratio_M, rows_M, mean=True)


def product_ratio(log_ratio_M: Tensor, rows_M: Tensor) -> Tensor:
    """log ρ = Σ over the completion: π_θ(o|q)/π_old(o|q) as R1's objective is printed (2501.12948, equation 1). Its
    spread grows with length, so that long completions leave any clip range at once; GSPO takes the mean instead."""
    return of_sequences(log_ratio_M, rows_M, mean=False)


RATIOS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": token_ratio,
    "sequence": sequence_ratio,
    "product": product_ratio,
}


LEVELS = ("token", "sequence", "geometric")  # of a weight: a token's; a completion's; the mean of its tokens' logs


def at_level(log_M: Tensor, rows_M: Tensor, level: str) -> Tensor:
    """log w of each token: its own, its completion's (the product of w over its tokens), or the geometric mean of w
    over its completion's tokens, which does not grow with length.

    >>> gap, rows = torch.tensor([0.5, 4.0]).log(), torch.tensor([0, 0])
    >>> [at_level(gap, rows, level).exp() for level in ("sequence", "geometric")]
    [tensor([2., 2.]), tensor([1.4142, 1.4142])]
    """
    return log_M if level == "token" else of_sequences(log_M, rows_M, mean=level == "geometric")


def sampler_weights(gap_M: Tensor, rows_M: Tensor, mode: str, low: float, high: float) -> Tensor:
    """Importance weights w = π_old/π_sampler against sampler/trainer mismatch, from `gap` = log w, without gradient.

    "token_truncate" bounds w to [low, high] (truncated importance sampling), "token_mask" drops tokens outside (IcePop
    2510.18855 with low 0.5, high 5); "sequence_…" and "geometric_…" take w of the whole completion (`at_level`).

    >>> gap, rows = torch.tensor([0.5, 4.0]).log(), torch.tensor([0, 0])
    >>> sampler_weights(gap, rows, "token_truncate", 0.0, 2.0), sampler_weights(gap, rows, "token_mask", 0.0, 2.0)
    (tensor([0.5000, 2.0000]), tensor([0.5000, 0.0000]))
    >>> sampler_weights(gap, rows, "sequence_truncate", 0.0, 1.5), sampler_weights(gap, rows, "geometric_mask", 1, 1.5)
    (tensor([1.5000, 1.5000]), tensor([1.4142, 1.4142]))
    """
    level, _, how = mode.partition("_")
    weights = powers(at_level(gap_M.detach(), rows_M, level))
    if how == "truncate":
        return weights.clamp(low, high)
    return weights.masked_fill((weights < low) | (weights > high), 0.0)


def accepted(gap_M: Tensor, rows_M: Tensor, level: str, low: float, high: float) -> Tensor:
    """1 for tokens whose w lies in [low, high], else 0: what lies outside is rejected, what lies inside is not weighed.

    >>> gap, rows = torch.tensor([0.5, 4.0, 1.1]).log(), torch.tensor([0, 0, 1])
    >>> accepted(gap, rows, "geometric", 0.5, 1.4), accepted(gap, rows, "token", 0.5, 2.0)
    (tensor([0., 0., 1.]), tensor([1., 0., 1.]))
    """
    weights = powers(at_level(gap_M.detach(), rows_M, level))
    return ((weights >= low) & (weights <= high)).to(gap_M.dtype)


def off_policy_mask(
    logprobs_M: Tensor, sampler_logprobs_M: Tensor, advantages_M: Tensor, rows_M: Tensor, threshold: float
) -> Tensor:
    """0 for the tokens of a completion with negative advantage that the policy has left: where the mean of
    log π_sampler − log π_θ is above `threshold`; else 1 (DeepSeek-V3.2, 2512.02556, section 3.1).

    >>> drift, rows = torch.tensor([-3.0, -3.0]), torch.tensor([0, 1])
    >>> off_policy_mask(drift, torch.zeros(2), torch.tensor([-1.0, 1.0]), rows, 2.0)
    tensor([0., 1.])
    """
    drift = of_sequences((sampler_logprobs_M - logprobs_M).detach(), rows_M, mean=True)
    return ((advantages_M >= 0) | (drift <= threshold)).to(logprobs_M.dtype)
