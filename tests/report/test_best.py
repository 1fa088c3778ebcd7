"""Which setting of a sweep is best: said with the noise of the seeds, never beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.report.best import best_settings, sentences
from temper.report.sweep import merge_seeds, render
from temper.report.sweep_page import page


def runs(scores: dict[int, list[float]], name: str = "rl/sums/accuracy") -> list[dict]:
    return [
        {"values": {"rl.lr": lr}, "seed": seed, "state": "done", "run": f"r/{lr}-{seed}", "steps": 5, "metrics": {},
         "at": {}, "held_out": {name: score, "rl/sums/format": 1.0}}
        for lr, of_seed in scores.items()
        for seed, score in enumerate(of_seed)
    ]  # fmt: skip


def said(scores: dict[int, list[float]]) -> list[str]:
    return sentences(best_settings(runs(scores), "rl"), lambda values: f"lr {values['rl.lr']}")


def test_what_the_seeds_bear_out_and_what_they_do_not():
    (line,) = said({1: [0.50, 0.52, 0.51], 2: [0.90, 0.91, 0.92], 3: [0.93, 0.86, 0.91]})
    best, lower, close = line.split("; ")
    assert best == "rl/sums/accuracy: lr 2 is best (0.910)"
    assert lower.startswith("lower beyond the noise of 3 seeds: lr 1 (-0.400 [-0.4")
    assert close.startswith("too close to call on 3 seeds: lr 3 (-0.010 [-0.1")


def test_one_seed_is_never_told_as_a_difference():
    first, advice = said({1: [0.5], 2: [0.9]})
    assert first == "rl/sums/accuracy: lr 2 is best (0.900); behind on one seed: lr 1 (-0.400)"
    assert "--seeds 0,1,2" in advice


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=4), min_size=2, max_size=4))
def test_no_other_setting_is_above_the_best(scores):
    (found,) = best_settings(runs(dict(enumerate(scores))), "rl")
    assert all(other["mean"] <= found["mean"] + 1e-6 for other in found["others"])
    assert len(found["others"]) == len(scores) - 1


@pytest.mark.parametrize("points", [[], [{"values": {"lr": 1}, "seed": 0}], runs({1: [0.5]})])
def test_nothing_is_said_where_nothing_can_be_compared(points):
    assert best_settings(points, "rl") == []


def test_models_further_down_are_compared_where_the_swept_stage_was_not_measured():
    (found,) = best_settings(runs({1: [0.1], 2: [0.2]}, "last/sums/accuracy"), "world")
    assert found["score"] == "last/sums/accuracy"


def test_the_terminal_and_the_page_say_it(tmp_path):
    points = runs({1: [0.5, 0.5], 2: [0.9, 0.9]})
    data = {
        "recipe": "r", "stage": "rl", "window": 5, "seeds": [0, 1], "points": points, "rows": merge_seeds(points),
        "best": best_settings(points, "rl"), "over": [{"keys": ["rl.lr"]}],
    }  # fmt: skip
    wanted = "rl/sums/accuracy: lr 2 is best (0.900); lower beyond the noise of 2 seeds: lr 1 (-0.400 [-0.400, -0.400])"
    assert wanted in render(data)
    assert wanted in page(data)
