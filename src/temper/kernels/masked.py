"""Attention over packed runs by masks over gathered keys.

Shapes: N packed tokens, R runs of a block, Q and K its longest query and key run, H heads, H_kv key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from temper.kernels.attention import Options, scores_and_mix
from temper.kernels.runs import ROWS_A_BLOCK, Row, Runs, chunks, places


class MaskedBlocks:
    """For windows, capped scores and devices without the kernel."""

    def __init__(self, rows: Sequence[Row], positions_N: Tensor):
        device, positions = positions_N.device, positions_N.cpu()
        padding = len(positions)
        self.masks: dict[tuple[int, int | None], Tensor] = {}
        self.blocks = []
        for chunk in chunks(sorted(rows, key=lambda row: (len(row.own), len(row.prefix))), ROWS_A_BLOCK):
            asking = Runs.of([row.own for row in chunk], padding)
            seen = Runs.of([[*row.prefix, *row.own] for row in chunk], padding)
            self.blocks.append(tuple(replace(r, index_RQ=r.index_RQ.to(device)) for r in (asking, seen)))
        _, self.places = places([queries.index_RQ.cpu() for queries, _ in self.blocks], padding)
        self.places = self.places.to(device)
        self.query_positions = torch.cat([positions, torch.tensor([-1])]).to(device)  # a padded query sees no key
        self.key_positions = torch.cat([positions, torch.tensor([1 << 40])]).to(device)  # no query sees a padded key

    def attend(self, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        mixed = []
        query, key, value = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (query, key, value))
        for number, (queries, keys) in enumerate(self.blocks):
            asked, seen, values = queries.rows(query), keys.rows(key), keys.rows(value)
            out = scores_and_mix(asked, seen, values, self._mask(number, options.window), options)
            mixed.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed).index_select(0, self.places)

    def _mask(self, number: int, window: int | None) -> Tensor:
        """[R, 1, Q, K], true where a query may look; computed once for each window length."""
        if (number, window) not in self.masks:
            queries, keys = self.blocks[number]
            asking = self.query_positions[queries.index_RQ]
            distance = asking[:, :, None] - self.key_positions[keys.index_RQ][:, None, :]
            seen = distance >= 0
            if window is not None:
                seen &= distance < window
            seen[:, :, 0] |= asking < 0  # a padded query looks somewhere, so that no row is empty
            self.masks[number, window] = seen[:, None]
        return self.masks[number, window]
