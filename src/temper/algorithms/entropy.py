"""Training by entropy: on the most uncertain tokens alone, and with a bonus that holds the entropy at a target."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def uncertain(entropies_M: Tensor, share: float) -> Tensor:
    """1 for the `share` of tokens of the highest entropy, else 0: those at or above the (1 − share) quantile, linear
    between values, over all tokens given (2506.01939, section 5: a fifth of them carries what is learned).

    >>> import torch
    >>> uncertain(torch.tensor([0.1, 2.0, 0.3, 1.0, 0.2]), 0.2)
    tensor([0., 1., 0., 0., 0.])
    """
    if not len(entropies_M):
        return entropies_M
    ordered = entropies_M.sort().values.double()
    place = (1 - share) * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    bound = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    return (entropies_M.double() >= bound - 1e-12).to(entropies_M.dtype)


@dataclass(frozen=True)
class EntropyTarget:
    """How the coefficient of the entropy bonus follows a target (Skywork-OR1 2505.22312, section 3.2.6): after an
    update it rises by `step` where the entropy was at or below the target, else it falls by it, within [0, `most`]; it
    counts only while the entropy is at or below the target.

    >>> rule = EntropyTarget(target=0.5, step=0.005)
    >>> rule.next(0.01, 0.4), rule.next(0.01, 0.6), rule.next(0.0, 0.6)
    (0.015, 0.005, 0.0)
    >>> rule.counts(0.01, 0.4), rule.counts(0.01, 0.6)
    (0.01, 0.0)
    """

    target: float
    step: float = 0.005
    most: float = 1.0

    def next(self, coefficient: float, entropy: float) -> float:
        moved = coefficient + (self.step if entropy <= self.target else -self.step)
        return min(max(moved, 0.0), self.most)

    def counts(self, coefficient: float, entropy: float) -> float:
        """The coefficient in the loss of an update, given the entropy that was last measured."""
        return coefficient if entropy <= self.target else 0.0
