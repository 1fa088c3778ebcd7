"""Rewards that are equal but for rounding teach nothing, whatever the advantage; others are told apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from temper.algorithms.advantages import ADVANTAGES, decoupled, differ, is_dead

REWARDS = st.floats(0.001, 1000, allow_nan=False)


def nearby(value: float, steps: int) -> float:
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    return value


# Without a baseline of the group, one that is equal but better than the batch is a signal (REINFORCE++).
@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name != "batch_whitened"])
@given(value=REWARDS, steps=st.lists(st.integers(-2, 2), min_size=2, max_size=8))
def test_some_units_in_the_last_place_are_no_signal(name: str, value: float, steps: list[int]) -> None:
    group = torch.tensor([[nearby(value, step) for step in steps], [0.0] + [1.0] * (len(steps) - 1)]).double()
    group[0] = torch.tensor([nearby(value, step) for step in steps], dtype=torch.float64)
    advantages = ADVANTAGES[name](group)
    assert advantages[0].tolist() == [0.0] * len(steps)
    assert advantages[1].abs().max() > 0
    assert not differ(group[0].tolist())


@given(value=REWARDS, negative=st.booleans(), share=st.floats(1e-12, 0.5))
def test_what_differs_by_more_is_a_signal(value: float, negative: bool, share: float) -> None:
    value = -value if negative else value
    assert differ([value, value * (1 + share)])
    assert not bool(is_dead(torch.tensor([0.0, value], dtype=torch.float64)))


def test_the_best_are_the_best_up_to_rounding() -> None:
    rewards = torch.tensor([0.1 + 0.2, 0.3, 0.0], dtype=torch.float64)
    assert ADVANTAGES["best"](rewards).tolist() == [1.0, 1.0, 0.0]


def test_decoupled_learns_no_residue() -> None:
    equal = torch.tensor([[[0.1 + 0.2, 0.3]], [[0.7, 0.1 * 7]]], dtype=torch.float64)
    assert decoupled(equal, [1.0, 1.0]).tolist() == [[0.0, 0.0]]
    one = torch.tensor([[0.1, 0.2, 0.4]], dtype=torch.float64)
    cancelling = torch.stack([one, torch.tensor([[-0.1, -0.3 + 0.1, -0.4]], dtype=torch.float64)])
    assert decoupled(cancelling, [3.0, 3.0]).tolist() == [[0.0, 0.0, 0.0]]


def test_decoupled_leaves_out_what_does_not_apply() -> None:
    nan = math.nan
    whole = torch.tensor([[[1.0, 0.0, 1.0]]], dtype=torch.float64)
    table = torch.cat([whole, torch.tensor([[[nan, 2.0, 4.0]]], dtype=torch.float64)])
    found = decoupled(table, [0.0, 1.0])[0]
    assert found[0] == 0.0
    assert found[2] > 0 > found[1]
    none = torch.cat([whole, torch.full((1, 1, 3), nan, dtype=torch.float64)])
    assert torch.equal(decoupled(none, [1.0, 1.0]), decoupled(whole, [1.0]))
