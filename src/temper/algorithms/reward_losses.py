"""Losses of reward models: one value a row, and how well what a model says fits what was seen.

Shapes: B pairs, rows or steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, margins_B: Tensor | float = 0.0) -> Tensor:
    """−log σ(r⁺ − r⁻ − margin) a pair (2203.02155, eq. 1; the margin is 2307.09288, eq. 2), [B].

    >>> chosen, rejected = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 2.0, 0.0])
    >>> bradley_terry(chosen, rejected).tolist()  # log 2, log(1 + e²), log(1 + e⁻²)
    [0.6931471824645996, 2.1269280910491943, 0.12692801654338837]
    >>> bradley_terry(chosen, rejected, torch.tensor([0.0, 0.0, 2.0]))[2].item()
    0.6931471824645996
    """
    return -logsigmoid(chosen_B - rejected_B - margins_B)


def centring(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """(r⁺ + r⁻)² a pair, which draws scores towards mean 0 and leaves differences free (2312.09244, section 2), [B].

    >>> centring(torch.tensor([3.0, 1.0]), torch.tensor([1.0, -1.0])).tolist()
    [16.0, 0.0]
    """
    return (chosen_B + rejected_B).square()


def binary(scores_B: Tensor, labels_B: Tensor) -> Tensor:
    """−y log σ(r) − (1 − y) log(1 − σ(r)) a row, or a step of a process reward model (2305.20050), [B].

    Labels are hard, 0 or 1, or soft, anything between: the share of completions from there that came out right
    (2312.08935, eq. 3 and 4).

    >>> binary(torch.tensor([0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 0.5])).tolist()
    [0.6931471824645996, 0.12692801654338837, 1.1269279718399048]
    """
    return binary_cross_entropy_with_logits(scores_B, labels_B, reduction="none")


def calibration_error(probabilities_B: Tensor, labels_B: Tensor, bins: int = 10) -> float:
    """The expected calibration error (1706.04599, eq. 3): |mean probability − mean label| over `bins` equal bins of the
    probability, each weighted by its share of the rows; 0 where there are no rows.

    >>> said, seen = torch.tensor([0.9, 0.9, 0.2, 0.2]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> round(calibration_error(said, seen), 6)  # (0.4 + 0.2) / 2
    0.3
    """
    probabilities_B, labels_B = probabilities_B.double(), labels_B.double()
    bin_of = (probabilities_B * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=bin_of.device)
    gaps.index_add_(0, bin_of, probabilities_B - labels_B)
    return float(gaps.abs().sum()) / max(1, len(bin_of))
