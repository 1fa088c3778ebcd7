"""What a micro-batch contributes to an update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """The summed loss of one micro-batch, to be divided by the step's divisor. Logged beside it are `sums`, divided by
    the `count`s of the step, and `peaks`, the largest of the step."""

    loss: Tensor
    sums: Mapping[str, float] = field(default_factory=dict)
    count: float = 0.0
    peaks: Mapping[str, float] = field(default_factory=dict)
