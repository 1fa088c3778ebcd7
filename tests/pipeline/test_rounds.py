"""Rounds run: the rule ends them, what follows reads the last, and whatever stops a round goes on to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.running import interrupt_after, run, weights

from temper.commands.plan import describe, render
from temper.pipeline.run import Stopped
from temper.planning.preflight import prepare
from temper.report.ending import ending
from temper.report.gather import gather
from temper.report.html import page

pytestmark = pytest.mark.usefixtures("fake_kinds")

TEXT = """\
name: loops
stages:
  start: {stage: fake_train}
  loop:
    repeat: 4
    until: {stage: check, at_least: 0.9, gain_below: 0.05}
    first: {policy: "@start"}
    stages:
      policy: {stage: fake_train, model: "@policy", steps: 6}
      check: {stage: fake_measure, models: ["@policy"], accuracy: {policy-1: 0.5, policy-2: 0.7, policy-3: 0.95}}
  last: {stage: fake_train, model: "@policy"}
  report: {stage: fake_measure, models: ["@policy-1", "@policy", "@last"]}
"""


@pytest.fixture
def loops(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_rounds_end_once_the_rule_is_met_and_what_follows_reads_the_last(loops, capsys):
    result = run(loops)
    rounds = [f"{name}-{round}" for round in (1, 2, 3) for name in ("policy", "check")]
    assert result.ran == ("start", *rounds, "last", "report")
    assert list(result.record["stages"]) == list(result.ran)
    assert {entry["state"] for entry in result.record["stages"].values()} == {"done"}
    assert result.record["rounds"] == {"loop": {"of": 4, "what": "accuracy", "values": [0.5, 0.7, 0.95],
                                                "why": "it is at least 0.9"}}  # fmt: skip
    assert [model["stage"] for model in result.evaluation["models"]] == ["policy-1", "policy-3", "last"]
    said = capsys.readouterr().err
    assert "loop: round 2 of at most 4: accuracy 0.700: another round follows" in said
    assert "loop: round 3 of at most 4: accuracy 0.950: it is at least 0.9" in said
    material = json.loads(Path("out/stages/11-report/stage.json").read_text())["material"]
    assert material["inputs"]["@policy"] == result.record["stages"]["policy-3"]["fingerprint"]
    assert run(loops).ran == ()


@pytest.mark.parametrize(
    ("scores", "rounds", "why"),
    [
        ("{policy-1: 0.5, policy-2: 0.54}", 2, "it gained 0.040 over the best round before, less than 0.05"),
        ("{policy-1: 0.5, policy-2: 0.6, policy-3: 0.7, policy-4: 0.8}", 4, ""),
        ("{policy-1: 0.9}", 1, "it is at least 0.9"),
    ],
)
def test_the_rule_is_held_against_each_round(loops, scores, rounds, why):
    setting = f"check.accuracy={scores}"
    record = run(loops, setting).record
    assert sum(name.startswith("policy") for name in record["stages"]) == rounds
    assert record["rounds"]["loop"]["why"] == why
    assert len(record["rounds"]["loop"]["values"]) == rounds
    assert run(loops, setting).ran == ()


def test_without_a_rule_all_rounds_run(loops):
    loops.write_text(TEXT.replace("    until: {stage: check, at_least: 0.9, gain_below: 0.05}\n", ""), encoding="utf-8")
    record = run(loops).record
    assert "policy-4" in record["stages"]
    assert "rounds" not in record


@pytest.mark.parametrize("stage", ["policy-1", "policy-3", "last"])
def test_a_run_stopped_in_a_round_or_after_the_rounds_ends_in_the_same_bytes(loops, monkeypatch, stage):
    whole = run(loops)
    kept = {name: weights(whole, name).read_bytes() for name in ("policy-1", "policy-3", "last")}
    Path("out").rename("whole")
    interrupt_after(monkeypatch, stage, 3)
    with pytest.raises(Stopped):
        run(loops)
    again = run(loops)
    assert again.ran[0] == stage
    assert {name: weights(again, name).read_bytes() for name in kept} == kept
    assert again.record["rounds"] == whole.record["rounds"]


def test_one_more_round_and_a_stricter_rule_run_what_is_new(loops):
    run(loops)
    result = run(loops, "loop.until={stage: check, at_least: 0.99}")
    assert result.ran == ("policy-4", "check-4", "last", "report")
    assert run(loops).ran == ()  # the old end is still there


def test_the_plan_says_how_many_rounds_there_are(loops, capsys):
    plan, _ = prepare(str(loops), (), Path("out"))
    text = render(describe(plan))
    assert "rounds:  loop: 4 rounds at most: its rule may end it before" in text
    assert "policy-4" in text
    run(loops)
    done, _ = prepare(str(loops), (), Path("out"))
    text = render(describe(done))
    assert "policy-4" not in text
    assert "rounds:  loop: round 3 of at most 4: accuracy 0.950: it is at least 0.9" in text


def test_reports_show_the_rounds_and_what_each_read(loops):
    result = run(loops)
    data = gather(Path("out"))
    inputs = {stage["name"]: [one["stage"] for one in stage["inputs"]] for stage in data["stages"]}
    assert inputs["policy-1"] == ["start"]
    assert inputs["policy-3"] == ["policy-2"]
    assert inputs["report"] == ["policy-1", "policy-3", "last"]
    assert [model["stage"] for model in data["models"]] == ["policy-1", "policy-2", "policy-3", "last"]
    assert "loop: 3 of at most 4: accuracy 0.500, 0.700, 0.950: it is at least 0.9" in page(data)
    assert "rounds:  loop: 3 of at most 4" in ending(Path("out"), result.record, result.evaluation, True)
