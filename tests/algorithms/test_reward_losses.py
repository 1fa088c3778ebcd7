"""Reward-model losses against formulas written out in float64, their gradients, and the limits they have."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from temper.algorithms.reward_losses import binary, bradley_terry, calibration_error, centring

SCORES = st.floats(-20, 20)


@given(SCORES, SCORES, st.floats(0, 5))
def test_bradley_terry_is_the_formula_and_depends_on_the_difference_alone(chosen, rejected, margin):
    def loss(a: float, b: float) -> float:
        one, other = (torch.tensor([value], dtype=torch.float64) for value in (a, b))
        return bradley_terry(one, other, torch.tensor([margin], dtype=torch.float64)).item()

    gap = chosen - rejected - margin
    expected = math.log1p(math.exp(-gap)) if gap > 0 else math.log1p(math.exp(gap)) - gap
    assert loss(chosen, rejected) == pytest.approx(expected, abs=1e-12)
    assert loss(chosen + 3, rejected + 3) == pytest.approx(expected, abs=1e-9)


@given(SCORES, SCORES)
def test_bradley_terrys_gradient_is_the_probability_of_the_wrong_order(chosen, rejected):
    one, other = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (chosen, rejected))
    bradley_terry(one, other).sum().backward()
    wrong = 1 / (1 + math.exp(chosen - rejected))
    assert one.grad.item() == pytest.approx(-wrong, abs=1e-12)
    assert other.grad.item() == pytest.approx(wrong, abs=1e-12)


@given(SCORES, st.floats(0, 1))
def test_the_binary_loss_is_least_where_the_probability_is_the_label(score, label):
    value = torch.tensor([score], dtype=torch.float64, requires_grad=True)
    loss = binary(value, torch.tensor([label], dtype=torch.float64))
    loss.sum().backward()
    probability = 1 / (1 + math.exp(-score))
    expected = -label * math.log(probability) - (1 - label) * math.log1p(-probability)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert value.grad.item() == pytest.approx(probability - label, abs=1e-12)


def test_centring_leaves_differences_alone():
    chosen, rejected = torch.tensor([4.0, 2.0]), torch.tensor([1.0, -2.0])
    assert centring(chosen, rejected).tolist() == [25.0, 0.0]


def test_scores_far_out_stay_finite():
    far = torch.tensor([1e4, -1e4])
    assert torch.isfinite(bradley_terry(far, -far)).all()
    assert torch.isfinite(binary(far, torch.tensor([0.0, 1.0]))).all()


def test_calibration_error_by_hand():
    said = torch.tensor([0.05, 0.05, 0.95, 1.0, 0.45])
    seen = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    assert calibration_error(said, seen) == pytest.approx((0.9 + 0.05 + 0.45) / 5)
    assert calibration_error(torch.zeros(0), torch.zeros(0)) == 0
