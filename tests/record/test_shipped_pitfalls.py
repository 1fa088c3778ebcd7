"""Every pitfall is warned of in a run of a shipped recipe that falls into it, and in none that is as it is shipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from temper.planning.elsewhere import sketch
from temper.recipe.sources import shipped_recipes
from temper.record.learning_rates import highest
from temper.record.metrics import RL_KINDS
from temper.record.warnings import find

USERS_MODEL = 1.5e9  # of own_data, whose model is anybody's
Stage = tuple[str, dict[str, Any], float]


def of_recipe(name: str) -> list[Stage]:
    """Each RL stage of a recipe: its kind, its config, and the size of its policy, whose files need not be here."""
    found = sketch(name)
    stages = [stage for stage in found.recipe.stages if stage.kind in RL_KINDS]
    configs = [stage.config.model_dump() for stage in stages]
    sizes = [size.parameters if (size := found.sizes[config["model"]]) else USERS_MODEL for config in configs]
    return list(zip([stage.kind for stage in stages], configs, sizes, strict=True))


STAGES = {f"{name}-{i}": stage for name in shipped_recipes() for i, stage in enumerate(of_recipe(name))}


def rows(parameters: float, **metrics: float | None) -> list[dict[str, Any]]:
    """A run in which accuracy rises from 0.2 to 0.8, near its reference, in form, with a third of its groups dead."""
    return [
        {"step": step, "of": 30, "policy/parameters": parameters, "reward/accuracy": 0.2 + 0.02 * step,
         "reward/format": 0.9, "reward/total": 0.3 + 0.02 * step, "policy/kl_divergence": 0.02, "groups/dead": 0.3,
         "policy/clip_fraction": 0.01, "completion/truncated": 0.02, "loss": 1e-4}
        | {name.replace("__", "/"): value for name, value in metrics.items()}
        for step in range(1, 31)
    ]  # fmt: skip


def warned(stage: Stage, changed: dict[str, Any], **metrics: float | None) -> list[str]:
    kind, config, parameters = stage
    found = find(kind, {**config, **changed}, rows(parameters, **metrics))
    return [finding.key for finding in found if finding.level == "warning"]


def test_recipes_of_every_size_are_tried():
    sizes = [parameters for _, _, parameters in STAGES.values()]
    assert len(STAGES) > 20
    assert min(sizes) < 1e6 < 1.5e9 < max(sizes)


@pytest.mark.parametrize("name", STAGES)
def test_a_healthy_run_of_a_shipped_recipe_hears_no_warning(name):
    assert warned(STAGES[name], {}) == []


def too_high(stage: Stage) -> dict[str, Any]:
    _, config, parameters = stage
    return {"learning_rate": 2 * highest(parameters, rl=True, adapters=config["lora"] is not None)}


FORM_PAYS = {"reward_funcs": ["accuracy", "format"], "reward_weights": [0.2, 1.0]}
# by the key of the warning: what is changed in the config, and in what is measured
PITFALLS: dict[str, tuple[Callable[[Stage], dict[str, Any]], dict[str, float | None]]] = {
    "few_generations": (lambda stage: {"num_generations": 4}, {}),
    "learning_rate_high": (too_high, {}),
    "kl_zero": (lambda stage: {"kl_penalty": 0.0, "measure_kl": True}, {"policy__kl_divergence": 0.2}),
    "kl_high": (lambda stage: {"kl_penalty": 0.01}, {"policy__kl_divergence": 0.2}),
    "format_weight": (lambda stage: {**FORM_PAYS, "supervision": "outcome"}, {}),
    "truncation": (lambda stage: {}, {"completion__truncated": 0.4}),
    "dead_groups": (lambda stage: {}, {"groups__dead": 0.9, "reward__accuracy": 0.05, "reward__format": 0.4}),
}  # fmt: skip


@pytest.mark.parametrize("pitfall", PITFALLS)
@pytest.mark.parametrize("name", STAGES)
def test_a_run_of_a_shipped_recipe_that_falls_into_a_pitfall_is_warned_of_it_alone(name, pitfall):
    kind, *_ = stage = STAGES[name]
    changed, metrics = PITFALLS[pitfall]
    if kind != "grpo" and pitfall in ("few_generations", "dead_groups"):
        pytest.skip("PPO compares no completions of one prompt")
    assert warned(stage, changed(stage), **metrics) == [pitfall]


@pytest.mark.parametrize("name", STAGES)
def test_drift_that_nobody_measures_is_told_with_the_key_that_measures_it(name):
    kind, config, parameters = STAGES[name]
    unmeasured = [{**row, "policy/kl_divergence": None} for row in rows(parameters)]
    notes = [finding for finding in find(kind, {**config, "kl_penalty": 0.0}, unmeasured) if finding.key == "kl_zero"]
    assert [note.level for note in notes] == ["note"]
    assert "measure_kl: true" in notes[0].text
