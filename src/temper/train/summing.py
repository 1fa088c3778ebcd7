"""The one place where gradients of micro-batches are added up: in the order of the micro-batches, whoever made them.

Sums of rounded numbers depend on their order. Each micro-batch is computed whole by one process, its gradient lies by
itself in memory that forked processes share, and this process adds one after the other: so no number of processes, and
no order in which they are done, changes a bit. Ranks share no memory: of a small model every gradient is told to all of
them and added in the same order, of others each rank sums its own, and the sums are added up; of a model in parts FSDP
adds up those of each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import TypeVar

from torch import Tensor

from temper.distributed.ranks import ranks, spread_bytes, summed_bytes, told_bytes
from temper.kernels.straight import straight
from temper.kernels.update import add_up, blank
from temper.models.forks import shared_like
from temper.train.precision import Weights
from temper.train.sizes import places_for
from temper.train.team import Team
from temper.train.turns import Turns

T = TypeVar("T")
KIND = "update"


def update_bytes(gradient_bytes: int, passes: int, size: int, apart: bool, sharded: bool = False) -> int:
    """What each of `size` ranks sends in one update of so many micro-batches: the sum of all gradients, or, where a
    small model's are kept `apart` to be added in order, each to all. With a `sharded` optimiser the moved weights, too.

    >>> update_bytes(1000, 5, 2, apart=False), update_bytes(1000, 5, 2, apart=True)
    (1000, 3000)
    >>> update_bytes(1000, 5, 2, apart=False, sharded=True)
    1500
    """
    moved = spread_bytes(gradient_bytes, size) if sharded else 0
    if not apart:
        return summed_bytes(gradient_bytes, size) + moved
    return -(-passes // size) * told_bytes(gradient_bytes, size) + moved


def sharded_bytes(weights: int, width: int, passes: int, size: int, copied: bool = False) -> int:
    """What each of `size` ranks sends in one update of a model in parts, of so many `weights` and micro-batches: its
    part, in `width` bytes a weight, to all in the forward and again in the backward pass, and the gradients of theirs;
    after it once more where the whole is `copied` to sample from.

    >>> sharded_bytes(1000, 2, 4, 2), sharded_bytes(1000, 2, 4, 2, copied=True)
    (8000, 9000)
    """
    turns = -(-passes // size)
    return told_bytes(-(-weights // size) * (turns * (2 * width + 4) + width * copied), size)


class GradientSum:
    """The gradients of `weights`, from micro-batches that a `team` shares out among its processes. Without a team this
    process makes all of them, with all its threads; of a model in parts the ranks take `turns`."""

    def __init__(self, weights: Weights, team: Team | None, turns: Turns | None = None):
        self.weights, self.team, self.turns = weights, team, turns
        self._places: list[list[Tensor]] = []
        self._sum: list[Tensor] = []

    def gather(self, passes: Sequence[Callable[[], T]], idle: Callable[[], T] | None = None) -> list[T]:
        """What the `passes` return, in their order. Each makes the gradient of one micro-batch; afterwards their sum
        stands in the masters' `grad`. `idle` is a pass whose gradient is 0."""
        if self.turns is not None:
            self.weights.zero_gradients()
            with straight():
                found = self.turns.in_turns(passes, idle)
            self.turns.weights.take_gradients()
            return found
        total = self._total()
        if ranks().size > 1:
            return self._among_ranks(total, passes)
        if self.team is None:
            with straight():
                return [one() for one in passes]
        found: list[T] = []
        while len(found) < len(passes):
            chunk = passes[len(found) :][: min(self.team.at_once(KIND), self._most())]
            is_alone = self.team.processes(len(chunk), KIND) == 1
            places = self._room(1 if is_alone else len(chunk))
            try:
                if is_alone:
                    found += self.team.run([partial(self._added, total, places[0], one) for one in chunk], KIND)
                else:
                    found += self.team.run([*map(partial, repeat(self._in_place), places, chunk)], KIND)
                    add_up(total, places)
            finally:
                self.weights.gather_in(total)
        return found

    def _total(self) -> list[Tensor]:
        """A gradient of 0 for every master, where the next ones gather; of a team's in memory that forked processes
        share, whose pages are not copied when they are written to."""
        if self.team is not None and not self._sum:
            self._sum = shared_like(list(self.weights.masters.values()))
        if self.team is not None:
            self.weights.gather_in(self._sum)
        return self.weights.zero_gradients()

    def _among_ranks(self, total: list[Tensor], passes: Sequence[Callable[[], T]]) -> list[T]:
        if self.team is None:
            with straight():
                parts = ranks().together(lambda: [one() for one in ranks().share(passes)])
            ranks().add_up(total)
            return parts
        team, [place], found = self.team, self._room(1), []
        try:
            for start in range(0, len(passes), ranks().size):
                chunk = passes[start:][: ranks().size]
                tasks = [partial(self._in_place, place, one) for one in ranks().share(chunk)]
                found += ranks().together(partial(team.run, tasks, KIND))
                add_up(total, ranks().all_of(place)[: len(chunk)])
        finally:
            self.weights.gather_in(total)
        return found

    def _in_place(self, place: list[Tensor], one: Callable[[], T]) -> T:
        blank(place)
        self.weights.gather_in(place)
        with straight():  # nothing is there yet, so the sum's bits are those of a gradient made apart
            return one()

    def _added(self, total: list[Tensor], place: list[Tensor], one: Callable[[], T]) -> T:
        found = self._in_place(place, one)
        add_up(total, [place])
        return found

    @property
    def held_bytes(self) -> int:
        """What waiting gradients take."""
        return sum(gradient.nbytes for place in self._places for gradient in place)

    def _most(self) -> int:
        return places_for(sum(master.nbytes for master in self.weights.masters.values()))

    def _room(self, count: int) -> list[list[Tensor]]:
        """Memory for `count` gradients, kept for the next update."""
        while len(self._places) < count:
            self._places.append(shared_like(list(self.weights.masters.values())))
        return self._places[:count]
