"""Examples to batches: packed without padding, a prefix that several examples share laid down once."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from temper.types import Example

FULL = 2 / 3  # of its budget a micro-batch has, for one more family to be left whole for the next,
SHORT = 1 / 4  # unless its prefix is shorter than this part of the room that would be left empty


@dataclass(frozen=True)
class Layout:
    """Where one example's tokens stand in the packed row: `prefix` may be shared with others, `own` is its own."""

    prefix: range
    own: range


@dataclass(frozen=True)
class Batch:
    """One micro-batch of N packed tokens with M targets; every field complete, nothing padded.

    `sources[m]` is the packed position whose output predicts `targets[m]`; `rows[m]` says which example target m
    belongs to; `lengths[m]` is how many targets that example has. Targets keep the order of `examples`.
    """

    tokens: Tensor  # [N]
    positions: Tensor  # [N]
    layouts: tuple[Layout, ...]  # one an example
    sources: Tensor  # [M]
    targets: Tensor  # [M]
    rows: Tensor  # [M]
    lengths: Tensor  # [M]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        tensors = (self.sources, self.targets, self.rows, self.lengths)
        return Batch(
            self.tokens.to(device), self.positions.to(device), self.layouts, *(tensor.to(device) for tensor in tensors)
        )


def make_batch(examples: Sequence[Example]) -> Batch:
    """Pack `examples` into one row.

    >>> row = lambda *tokens: Example(tokens, (False, False) + (True,) * (len(tokens) - 2))
    >>> batch = make_batch([row(1, 2, 3, 4), row(1, 2, 5)])
    >>> batch.tokens.tolist(), batch.positions.tolist()
    ([1, 2, 3, 4, 5], [0, 1, 2, 3, 2])
    >>> batch.sources.tolist(), batch.targets.tolist()
    ([1, 2, 1], [3, 4, 5])
    """
    tokens: list[int] = []
    begins: list[int] = []  # the position of each run's first token
    sizes: list[int] = []  # and how many follow on

    def lay(example: Example, start: int, stop: int) -> range:
        at = len(tokens)
        tokens.extend(example.token_ids[start:stop])
        begins.append(start)
        sizes.append(stop - start)
        return range(at, len(tokens))

    numbers: dict[tuple[int, ...], int] = {}
    kinds = [numbers.setdefault(example.prefix, len(numbers)) for example in examples]
    shared = {kind for kind, count in Counter(kinds).items() if count > 1}
    laid = [range(0)] * len(numbers)
    for kind, example in zip(kinds, examples, strict=True):  # prefixes first: what follows them then lies end to end
        if kind in shared and not laid[kind]:
            laid[kind] = lay(example, 0, example.prefix_length)
    layouts, wanted, counts, before = [], [], [], []
    for kind, example in zip(kinds, examples, strict=True):
        prefix = laid[kind]
        own = lay(example, len(prefix), len(example.token_ids))
        layouts.append(Layout(prefix, own))
        count = 0
        for start, size in example.target_runs:
            if not count:  # what predicts the first of all
                before.append((prefix or range(own.start + start))[-1])
            wanted += own.start + start - len(prefix), size
            count += size
        counts.append(count)
    tokens_N, counts_R = _whole(tokens), _whole(counts)
    targets = _ranges(*_whole(wanted).reshape(-1, 2).T)
    sources = targets - 1
    sources[(counts_R.cumsum() - counts_R)[counts_R > 0]] = before
    rows = np.arange(len(counts)).repeat(counts_R)
    arrays = tokens_N, _ranges(_whole(begins), _whole(sizes)), sources, tokens_N[targets], rows, counts_R[rows]
    tensors = map(torch.from_numpy, arrays)
    return Batch(next(tensors), next(tensors), tuple(layouts), *tensors)


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ranges from the `starts` on, of these sizes, end to end.

    >>> _ranges(np.array([5, 2]), np.array([2, 3])).tolist()
    [5, 6, 2, 3, 4]
    """
    ends = sizes.cumsum()
    return np.arange(sizes.sum()) + (starts - ends + sizes).repeat(sizes)


def _whole(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(array("q", values))  # np.array alone asks of each what it is


def tensor_of(values: Sequence[float], kind: str = "q") -> Tensor:
    """int64, or with `kind` "f" float32: `torch.tensor` in a seventh of the time.

    >>> tensor_of([1, 2]), tensor_of([0.5], "f"), tensor_of([])
    (tensor([1, 2]), tensor([0.5000]), tensor([], dtype=torch.int64))
    """
    dtype = torch.int64 if kind == "q" else torch.float32
    return torch.frombuffer(array(kind, values), dtype=dtype) if values else torch.empty(0, dtype=dtype)


def packed_tokens(examples: Sequence[Example]) -> int:
    """Tokens of `examples` laid down together, a prefix that several share once.

    >>> packed_tokens([Example((1, 2), (False, True)), Example((1, 3), (False, True))])
    3
    """
    prefixes = {example.prefix for example in examples}
    return sum(map(len, prefixes)) + sum(len(example.token_ids) - example.prefix_length for example in examples)


def split_by_tokens(examples: Sequence[Example], budget: int) -> list[list[int]]:
    """Indices of examples in micro-batches of at most `budget` tokens (one example may exceed it alone), as few as that
    allows and then as even as they can be: those of one prefix kept together and lengths kept similar. The gradient
    does not depend on how this is done, only the speed.

    >>> rows = [Example((1, 2), (False, True)), Example((7, 8, 9), (False, True, True)), Example((1, 3), (False, True))]
    >>> split_by_tokens(rows, 4)
    [[0, 2], [1]]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.prefix, []).append(index)
    ordered = sorted(members.values(), key=lambda family: max(len(examples[i].token_ids) for i in family))
    families = [_family(examples, indices) for indices in ordered]
    if not families:
        return []
    best = _cut(families, budget)
    low, high = sum(family.cost for family in families) // len(best), budget
    while low < high:  # the least budget with no more of them
        middle = (low + high) // 2
        found = _cut(families, middle)
        if len(found) <= len(best):
            best, high = found, middle
        else:
            low = middle + 1
    return [[families[f].indices[i] for f, start, stop in part for i in range(start, stop)] for part in best]


