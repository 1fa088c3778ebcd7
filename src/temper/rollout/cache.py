"""Keys and values of the rows being decoded. What several rows share stands once; what is a row's own follows it.

A row's query meets the shared runs (a common prefix, its prompt) and its own tokens apart; the parts are merged by
their softmax sums, so no key is copied for a row. All rows write the same column of their own tokens: they began
together, and a row that ends gives its place to the last one.

Shapes: B rows in flight, R shared runs, Q rows that look at one run, T tokens, H_kv key heads, S queries a key head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from temper.kernels.attention import NOTHING, Layers, Options, Partial, attend_part, merge_parts
from temper.kernels.decode import attend_own
from temper.kernels.spaces import space
from temper.rollout.memory import whole_vectors


class Tables(NamedTuple):
    """Who looks at which run."""

    rows_RQ: Tensor  # where a run has fewer than Q rows, row 0 asks for nothing
    place_B: Tensor  # of each row among them
    padding: Tensor  # [R, 1, 1, T], −inf where a run has no token
    ragged: bool

    @staticmethod
    def of(run_B: Tensor, lengths_R: Tensor) -> Tables:
        counts = run_B.bincount(minlength=len(lengths_R))
        order = run_B.argsort(stable=True)
        within = torch.arange(len(run_B)) - (counts.cumsum(0) - counts)[run_B[order]]
        rows_RQ = torch.zeros(len(counts), int(counts.max()), dtype=torch.long)
        rows_RQ[run_B[order], within] = order
        place_B = torch.empty_like(run_B)
        place_B[order] = run_B[order] * rows_RQ.shape[1] + within
        padding = _minus_inf(torch.arange(int(lengths_R.max())) >= lengths_R[:, None])[:, None, None]
        return Tables(rows_RQ, place_B, padding, bool(lengths_R.min() < lengths_R.max()))


class Shared:
    """Runs of tokens that rows look back to; `layers[l]` holds their keys and values [R, H_kv, T, D], right-padded."""

    def __init__(self, layers: Layers, lengths: Sequence[int], start: int, run_B: Tensor):
        """`start` is the position of each run's first token; row b looks at run `run_B[b]`."""
        self.layers, self.start = layers, start
        self.lengths_R = torch.tensor(lengths)
        self.look(run_B)

    def look(self, run_B: Tensor) -> None:
        """The rows in flight have changed: row b looks at run `run_B[b]`. Runs without a row are dropped by and by."""
        living = run_B.unique()
        if len(living) <= len(self.lengths_R) // 2:
            run_B = torch.searchsorted(living, run_B)
            self.layers = [(keys[living], values[living]) for keys, values in self.layers]
            self.lengths_R = self.lengths_R[living]
        self.run_B = run_B
        self._tables: Tables | None = None

    def tables(self) -> Tables:
        """Made when they are first asked for: steps in C do not."""
        if self._tables is None:
            self._tables = Tables.of(self.run_B, self.lengths_R)
        return self._tables

    def attend(self, layer: int, query: Tensor, positions_B: Tensor, options: Options) -> Partial:
        """What each row's queries [B, H_kv, S, D] find in its run."""
        tables = self.tables()
        keys, values = (tensor[:, :, : tables.padding.shape[-1]] for tensor in self.layers[layer])
        runs, each = tables.rows_RQ.shape
        heads, shared, size = query.shape[1:]
        asked = query[tables.rows_RQ].transpose(1, 2).reshape(runs, heads, each * shared, size)
        hidden = self._hidden(positions_B, options.window, shared)
        mixed, logsum = attend_part(asked, keys, values, hidden, options)
        mixed, logsum = (
            tensor.unflatten(2, (each, shared)).transpose(1, 2).flatten(0, 1)[tables.place_B]
            for tensor in (mixed, logsum)
        )
        if hidden is not None and options.window is not None:
            unseen = positions_B - (self.start + self.lengths_R[self.run_B]) >= options.window - 1
            mixed, logsum = mixed.nan_to_num(0.0), logsum.masked_fill(unseen[:, None, None], NOTHING)
        return Partial(mixed, logsum)

    def _hidden(self, positions_B: Tensor, window: int | None, shared: int) -> Tensor | None:
        """[R, 1, 1 or Q·S, T], −inf where a query may not look; None where it may look everywhere."""
        tables = self.tables()
        padding = tables.padding if tables.ragged else None
        if window is None or int(positions_B.max()) - self.start < window:
            return padding
        distance = positions_B[tables.rows_RQ][..., None] - self.start - torch.arange(tables.padding.shape[-1])
        far = _minus_inf(distance >= window).repeat_interleave(shared, dim=1)[:, None]
        return far if padding is None else far + padding


class Cache:
    """An attention plan for decode steps (see `kernels/attention.py`): one token a row, column `self.column` next."""

    def __init__(self, shared: Sequence[Shared], positions_B: Tensor, columns: int):
        """`positions_B` is where each row's first own token stands; a row has at most `columns` of them."""
        self.shared = list(shared)
        self.positions_B = positions_B
        self.column = 0
        rows, room = len(positions_B), whole_vectors(columns)
        shapes = [[(rows, part.shape[1], room, part.shape[-1]) for part in layer] for layer in self.shared[0].layers]
        sizes = [math.prod(shape) for pair in shapes for shape in pair]
        parts = iter(_room(sum(sizes), self.shared[0].layers[0][0]).split(sizes))
        self.own = [tuple(next(parts).view(shape) for shape in pair) for pair in shapes]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        rows, heads = query.shape[:2]
        keys, values = (part[:rows] for part in self.own[layer])
        grouped = query.reshape(rows, keys.shape[1], -1, query.shape[-1])  # [B, H_kv, S, D]
        before = merge_parts([run.attend(layer, grouped, self.positions_B, options) for run in self.shared])
        mixed = attend_own(query, key, value, keys, values, self.column, options, before)
        if mixed is None:
            keys[:, :, self.column] = key[:, :, 0]
            values[:, :, self.column] = value[:, :, 0]
            end = self.column + 1
            begin = max(0, end - options.window) if options.window is not None else 0
            own = attend_part(grouped, keys[:, :, begin:end], values[:, :, begin:end], None, options)
            mixed = merge_parts([before, own]).mixed
        return mixed.reshape(rows, 1, heads, -1)

    def advance(self) -> None:
        """The next token goes to the next column."""
        self.column += 1
        self.positions_B = self.positions_B + 1

    def keep(self, rows: Tensor) -> None:
        """Row i is from now on what row `rows[i]` was; one may become several, as many as there were to begin with."""
        moved = (rows != torch.arange(len(rows))).nonzero().squeeze(-1)
        for parts in self.own:
            for part in parts:
                part[moved, :, : self.column] = part[rows[moved], :, : self.column]
        self.positions_B = self.positions_B[rows]
        for run in self.shared:
            run.look(run.run_B[rows])


def _room(count: int, like: Tensor) -> Tensor:
    """Room for so many numbers of the kind of `like`. In main memory huge pages: rows lie far apart, and each would
    begin with a page that the processor has to look up."""
    plain = like.device.type == "cpu" and like.dtype == torch.float32
    return space(count) if plain else like.new_empty(count)


def _minus_inf(hidden: Tensor) -> Tensor:
    """0 where a key may be seen, −inf where it is hidden."""
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
