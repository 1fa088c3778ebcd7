"""The optimiser's state split by weights over the ranks (ZeRO-1, 1910.02054): each rank moves the weights that it owns,
then tells them to the others.

Adam treats every number by itself, so who moves a weight changes no bit of it. Gradients, their norm and the clip are
those of all weights at every rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from temper.distributed.ranks import ranks


def owners(sizes: Sequence[int], size: int) -> list[int]:
    """The rank that owns each of the weights, whose `sizes` are given, so that every one has about as much.

    >>> owners([5, 9, 2, 3], 2)
    [1, 0, 1, 1]
    """
    load, found = [0] * size, [0] * len(sizes)
    for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
        found[place] = min(range(size), key=lambda rank: (load[rank], rank))
        load[found[place]] += sizes[place]
    return found


class Shards:
    """Who owns which of the `masters`; with one rank, it owns all."""

    def __init__(self, masters: Mapping[str, nn.Parameter]):
        owner = owners([master.numel() for master in masters.values()], ranks().size)
        self.of_rank = [
            {name: master for (name, master), its in zip(masters.items(), owner, strict=True) if its == rank}
            for rank in range(ranks().size)
        ]

    @property
    def own(self) -> dict[str, nn.Parameter]:
        return self.of_rank[ranks().rank]

    def tell_moved(self) -> None:
        """Every rank has the weights that the others moved."""
        for rank, masters in enumerate(self.of_rank):
            ranks().spread([master.data for master in masters.values()], rank)

    def gathered(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """At rank 0: the state of all, in main memory; elsewhere none. Every rank calls it with its own."""
        return ranks().bring(state)
