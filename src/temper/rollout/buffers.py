"""The tensors that a `SlotEngine` decodes in: they never move, so that a captured step goes on reading them.

A slot holds one row: its state, its own keys and values, its tokens. Prompts stand once for all their rows, a prefix
common to all prompts once for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from temper.kernels import draw_triton
from temper.kernels.attention import Layers, Options, Partial
from temper.kernels.decode_triton import Runs, attend_parts, blank, count_pieces, merge_pieces, uses_kernel
from temper.kernels.draw_triton import Slots
from temper.kernels.fused_triton import Places
from temper.rollout.draw import draw_tokens, plain, uniform
from temper.rollout.engine import Sampling
from temper.rollout.flight import Pending
from temper.rollout.prefill import Prefilled

MARGIN = 0.9  # of the free memory is used
SCRATCH = 32  # bytes that a step needs for each slot and token of the vocabulary
START, LIMIT, LENGTH, ALIVE = 2, 3, 4, 5  # rows of the slots' state; the first two are the draw's key and position

Heads = Sequence[tuple[int, int, int]]  # of each layer: key heads, size of a key, size of a value


@dataclass(frozen=True)
class Layout:
    """How much the static tensors hold: slots, tokens a row may draw, prompts, tokens of a prompt after the prefix that
    all share, tokens of that prefix, and rows of one prompt at a time."""

    slots: int
    columns: int
    runs: int
    tokens: int
    prefix: int
    group: int

    @staticmethod
    def of(wave: Sequence[Pending], prefix: int, slots: int) -> Layout:
        """For decoding `wave`, rounded up so that similar waves have the same."""
        slots = bucket(len(wave), slots)
        asked = Counter(row.tokens for row in wave)
        columns, tokens = max(row.limit for row in wave), max(map(len, asked)) - prefix
        group = bucket(max(asked.values()), slots)
        return Layout(slots, _up(columns), bucket(len(asked), slots), _up(tokens), _up(prefix), group)

    def covers(self, other: Layout) -> bool:
        return all(a >= b for a, b in zip(astuple(self), astuple(other), strict=True))

    def joined(self, other: Layout) -> Layout:
        return Layout(*map(max, astuple(self), astuple(other)))

    def at_most(self, slots: int) -> Layout:
        return replace(self, slots=slots, runs=min(self.runs, slots), group=min(self.group, slots))


def slot_bytes(layout: Layout, token: int) -> int:
    """Bytes of the static tensors of `layout`, where a token's keys and values are `token` bytes in all layers.

    >>> slot_bytes(Layout(2, 64, 1, 64, 0, 1), token=256) - slot_bytes(Layout(2, 64, 1, 0, 0, 1), token=256)
    16384
    """
    cache = token * (layout.slots * layout.columns + layout.runs * layout.tokens + layout.prefix)
    numbers = 8 * (7 * layout.slots + 3 + layout.runs * (3 + layout.group))
    return cache + numbers + 12 * layout.slots * (layout.columns + 1)


def fitting(layout: Layout, token: int, vocabulary: int, free: float) -> Layout:
    """`layout`, its slots halved until it and what a step needs beside it fit into `free` bytes."""
    while layout.slots > 1 and slot_bytes(layout, token) + layout.slots * vocabulary * SCRATCH > MARGIN * free:
        layout = layout.at_most((layout.slots + 1) // 2)
    return layout


def bucket(rows: int, slots: int) -> int:
    """How many slots a step computes for `rows`: a power of two, or all.

    >>> [bucket(rows, 7) for rows in (1, 2, 3, 5)]
    [1, 2, 4, 7]
    """
    return min(slots, 1 << (rows - 1).bit_length())


def _up(tokens: int) -> int:
    return -(-tokens // 64) * 64


class Buffers:
    """The static tensors."""

    def __init__(self, layout: Layout, heads: Heads, dtype: torch.dtype, device: torch.device):
        def cache(count: int, tokens: int) -> Layers:
            made = [[(count, kv, tokens, size) for size in (key, value)] for kv, key, value in heads]
            return [tuple(torch.zeros(shape, dtype=dtype, device=device) for shape in pair) for pair in made]  # type: ignore

        numbers = partial(torch.zeros, dtype=torch.long, device=device)
        self.layout, self.device = layout, device
        self.own, self.prompts = cache(layout.slots, layout.columns), cache(layout.runs, layout.tokens)
        self.prefix = cache(1, layout.prefix)
        self.state = numbers(6, layout.slots)
        self.tokens = numbers(layout.slots, layout.columns + 1)  # the last column is for rows that have ended
        self.logprobs = torch.zeros(self.tokens.shape, device=device)
        self.runs, self.rows = numbers(3, layout.runs), numbers(layout.runs, layout.group)
        self.prefix_run = numbers(3, 1)
        self.slots = torch.arange(layout.slots, device=device)
        self.cut = 0  # tokens of the common prefix

    @property
    def drawn(self) -> Slots:
        return Slots(self.state, self.tokens, self.logprobs)

    def reset(self, cut: int) -> None:
        """For a new call, whose prompts all begin with the same `cut` tokens. Empty slots are rows that have ended."""
        self.cut = cut
        self.prefix_run[1] = cut
        self.state.zero_()[LENGTH] = 1

    def parts(self, slots: int) -> list[tuple[Layers, Runs]]:
        """What the first `slots` slots look at: their own tokens, their prompts, the prefix of all prompts."""
        here, state = self.slots[:slots], self.state[:, :slots]
        own = Runs(here, state[LENGTH], state[START], here[:, None])
        prompts = Runs(*self.runs[:, :slots], self.rows[:slots, :slots])  # type: ignore[call-arg]
        common = [(self.prefix, Runs(*self.prefix_run, here[None]))] if self.cut else []  # type: ignore[call-arg]
        return [(self.own, own), (self.prompts, prompts), *common]

    def draw(self, slots: Tensor, logits: Tensor, sampling: Sampling, stop_ids: Tensor) -> None:
        """Write down the next token of `slots` [n]; one whose row has ended stays as it is."""
        if uses_kernel(self.device) and plain(sampling):
            return draw_triton.draw(self.drawn, slots, logits, sampling.temperature, stop_ids)
        keys, drawn, _, limits, lengths, alive = self.state[:, slots]
        tokens, logprobs = draw_tokens(logits, uniform(keys, drawn + lengths), sampling)
        self.tokens[slots, lengths], self.logprobs[slots, lengths] = tokens, logprobs
        self.state[LENGTH, slots] = lengths + alive
        stopped = (tokens[:, None] == stop_ids).any(-1)
        self.state[ALIVE, slots] = alive * (lengths + 1 < limits) * ~stopped

    def fed(self, slots: int) -> tuple[Tensor, Tensor, Tensor]:
        """(the last token, its column, its position) of each of the first `slots` slots."""
        if uses_kernel(self.device):
            return draw_triton.fed(self.drawn, slots)
        columns = self.state[LENGTH, :slots] - 1
        return self.tokens[self.slots[:slots], columns], columns, self.state[START, :slots] + columns

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Rows change slots."""
        source, target = torch.tensor([sources, targets], device=self.device)
        self.state[:, target] = self.state[:, source]
        used = int(self.state[LENGTH, target].max())
        for tensor in (self.tokens, self.logprobs):
            tensor[target, :used] = tensor[source, :used]
        for tensor in _flat(self.own):
            tensor[target, :, :used] = tensor[source, :, :used]

    def lay(self, filled: Prefilled, places: Sequence[int]) -> None:
        """Keep what a prefill found at `places`, but for the common prefix, which stands once for all."""
        at = torch.tensor(places, device=self.device)
        heads = _flat(filled.prefix) or [run[:1, :, :0] for run in _flat(filled.runs)]
        for into, common, run, head in zip(*map(_flat, (self.prompts, self.prefix, filled.runs)), heads, strict=True):
            common[:, :, : self.cut] = torch.cat([head, run[:1]], 2)[:, :, : self.cut]
            run = run[:, :, max(0, self.cut - filled.cut) :]
            if filled.cut > self.cut:  # these few have more in common than all
                run = torch.cat([head[:, :, self.cut :].expand(len(run), -1, -1, -1), run], 2)
            into[at, :, : run.shape[2]] = run

    def look(self, groups: Sequence[tuple[int, int, list[int]]]) -> None:
        """From now on, of each (place, tokens, slots), the slots look at the prompt that stands at the place."""
        runs, rows = torch.zeros_like(self.runs, device="cpu"), torch.full_like(self.rows, -1, device="cpu")
        for run, (place, tokens, slots) in enumerate(groups):
            runs[:, run] = torch.tensor([place, tokens - self.cut, self.cut])
            rows[run, : len(slots)] = torch.tensor(slots)
        self.runs.copy_(runs)
        self.rows.copy_(rows)


