"""Advice on learning rates agrees with itself, and with what the shipped recipes do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.recipe.reader import load_recipe
from temper.record.learning_rates import advice, highest, usual
from temper.record.metrics import RL_KINDS

SIZES = {"tiny": 0.93e6, "tiny_rl": 0.93e6, "tiny_five": 0.93e6, "tiny_think": 0.93e6, "smol_135m": 135e6}


@given(st.floats(1e5, 1e12), st.booleans(), st.booleans())
def test_what_is_usual_is_never_high(parameters: float, rl: bool, adapters: bool) -> None:
    low, high = usual(parameters, rl, adapters)
    assert 0 < low <= high < highest(parameters, rl, adapters)
    kind = "grpo" if rl else "sft"
    config = {"learning_rate": high, "lora": {} if adapters else None}
    assert advice(kind, config, parameters) is None


@given(st.floats(1e5, 1e12), st.floats(1.0, 10.0), st.booleans())
def test_larger_models_bear_less(parameters: float, more: float, rl: bool) -> None:
    for ours, theirs in zip(usual(parameters, rl), usual(parameters * more, rl), strict=True):
        assert theirs <= ours * (1 + 1e-9)


@pytest.mark.parametrize("name", SIZES)
def test_rates_of_shipped_recipes_are_usual(name: str) -> None:
    recipe, _ = load_recipe(name, [])  # a model of the Hub need not be there
    stages = [stage for stage in recipe.stages if stage.kind in (*RL_KINDS, "sft")]
    assert stages
    for stage in stages:
        low, high = usual(SIZES[name], stage.kind in RL_KINDS)
        assert 0.999 * low <= vars(stage.config)["learning_rate"] <= 1.001 * high, stage.name
