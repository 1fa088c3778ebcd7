"""Which prompts a step draws: tasks in equal shares, each in an order that a key names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from random import Random

import torch
from torch import nn

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


TRIES = 20  # draws that look for prompts in place of retired ones


def fresh_prompts(
    prompts: Mapping[str, Sequence[Prompt]], count: int, step: int, key: Sequence[int | str], retired: Set[str]
) -> list[Prompt]:
    """`draw_prompts`, with others of the same task in place of those whose ids are `retired`; where hardly any others
    are left, some of those after all. A function of its arguments, so a resumed run draws the same."""
    drawn = draw_prompts(prompts, count, step, key)
    for attempt in range(TRIES if retired else 0):
        stale = [i for i, prompt in enumerate(drawn) if prompt.id in retired]
        if not stale:
            break
        known = retired | {prompt.id for prompt in drawn}
        more = draw_prompts(prompts, count, step * TRIES + attempt, (*key, "fresh"))
        spare = [prompt for prompt in more if prompt.id not in known]
        for i in stale:
            found = next((prompt for prompt in spare if prompt.task == drawn[i].task), None)
            if found is not None:
                spare.remove(found)
                drawn[i] = found
    return drawn


class Retired(nn.Module):
    """Which prompts are not drawn again, since the policy solves them (ScaleRL 2510.13786, section 3.2). A module so
    that a checkpoint holds it: 1 for each that is, in the order of the tasks' files.

    >>> retired = Retired({"t": [Prompt(f"t:{i}", "t", (), "1") for i in range(3)]}, bound=0.9)
    >>> retired.see("t:1", 0.95), retired.see("t:2", 0.5), retired.ids
    (None, None, {'t:1'})
    """

    def __init__(self, prompts: Mapping[str, Sequence[Prompt]], bound: float):
        super().__init__()
        self.bound = bound
        self._names = [prompt.id for of_task in prompts.values() for prompt in of_task]
        self._places = {name: place for place, name in enumerate(self._names)}
        self.flags = nn.Parameter(torch.zeros(len(self._names)), requires_grad=False)

    @property
    def ids(self) -> set[str]:
        return {self._names[place] for place in self.flags.nonzero().flatten().tolist()}

    @torch.no_grad()
    def see(self, prompt_id: str, pass_rate: float) -> None:
        """Take note of the share of a prompt's completions that were right."""
        if pass_rate >= self.bound:
            self.flags[self._places[prompt_id]] = 1.0


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
