"""Packed attention, its two parts merged, is plain softmax attention: values and gradients, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from temper.kernels.attention import Options
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def layout(families: Sequence[tuple[int, Sequence[int]]], prefixes_first: bool = False) -> tuple[list[Row], Tensor]:
    """Rows and positions of prefixes, each with runs after it; a prefix of length 0 is none. All prefixes first, as a
    batch lays them, or each before its runs."""
    rows: list[Row] = []
    positions: list[int] = []

    def lay(length: int) -> range:
        place = range(len(positions), len(positions) + length)
        positions.extend(range(length))
        if length:
            rows.append(Row(place))
        return place

    laid = [lay(length) for length, _ in families] if prefixes_first else []
    for number, (prefix_length, runs) in enumerate(families):
        prefix = laid[number] if prefixes_first else lay(prefix_length)
        for length in runs:
            rows.append(Row(range(len(positions), len(positions) + length), prefix))
            positions += range(prefix_length, prefix_length + length)
    return rows, torch.tensor(positions)


def plain(query: Tensor, key: Tensor, value: Tensor, rows: Sequence[Row], options: Options) -> Tensor:
    """One row at a time, one score matrix a row."""
    out = torch.zeros_like(query)
    for row in rows:
        seen = [*row.prefix, *row.own]
        keys, values = (x[:, :, seen].repeat_interleave(HEADS // KEY_HEADS, 1) for x in (key, value))
        scores = query[:, :, list(row.own)] @ keys.transpose(-1, -2) * options.scale
        if options.softcap is not None:
            scores = torch.tanh(scores / options.softcap) * options.softcap
        at, places = torch.arange(len(row.own)) + len(row.prefix), torch.arange(len(seen))
        hidden = places > at[:, None]
        if options.window is not None:
            hidden |= at[:, None] - places >= options.window
        mixed = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ values
        out = out.index_copy(2, torch.tensor(list(row.own)), mixed)
    return out


families = st.lists(
    st.tuples(st.integers(0, 9), st.lists(st.integers(1, 12), min_size=1, max_size=6)), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    "options", [Options(0.3, None, None), Options(0.3, 5, None), Options(0.3, None, 2.0)], ids=["full", "window", "cap"]
)
@given(families=families, prefixes_first=st.booleans())
@example(families=[(1, [3]), (2, [2])], prefixes_first=True)  # padding right after the last token of all
@settings(max_examples=40, deadline=None)
def test_values_and_gradients_are_those_of_plain_attention(
    options: Options, families: list, prefixes_first: bool
) -> None:
    rows, positions = layout(families, prefixes_first)
    generator = torch.Generator().manual_seed(len(positions))
    shapes = [(1, heads, len(positions), SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS, HEADS)]
    *inputs, weights = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found = AttentionPlan(rows, positions).attend(0, *inputs, options)
    expected = plain(*inputs, rows, options).transpose(1, 2)
    assert (found - expected).abs().max() < 1e-10
    ours = torch.autograd.grad((found * weights.transpose(1, 2)).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights.transpose(1, 2)).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-10


def test_more_rows_than_a_block_holds() -> None:
    rows, positions = layout([(3, [5] * 70), (0, [4] * 70), *[(2 + i, [3, 1]) for i in range(20)]])
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    inputs = [torch.randn(1, number, len(positions), SIZE, dtype=torch.float64) for number in heads]
    options = Options(0.3, None, None)
    found = AttentionPlan(rows, positions).attend(0, *inputs, options)
    assert (found - plain(*inputs, rows, options).transpose(1, 2)).abs().max() < 1e-10
