"""Attention of packed rows in one C call is plain softmax attention, bit for bit the same beside any other rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from temper.kernels import rows
from temper.kernels.runs import Row

pytestmark = pytest.mark.skipif(not rows.works_on(torch.zeros(1, 1, 16), 1), reason="needs a C compiler")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def layout(families: Sequence[tuple[int, Sequence[int]]]) -> tuple[list[Row], int]:
    """A prefix of so many tokens, or none for 0, and the runs that share it, one family after another."""
    laid, end = [], 0
    for prefix_length, runs in families:
        prefix = range(end, end + prefix_length)
        laid += [Row(prefix)] if prefix_length else []
        end += prefix_length
        for length in runs:
            laid.append(Row(range(end, end + length), prefix if prefix_length else range(0)))
            end += length
    return laid, end


def plain(query: Tensor, key: Tensor, value: Tensor, laid: Sequence[Row], scale: float) -> Tensor:
    group = query.shape[1] // key.shape[1]
    parts = []
    for row in laid:
        seen = [*row.prefix, *row.own]
        keys, values = (x[seen].repeat_interleave(group, 1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[list(row.own)], keys) * scale
        at = torch.arange(len(row.own)) + len(row.prefix)
        weights = scores.masked_fill(torch.arange(len(seen)) > at[:, None], float("-inf")).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(parts)


def with_gradients(attend: Attend, inputs: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


def random_inputs(tokens: int, key_heads: int, group: int, size: int, seed: int = 0) -> list[Tensor]:
    """Query, key, value, and weights of the output."""
    draw = torch.Generator().manual_seed(seed)
    heads = key_heads * group
    return [torch.randn(tokens, count, size, generator=draw) for count in (heads, key_heads, key_heads, heads)]


@given(
    families=st.lists(
        st.tuples(st.integers(0, 70), st.lists(st.integers(0, 40), min_size=1, max_size=4)), min_size=1, max_size=3
    ),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    size=st.sampled_from([16, 32, 48, 112]),
    loud=st.sampled_from([1.0, 30.0]),
)
@settings(max_examples=40)
def test_values_and_gradients_are_those_of_plain_attention(
    families: list, key_heads: int, group: int, size: int, loud: float
) -> None:
    laid, tokens = layout(families)
    *inputs, weights = random_inputs(tokens, key_heads, group, size)
    inputs[0] *= loud  # one key has nearly all the weight
    table, scale = rows.table_of(laid), size**-0.5
    found = with_gradients(lambda *x: rows.attend_rows(*x, table, scale), inputs, weights)
    expected = with_gradients(lambda *x: plain(*x, laid, scale), [x.double() for x in inputs], weights.double())
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=2e-5 * loud)


def test_a_row_has_the_same_bits_beside_any_others() -> None:
    laid, tokens = layout([(14, [9]), (0, [30]), (33, [5, 17, 32])])
    inputs = random_inputs(tokens, 2, 2, 32)[:3]
    together = rows.attend_rows(*inputs, rows.table_of(laid), 0.2)
    for row in laid:
        alone = rows.attend_rows(*inputs, rows.table_of([row]), 0.2)
        own = list(row.own)
        assert torch.equal(alone[own], together[own])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    laid, tokens = layout([(14, [9, 40]), (0, [30])])
    *inputs, weights = random_inputs(tokens, 3, 2, 32)

    def attend(*x: Tensor) -> Tensor:
        return rows.attend_rows(*x, rows.table_of(laid), 0.2)

    torch.set_num_threads(1)
    alone = with_gradients(attend, inputs, weights)
    torch.set_num_threads(threads)
    assert all(map(torch.equal, with_gradients(attend, inputs, weights), alone))


def test_views_of_wider_tensors_are_read_where_they_lie() -> None:
    laid, tokens = layout([(5, [7, 3])])
    wide = torch.randn(tokens, 4 * 16, generator=torch.Generator().manual_seed(1))
    views = [part.unflatten(-1, (-1, 16)) for part in wide.split([32, 16, 16], -1)]
    copies = [view.contiguous() for view in views]
    weights, table = torch.randn(tokens, 2, 16), rows.table_of(laid)
    found = with_gradients(lambda *x: rows.attend_rows(*x, table, 0.2), views, weights)
    assert all(map(torch.equal, found, with_gradients(lambda *x: rows.attend_rows(*x, table, 0.2), copies, weights)))


def test_what_it_is_not_made_for_goes_another_way() -> None:
    assert not rows.works_on(torch.zeros(1, 1, 24), 10)
    assert not rows.works_on(torch.zeros(1, 1, 16, dtype=torch.float64), 10)
    assert not rows.works_on(torch.zeros(1, 1, 16), rows.MOST + 1)
