"""`temper samples` shows exactly the completions that fit, and says what it does not know."""

from __future__ import annotations

import argparse
import json

import pytest

from temper.commands import samples
from temper.errors import ArtifactError, ConfigError, TemperError
from temper.report.find import Query, find
from temper.report.picks import folded


def parse(*words: str) -> Query:
    parser = argparse.ArgumentParser()
    samples.add_arguments(parser)
    return samples.to_query(parser.parse_args(["run", *words]))


def test_held_out_samples_are_the_default_and_rollouts_are_found_by_step(finished_run):
    held_out = find(finished_run, Query(stage="reasoning_rl"))
    assert len(held_out) == 600
    assert all("step" not in row for row in held_out)
    rollouts = find(finished_run, Query(stage="reasoning_rl", step=60))
    assert len(rollouts) == 64
    assert {row["step"] for row in rollouts} == {60}


def test_a_stage_that_was_not_evaluated_shows_its_last_rollouts(stopped_run):
    rows = find(stopped_run, Query())
    assert {(row["stage"], row["step"]) for row in rows} == {("reasoning_rl", 20)}


def test_filters_keep_exactly_the_rows_that_fit(finished_run):
    everything = find(finished_run, Query(stage="cold_start", task="arithmetic"))
    assert len(everything) == 400
    for words, fits in [
        (["--wrong"], lambda row: row["rewards"]["accuracy"] != 1.0),
        (["--right"], lambda row: row["rewards"]["accuracy"] == 1.0),
        (["--truncated"], lambda row: row["finish_reason"] == "length"),
        (["--reward-below", "format=0.5"], lambda row: row["rewards"]["format"] < 0.5),
        (["--reward-above", "total=1.2", "--right"], lambda row: row["total"] > 1.2),
    ]:
        wanted = [row for row in everything if fits(row)]
        assert 0 < len(wanted) < len(everything)
        assert find(finished_run, parse("--stage", "cold_start", "--task", "arithmetic", *words)) == wanted


def test_sorting_is_by_any_reward_and_reverses(finished_run):
    rows = find(finished_run, parse("--stage", "cold_start", "--sort", "language_consistency"))
    values = [row["rewards"]["language_consistency"] for row in rows]
    assert values == sorted(values)
    rows = find(finished_run, parse("--stage", "cold_start", "--sort", "total", "--reverse"))
    assert [row["total"] for row in rows] == sorted((row["total"] for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--stage", "reasonin_rl"], ["reasonin_rl", "did you mean `reasoning_rl`"]),
        (["--task", "arithmetik"], ["arithmetik", "did you mean `arithmetic`"]),
        (["--sort", "accurracy"], ["accurracy", "did you mean `accuracy`"]),
        (["--reward-below", "acuracy=1"], ["acuracy", "did you mean `accuracy`"]),
        (["--reward-below", "accuracy"], ["accuracy", "--reward-below accuracy=0.5"]),
        (["--reward-above", "accuracy=much"], ["accuracy=much"]),
        (["-n", "0"], ["-n 0"]),
    ],
)
def test_a_filter_that_means_nothing_is_a_usage_error_with_a_suggestion(finished_run, words, named):
    with pytest.raises(ConfigError) as caught:
        find(finished_run, parse(*words))
    assert caught.value.code == 2
    for text in named:
        assert text in caught.value.render()


def test_all_faults_of_the_filters_are_told_together(finished_run):
    with pytest.raises(ConfigError) as caught:
        find(finished_run, Query(task="x", sort="y", below=(("z", 1.0),)))
    assert len(caught.value.faults) == 3


def test_a_run_without_completions_says_how_they_come_about(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        find(tmp_path, Query())
    assert "keep_rollouts_steps" in caught.value.render()


def test_a_completion_is_shown_with_every_reward_and_without_control_characters():
    row = {"stage": "s", "reply": "two\nlines \x1b[31m", "rewards": {"accuracy": 1.0, "format": None}, "total": 1.0}
    text = samples.render(row)
    assert "\x1b" not in text
    assert "two\n          lines" in text
    assert "total 1.00  accuracy 1.00  format -" in text


def test_rows_are_json(finished_run):
    row = find(finished_run, Query(stage="base"))[0]
    assert json.loads(json.dumps(row))["stage"] == "base"
    assert issubclass(ConfigError, TemperError)


def test_a_step_of_which_nothing_was_kept_is_the_nearest_that_has_some_and_said_to_be(finished_run, capsys):
    assert samples.run(arguments(finished_run, "--step", "7")) == 0
    found = capsys.readouterr()
    assert "no rollouts of step 7 were kept; these are of step 30" in found.err
    assert "step 30" in found.out
    assert samples.run(arguments(finished_run, "--step", "30")) == 0
    assert "note" not in capsys.readouterr().err


def arguments(run_dir, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    samples.add_arguments(parser)
    return parser.parse_args([str(run_dir), "--stage", "final_rl", "-n", "1", *words])


def test_equal_replies_to_a_prompt_are_shown_once_and_counted():
    row = {"stage": "rl", "prompt_id": "a:1", "reply": "4", "total": 1.0}
    rows = [row | {"sample": 0}, row | {"sample": 1, "reply": "5"}, row | {"sample": 2}, row | {"prompt_id": "a:2"}]
    assert [(one.get("sample"), count) for one, count in folded(rows)] == [(0, 2), (1, 1), (None, 1)]
    assert "2 equal replies" in samples.render(rows[0], 2)
    assert "equal" not in samples.render(rows[0])
