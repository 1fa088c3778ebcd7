"""Which prompts a step draws: tasks in equal shares, each in an order that a key names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random

from temper.errors import Exit, Fault
from temper.rng import seed_for
from temper.types import Prompt


def shares(names: Sequence[str], count: int) -> dict[str, int]:
    """`count` prompts in equal shares, as equal as whole numbers go.

    >>> shares(["arithmetic", "general", "code"], 32)
    {'arithmetic': 10, 'general': 11, 'code': 11}
    """
    ends = [count * number // len(names) for number in range(len(names) + 1)]
    return {name: end - start for name, (start, end) in zip(names, pairwise(ends), strict=True)}


def too_few(prompts: Mapping[str, Sequence[Prompt]], count: int) -> list[Fault]:
    """A fault for each task that has fewer prompts than one step draws of it."""
    wanted = shares(list(prompts), count)
    return [
        Fault(
            f"task `{name}` has {len(of_task)} training prompts, a step draws {wanted[name]}",
            why="a step's prompts must differ",
            fix="more prompts, or a smaller `prompts_per_step`",
            code=Exit.DATA,
        )
        for name, of_task in prompts.items()
        if len(of_task) < wanted[name]
    ]


def draw_prompts(
    prompts: Mapping[str, Sequence[Prompt]], count: int, step: int, key: Sequence[int | str]
) -> list[Prompt]:
    """The prompts of one step: tasks in equal shares, each task's in an order shuffled anew every epoch.

    A function of (key, step) alone, so a resumed run draws what the undisturbed one would have.
    """
    drawn: list[Prompt] = []
    for name, share in shares(list(prompts), count).items():
        of_task = prompts[name]
        for i in range(step * share, (step + 1) * share):
            epoch, at = divmod(i, len(of_task))
            drawn.append(of_task[shuffled(len(of_task), (*key, name, epoch))[at]])
    return drawn


_orders: dict[tuple[int, tuple[int | str, ...]], list[int]] = {}


def shuffled(count: int, key: tuple[int | str, ...]) -> list[int]:
    """The numbers below `count` in the order that `key` names."""
    if (count, key) not in _orders:
        if len(_orders) > 8:
            _orders.clear()
        order = list(range(count))
        Random(seed_for(*key)).shuffle(order)
        _orders[count, key] = order
    return _orders[count, key]
