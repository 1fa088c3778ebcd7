"""Keys and values of the rows being decoded: allocated once, prompts left-padded so that all rows write one column.

Shapes: B rows in flight, S columns (longest prompt + new tokens), H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from temper.models.attention import Options, scores_and_mix


class Cache:
    """An attention plan for decode steps (see `models/attention.py`): column `self.column` is written next."""

    def __init__(self, kept: Sequence[tuple[Tensor, Tensor]], prompts: Sequence[range], owner: Sequence[int], new: int):
        """`kept[layer]` holds the packed prompts' keys and values [N, H_kv, D]; prompt p stands at `prompts[p]`, and
        row b continues prompt `owner[b]` by at most `new` tokens."""
        lengths = torch.tensor([len(prompts[p]) for p in owner])
        self.column = int(lengths.max())
        starts = torch.tensor([prompts[p].start for p in owner])
        columns = torch.arange(self.column)
        self.padding_B = self.column - lengths
        index = (starts[:, None] + columns - self.padding_B[:, None]).clamp_min(0)  # [B, longest prompt]
        self.layers = [tuple(_lay_out(tensor, index, new) for tensor in pair) for pair in kept]
        self.positions_B = lengths.clone()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        keys, values = self.layers[layer]
        keys[:, :, self.column] = key[:, :, 0]
        values[:, :, self.column] = value[:, :, 0]
        end = self.column + 1
        start = max(0, end - options.window) if options.window is not None else 0
        mask = self._mask(start, end)
        mixed = scores_and_mix(query, keys[:, :, start:end], values[:, :, start:end], mask, options)
        return mixed.transpose(1, 2)

    def _mask(self, start: int, end: int) -> Tensor | None:
        if int(self.padding_B.max()) <= start:
            return None
        return (torch.arange(start, end) >= self.padding_B[:, None])[:, None, None]

    def advance(self) -> None:
        """The next token goes to the next column."""
        self.column += 1
        self.positions_B += 1

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not in `rows`."""
        self.padding_B, self.positions_B = self.padding_B[rows], self.positions_B[rows]
        self.layers = [(keys[rows], values[rows]) for keys, values in self.layers]


def _lay_out(packed_NHD: Tensor, index_BP: Tensor, new: int) -> Tensor:
    rows, prompt = index_BP.shape
    laid = packed_NHD.new_empty(rows, packed_NHD.shape[1], prompt + new, packed_NHD.shape[2])
    laid[:, :, :prompt] = packed_NHD[index_BP].transpose(1, 2)
    return laid
