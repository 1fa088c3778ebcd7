"""Runs of packed tokens: who shares which prefix, and where their tokens stand.

Shapes: N packed tokens, R runs, Q the longest of them, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROWS_A_BLOCK = 64
Index = Tensor | slice


def as_slice(index: Tensor) -> Index:
    """The slice that says what `index` says, if there is one: reading by it copies nothing."""
    start = int(index[0])
    last = start + len(index)
    return slice(start, last) if torch.equal(index, torch.arange(start, last)) else index


@dataclass(frozen=True)
class Row:
    """A run of packed tokens, and the run before it in its sequence that it shares with others, if any."""

    own: range
    prefix: range = range(0)


@dataclass(frozen=True)
class Runs:
    """Where the tokens of some runs stand, [R, Q], short runs padded. Runs that lie end to end are read as they lie."""

    index_RQ: Tensor  # N at padding
    padded: bool
    start: int | None  # of runs of equal length that follow one another; None if they do not

    @staticmethod
    def of(runs: Sequence[Sequence[int]], padding: int) -> Runs:
        tensors = [torch.tensor(run) for run in runs]
        index = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)
        start, padded = int(index[0, 0]), bool((index == padding).any())
        # not if padded: after the last token of all, the number that stands for padding would seem to follow on
        follow = not padded and torch.equal(index.flatten(), torch.arange(start, start + index.numel()))
        return Runs(index, padded, start if follow else None)

    def rows(self, packed: Tensor) -> Tensor:
        """[R, H, Q(, D)] of packed [N, H(, D)]; at padding stands some token, or token N where there is one."""
        rows, length = self.index_RQ.shape
        if self.start is not None:
            flat = packed[self.start : self.start + rows * length]
        else:
            flat = packed.index_select(0, self.index_RQ.flatten().clamp_max(len(packed) - 1))
        return flat.unflatten(0, (rows, length)).transpose(1, 2)


def places(indices: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """The tokens that the index tensors name, in ascending order, and where each stands in them laid end to end."""
    flat = torch.cat([index.flatten() for index in indices])
    real = (flat < padding).nonzero().squeeze(-1)
    tokens, order = flat[real].sort()
    return tokens, real[order]


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
