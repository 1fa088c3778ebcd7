"""Passes of a model that lies in parts at the ranks (`fully_sharded.py`): each needs all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from temper.distributed.ranks import ranks
from temper.kernels.forwards import Forwards, in_place
from temper.train.losses import LossSum

if TYPE_CHECKING:
    from temper.train.fully_sharded import ShardedWeights

T = TypeVar("T")


class Turns:
    """Shares out passes of a model in parts: in turns, in each of which every rank makes one."""

    def __init__(self, weights: ShardedWeights, forwards: Forwards):
        self.weights, self._forwards = weights, forwards

    def loss(self, make_loss: Callable[[], LossSum]) -> LossSum:
        """A loss of the model, from which gradients can go back."""
        found: list[LossSum] = []

        def work() -> Tensor:
            found.append(make_loss())
            return found[0].loss

        loss = self.weights.within(work)
        return replace(found[0], loss=loss)

    def ask(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What each task, a pass without gradient, returns."""
        with in_place(self._forwards):
            return self.in_turns([partial(self.weights.within, task) for task in tasks])

    def in_turns(self, passes: Sequence[Callable[[], T]], blank: Callable[[], T] | None = None) -> list[T]:
        """What each of the `passes` returns, in their order. Ranks that have none left in the last turn make `blank`,
        or the first one again."""
        mine, turns = ranks().share(passes), math.ceil(len(passes) / ranks().size)
        found = [mine[turn]() if turn < len(mine) else (blank or passes[0])() for turn in range(turns)]
        return ranks().together(lambda: found[: len(mine)])
