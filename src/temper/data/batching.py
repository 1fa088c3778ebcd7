"""Examples to batches: packed without padding, a prefix that several examples share laid down once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from temper.types import Example

FULL = 2 / 3  # of its budget a micro-batch has, for one more family to be left whole for the next


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
    positions: list[int] = []

    def lay(example: Example, start: int, stop: int) -> range:
        at = len(tokens)
        tokens.extend(example.token_ids[start:stop])
        positions.extend(range(start, stop))
        return range(at, len(tokens))

    shared = _shared_prefixes(examples)
    laid: dict[tuple[int, ...], range] = {}
    for example in examples:  # prefixes first: what follows them then lies end to end
        prefix_tokens = example.token_ids[: example.prefix_length]
        if prefix_tokens in shared and prefix_tokens not in laid:
            laid[prefix_tokens] = lay(example, 0, example.prefix_length)
    layouts, sources, targets, rows, lengths = [], [], [], [], []
    for row, example in enumerate(examples):
        cut = example.prefix_length
        prefix_tokens = example.token_ids[:cut]
        if prefix_tokens in shared:
            prefix = laid[prefix_tokens]
        else:
            cut, prefix = 0, range(0)
        own = lay(example, cut, len(example.token_ids))
        layouts.append(Layout(prefix, own))
        wanted = list(compress(range(len(example.mask)), example.mask))
        sources.extend(own.start + i - 1 - cut if i > cut else prefix[i - 1] for i in wanted)
        targets.extend(compress(example.token_ids, example.mask))
        rows.extend([row] * len(wanted))
        lengths.extend([len(wanted)] * len(wanted))
    tensors = map(tensor_of, (tokens, positions, sources, targets, rows, lengths))
    return Batch(next(tensors), next(tensors), tuple(layouts), *tensors)


def tensor_of(values: Sequence[float], kind: str = "q") -> Tensor:
    """int64, or with `kind` "f" float32: `torch.tensor` in a seventh of the time.

    >>> tensor_of([1, 2]), tensor_of([0.5], "f"), tensor_of([])
    (tensor([1, 2]), tensor([0.5000]), tensor([], dtype=torch.int64))
    """
    dtype = torch.int64 if kind == "q" else torch.float32
    return torch.frombuffer(array(kind, values), dtype=dtype) if values else torch.empty(0, dtype=dtype)


def _shared_prefixes(examples: Sequence[Example]) -> set[tuple[int, ...]]:
    """The prefixes that stand before the first target of two examples or more."""
    once: set[tuple[int, ...]] = set()
    shared: set[tuple[int, ...]] = set()
    for example in examples:
        prefix = example.token_ids[: example.prefix_length]
        if prefix:
            (shared if prefix in once else once).add(prefix)
    return shared


def packed_tokens(examples: Sequence[Example]) -> int:
    """Tokens of `examples` laid down together, a prefix that several share once.

    >>> packed_tokens([Example((1, 2), (False, True)), Example((1, 3), (False, True))])
    3
    """
    prefixes = {example.token_ids[: example.prefix_length] for example in examples}
    return sum(map(len, prefixes)) + sum(len(example.token_ids) - example.prefix_length for example in examples)


def split_by_tokens(examples: Sequence[Example], budget: int) -> list[list[int]]:
    """Indices of examples in micro-batches of at most `budget` tokens (one example may exceed it alone), those of one
    prefix kept together and lengths kept similar. The gradient does not depend on how this is done, only the speed.

    >>> rows = [Example((1, 2), (False, True)), Example((7, 8, 9), (False, True, True)), Example((1, 3), (False, True))]
    >>> split_by_tokens(rows, 4)
    [[0, 2], [1]]
    """
    families: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        families.setdefault(example.token_ids[: example.prefix_length], []).append(index)
    ordered = sorted(families.values(), key=lambda family: max(len(examples[i].token_ids) for i in family))
    parts: list[list[int]] = []
    used = budget + 1
    for family in ordered:
        prefix = examples[family[0]].prefix_length
        whole = prefix + sum(len(examples[index].token_ids) - prefix for index in family)
        if used >= FULL * budget and used + whole > budget >= whole:
            used = budget  # the next one begins with it: cut in two, its prefix would be computed twice
        needs_prefix = True
        for index in family:
            own = len(examples[index].token_ids) - prefix
            cost = own + (prefix if needs_prefix else 0)
            if used + cost > budget:
                parts.append([])
                used, cost = 0, own + prefix
            parts[-1].append(index)
            used += cost
            needs_prefix = False
    return parts
