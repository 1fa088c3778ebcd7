"""Log-ratios that no power can hold: values and gradients stay numbers, in both passes, and are exact below."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from temper.algorithms.kl import KL
from temper.algorithms.losses import SURROGATES, Bounds
from temper.algorithms.ratios import powers

FAR = (88.0, 88.8, 90.0, 200.0, 1e4, -88.8, -1e4)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("log_ratio", FAR)
@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("bounds", [Bounds(), Bounds(negative=3.0, cap=5.0)])
def test_a_surrogate_has_a_gradient_at_every_ratio(surrogate, log_ratio, advantage, bounds):
    old = torch.tensor([-log_ratio - 0.5])
    logprobs = torch.tensor([-0.5], requires_grad=True)
    loss = SURROGATES[surrogate](logprobs, logprobs - old, torch.tensor([advantage]), bounds)
    loss.sum().backward()
    assert not loss.isnan().any()
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize("estimator", [name for name in KL if name != "k1"])
@pytest.mark.parametrize("log_ratio", [0.0, *FAR])
@pytest.mark.parametrize("u", [0.0, 50.0, *FAR])
def test_a_divergence_has_a_gradient_at_every_distance(estimator, log_ratio, u):
    logprobs = torch.tensor([-0.5], requires_grad=True)
    value = KL[estimator](logprobs, torch.tensor([u - 0.5]), logprobs - torch.tensor([-0.5 - log_ratio]))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logprobs.grad).all()


@given(st.floats(-80, 88), st.sampled_from([1.0, -1.0]))
def test_below_the_limit_the_clipped_surrogate_is_the_formula(log_ratio, advantage):
    x = torch.tensor([log_ratio], dtype=torch.float32, requires_grad=True)
    a = torch.tensor([advantage])
    loss = SURROGATES["clip"](x, x, a, Bounds())
    loss.backward()
    ratio = x.detach().exp()
    assert loss.item() == -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a).item()
    clipped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    assert x.grad.item() == (0.0 if clipped else (-ratio * a).item())


@given(st.floats(-20, 40), st.floats(-20, 40))
def test_below_the_limit_the_corrected_divergence_is_the_product(u, log_ratio):
    x, reference = torch.tensor([-1.0]), torch.tensor([u - 1.0])
    gap = reference - x
    expected = torch.tensor([log_ratio]).exp() * (torch.expm1(gap) - gap)
    assert KL["k3_corrected"](x, reference, torch.tensor([log_ratio])).item() == expected.item()


@given(st.floats(-700, 700))
def test_a_wider_type_reaches_further(x):
    assert powers(torch.tensor([x], dtype=torch.float64)).item() == torch.tensor([x], dtype=torch.float64).exp().item()
