"""A diagnosis names the reason with the run's numbers; a run that learns is told that nothing was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli import main
from temper.record.warnings import forgot
from temper.report.explain import diagnose, is_flat, trend
from temper.report.heldout import findings

CONFIG = {"num_generations": 16, "learning_rate": 3e-6, "kl_penalty": 0.001, "reward_funcs": ["accuracy", "format"],
          "reward_weights": [1.0, 0.1], "num_mini_batches": 2, "num_iterations": 1}  # fmt: skip


def rows(count: int = 40, **last: float) -> list[dict]:
    """Steps along which each metric of `last` moves from 0.4 to the value given; the others stay."""
    start = {"reward/accuracy": 0.4, "reward/format": 0.9, "reward/total": 0.5, "groups/dead": 0.2,
             "policy/entropy": 0.4, "policy/kl_divergence": 0.01, "grader_failures": 0.0}  # fmt: skip
    ends = {name.replace("__", "/"): value for name, value in last.items()}
    return [
        {"step": step} | start | {n: 0.4 + (v - 0.4) * (step - 1) / (count - 1) for n, v in ends.items()}
        for step in range(1, count + 1)
    ]


def keys(found: list) -> set[str]:
    return {finding.key for finding in found}


def test_a_run_that_learns_has_no_reason_to_be_flat():
    learning = rows(reward__total=0.9, reward__accuracy=0.9)
    assert diagnose("grpo", CONFIG, learning) == []
    assert not is_flat(trend(learning))


@pytest.mark.parametrize(
    ("key", "config", "metrics", "numbers"),
    [
        ("never_right", {}, {"reward/accuracy": 0.0}, ["40 steps", "0.90"]),
        ("hardly_moved", {}, {"policy/kl_divergence": 2e-5}, ["2.0e-05", "3e-06"]),
        ("hardly_moved", {"kl_penalty": 0}, {"policy/kl_divergence": None}, ["0.400 to 0.400"]),
        ("signal_lost", {}, {"groups/dead": 0.45}, ["45%"]),
        ("anchored", {"kl_penalty": 1.0}, {}, ["1 ×", "0.0100"]),
        ("unweighted", {"reward_weights": [0.0, 1.0]}, {}, ["accuracy, format"]),
        ("failing", {}, {"grader_failures": 12.0}, ["12.0"]),
        ("mismatched", {}, {"policy/mismatch_mean": 0.2}, ["0.200"]),
        ("dead_groups", {}, {"groups/dead": 0.8}, ["80%"]),
    ],
)
def test_a_flat_reward_is_told_its_reason(key, config, metrics, numbers):
    found = diagnose("grpo", CONFIG | config, [row | metrics for row in rows()])
    assert {"flat", key} <= keys(found)
    text = next(finding.text for finding in found if finding.key == key)
    assert all(number in text for number in numbers), text


def test_few_steps_and_solved_prompts_are_notes_and_what_was_said_is_kept():
    assert [f.level for f in diagnose("grpo", CONFIG, rows(8)) if f.key == "flat"] == ["note"]
    solved = [row | {"reward/accuracy": 0.99, "policy/kl_divergence": 0.02} for row in rows()]
    assert [(f.key, f.level) for f in diagnose("grpo", CONFIG, solved)] == [("flat", "note")]
    said = [{"step": 3, "key": "truncation", "level": "warning", "text": "25% of completions hit the limit"}]
    found = diagnose("grpo", CONFIG, rows(reward__total=0.9), said)
    assert [f.text for f in found] == ["25% of completions hit the limit (said at step 3)"]


def test_a_skill_forgotten_is_a_warning_unless_the_last_model_has_it_back():
    config = CONFIG | {"tasks": ["sums"], "kl_penalty": 0}
    rising = rows(reward__total=0.9)
    before, after = {"sums": 0.5, "general": 0.9}, {"sums": 0.8, "general": 0.4}
    [lost] = findings(config, rising, before, after, after)
    assert (lost.key, lost.level) == ("forgot", "warning")
    assert all(number in lost.text for number in ("0.90", "0.40", "kl_penalty 0"))
    [back] = findings(config, rising, before, after, {"sums": 0.9, "general": 0.91})
    assert back.level == "note"
    assert findings(config | {"tasks": ["sums", "general"]}, rising, before, before, before) == []
    assert forgot(config, "general", 0.9, 0.85, 0.85) is None


def test_the_command_explains_a_run_stage_by_stage(finished_run: Path, capsys):
    assert main(["explain", str(finished_run), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert {stage["kind"] for stage in stages} == {"GRPO"}
    assert all(set(stage["trend"]["reward/total"]) for stage in stages)
    one = stages[0]["stage"]
    assert main(["explain", f"{finished_run}:{one}"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{one} (GRPO), step ")
    assert main(["explain", f"{finished_run}:reasoning_lr"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["explain", f"{finished_run}:cold_start"]) == 5