@dataclass(frozen=True)
class _Family:
    """Examples of one prefix. `ends[i]`: tokens of the first i of them, without it."""

    indices: list[int]
    prefix: int
    ends: list[int]

    @property
    def cost(self) -> int:
        return self.prefix + self.ends[-1]


def _family(examples: Sequence[Example], indices: list[int]) -> _Family:
    prefix = examples[indices[0]].prefix_length
    own = (len(examples[index].token_ids) - prefix for index in indices)
    return _Family(indices, prefix, [0, *accumulate(own)])


def _cut(families: Sequence[_Family], budget: int) -> list[list[tuple[int, int, int]]]:
    """Micro-batches of at most `budget` tokens, filled one after the other: a family's number, and which of its
    examples."""
    parts: list[list[tuple[int, int, int]]] = [[]]
    used = 0
    for number, family in enumerate(families):
        room, start, count = budget - used, 0, len(family.indices)
        is_worth_it = used < FULL * budget or family.prefix < SHORT * room
        if parts[-1] and family.cost > room and family.cost <= budget and not is_worth_it:
            parts.append([])  # cut in two, its prefix would be computed twice
            used = 0
        while start < count:
            reach = family.ends[start] + budget - used - family.prefix
            stop = bisect_right(family.ends, reach) - 1
            if stop <= start:
                if parts[-1]:
                    parts.append([])
                    used = 0
                    continue
                stop = start + 1  # alone it exceeds the budget
            parts[-1].append((number, start, stop))
            used += family.prefix + family.ends[stop] - family.ends[start]
            start = stop
    return parts
