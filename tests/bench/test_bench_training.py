"""The scripts that measure whole trainings: what counts as the target reached, as growth, as compiled again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))

from end_to_end import Step, Training, ancestors, best, figures, ratios, write_recipe
from memory import judge

from temper.recipe.reader import load_recipe


def training(*accuracies: float, seconds: float = 1.0) -> Training:
    return Training([Step(seconds, 2 * seconds, accuracy) for accuracy in accuracies], 100.0, 150.0, 10)


def test_time_to_a_target_is_that_of_the_steps_up_to_it() -> None:
    fast, slow = training(*[0.5] * 5, *[1.0] * 5), training(*[0.5] * 5, *[1.0] * 5, seconds=3.0)
    ours, theirs = best([slow, fast], 0.8), figures(slow, 0.8)
    assert ours["to_target"] == {"steps": 8, "seconds": 8.0, "cpu_seconds": 16.0}
    assert ratios(ours, theirs) == dict.fromkeys(
        ("step_seconds", "step_cpu_seconds", "to_target_seconds", "to_target_cpu_seconds"), 3.0
    )


def test_a_target_that_was_not_reached_gives_no_ratio() -> None:
    never = figures(training(*[0.5] * 6), 0.8)
    assert never["to_target"] is None
    assert ratios(never, never)["to_target_seconds"] is None


def test_a_shortened_recipe_has_the_stage_and_what_it_needs(tmp_path: Path) -> None:
    recipe, _ = load_recipe("tiny")
    stages = ancestors(recipe, "reasoning_rl")
    assert stages == ["world", "base", "cold_start", "reasoning_rl"]
    shortened, faults = load_recipe(str(write_recipe(recipe, stages, tmp_path / "short.yaml")))
    assert not faults
    assert shortened.by_name["reasoning_rl"].config == recipe.by_name["reasoning_rl"].config


@pytest.mark.parametrize(
    ("memories", "graphs", "steady"),
    [
        ([50, *[100] * 19], [0] * 20, True),
        ([100 + i for i in range(20)], [0] * 20, False),
        ([100] * 20, [4] * 20, True),
        ([100] * 20, [*[4] * 19, 5], False),
    ],
)
def test_growth_and_late_compilations_are_found(memories: list[int], graphs: list[int], steady: bool) -> None:
    assert judge(memories, graphs)["steady"] is steady
