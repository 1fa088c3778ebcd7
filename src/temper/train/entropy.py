"""The coefficient of the entropy bonus as it follows a target, update by update."""

from __future__ import annotations

import math

import torch
from torch import nn

from temper.algorithms.entropy import EntropyTarget


class EntropyControl(nn.Module):
    """`rule` at work. It is a module so that a checkpoint holds its two numbers: the coefficient, and the entropy that
    was last measured (infinite before the first update, whose bonus is 0).

    >>> control = EntropyControl(EntropyTarget(target=0.5, step=0.25), coefficient=0.5)
    >>> control.bonus(), control.see(0.25), control.bonus(), control.see(0.75), control.bonus()
    (0.0, None, 0.75, None, 0.0)
    """

    def __init__(self, rule: EntropyTarget, coefficient: float):
        super().__init__()
        self.rule = rule
        self.coefficient = _number(coefficient)
        self.entropy = _number(math.inf)

    def bonus(self) -> float:
        """The coefficient of the next update."""
        return self.rule.counts(float(self.coefficient), float(self.entropy))

    @torch.no_grad()
    def see(self, entropy: float) -> None:
        """Take note of the mean entropy that an update measured."""
        self.coefficient.fill_(self.rule.next(float(self.coefficient), entropy))
        self.entropy.fill_(entropy)


def _number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64), requires_grad=False)