def _flat(layers: Layers) -> list[Tensor]:
    return [tensor for pair in layers for tensor in pair]


class SlotAttention:
    """An attention plan for a decode step of the first `slots` slots."""

    def __init__(self, buffers: Buffers, slots: int):
        self.own, self.slots = buffers.own, buffers.slots[:slots]
        # the token that is fed, where it goes, and its position
        self.fed, self.columns, self.positions = buffers.fed(slots)
        self.parts = buffers.parts(slots)
        self.blanks: dict[tuple[int, ...], Partial] = {}  # made once: every layer writes the same places

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        for into, new in zip(self.own[layer], (key, value), strict=True):
            into[self.slots, :, self.columns] = new[:, :, 0]
        return self.look(layer, query[:, :, 0], options)[:, None]

    def places(self, layer: int) -> Places:
        """Where the keys and values of the tokens that are fed go, for who writes them there himself and then looks."""
        return Places(*self.own[layer], self.columns)

    def look(self, layer: int, asked: Tensor, options: Options) -> Tensor:
        """What the queries [S, H, D] find in all that their rows hold."""
        parts = [(*layers[layer], runs) for layers, runs in self.parts]
        pieces = [count_pieces(runs, keys, asked.shape[1]) for keys, _, runs in parts]
        kind = (sum(pieces), asked.shape[1], parts[0][1].shape[-1])
        if kind not in self.blanks:
            self.blanks[kind] = blank(kind[0], len(asked), *kind[1:], asked.device)
        attend_parts(asked, parts, self.positions, options, pieces, self.blanks[kind])
        return merge_pieces(self.blanks[kind], asked.dtype)
