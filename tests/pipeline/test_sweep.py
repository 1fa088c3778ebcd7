"""Sweeps: every combination once, what they share once; a failed or killed run loses no other."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import fakes
import pytest
from forked import Command
from hypothesis import given
from hypothesis import strategies as st

from temper.cli import main
from temper.errors import ConfigError
from temper.pipeline.points import parse_over, points_of, split_outside


def start(*arguments: str | Path) -> Command:
    return Command("sweep", *arguments)


def sweep(*arguments: str | Path) -> tuple[int, str, str]:
    return start(*arguments).finish()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE, encoding="utf-8")
    return path


def test_what_points_share_is_made_once_and_a_finished_sweep_runs_nothing(recipe, tmp_path):
    out = tmp_path / "out"
    ask = (recipe, "--over", "second.learning_rate=1e-4,0.5", "--seeds", "1,2", "--at", "2", "--out", out, "--json")
    code, text, err = sweep(*ask)
    assert code == 0, err
    data = json.loads(text)
    assert data["stage"] == "second"
    assert [(p["values"], p["seed"], p["state"]) for p in data["points"]] == [
        ({"second.learning_rate": rate}, seed, "done") for rate in (1e-4, 0.5) for seed in (1, 2)
    ]
    assert len(os.listdir(out / "artifacts")) == 2 * (2 + 2 * 2)  # of a seed; of a rate
    row = data["rows"][0]
    assert row["runs"] == 2
    assert row["metrics"]["loss"] == {
        "mean": pytest.approx(1.45 / 5), "half_range": 0, "interval": [pytest.approx(0.29)] * 2  # 1/2 + 1/3 + … + 1/6
    }  # fmt: skip
    [against] = data["differences"]
    assert (against["values"], against["seeds"]) == ({"second.learning_rate": 0.5}, 2)
    assert against["held_out"]["second/sums/accuracy"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    assert row["at"]["2"]["loss"]["mean"] == pytest.approx(0.75)
    assert row["held_out"]["second/sums/accuracy"]["mean"] == 0.5
    assert "first/sums/accuracy" not in row["held_out"]  # the swept stage and what follows from it
    lines = list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))
    assert [line["second.learning_rate"] for line in lines] == ["0.0001", "0.0001", "0.5", "0.5"]
    assert {line["loss@2"] for line in lines} == {"0.75"}
    page = (out / "sweep.html").read_text()
    assert page.count("<svg") >= 1
    assert "http" not in page.replace("http-equiv", "")
    # every point is a run like any other, with the curves of the stages it did not have to run itself
    assert all((out / p / "stages" / "02-first" / "metrics.jsonl").exists() for p in os.listdir(out) if "seed=" in p)
    before = {path: path.stat().st_mtime_ns for path in (out / "artifacts").rglob("*")}
    code, text, err = sweep(*ask)
    assert code == 0
    assert err.count("done already") == 4
    assert json.loads(text)["rows"] == data["rows"]
    assert {path: path.stat().st_mtime_ns for path in (out / "artifacts").rglob("*")} == before


def test_a_failed_point_loses_no_other_and_its_code_is_told_at_the_end(recipe, tmp_path):
    code, text, err = sweep(recipe, "--over", "second.fail=nan,''", "--out", tmp_path / "out", "--json")
    data = json.loads(text)
    assert [p["state"] for p in data["points"]] == ["failed", "done"], err
    assert code == data["points"][0]["exit_code"] != 0
    assert data["rows"][0]["runs"] == 0
    assert data["rows"][1]["metrics"]["loss"]["mean"] > 0
    code, text, _ = sweep(recipe, "--over", "second.fail=nan,''", "--out", tmp_path / "out")
    assert code == data["points"][0]["exit_code"]
    assert "failed:  " in text


@pytest.mark.usefixtures("fake_kinds")
def test_run_again_it_shows_what_is_finished_before_it_comes_to_it(recipe, tmp_path, monkeypatch):
    ask = ["sweep", str(recipe), "--over", "second.learning_rate=1e-4,0.5", "--out", str(tmp_path / "out")]
    assert sweep(*ask[1:])[0] == 0
    (tmp_path / "out" / "learning_rate=1e-4" / "run.json").unlink()
    shown = []

    def look(*_: object) -> int:
        shown.append([p["state"] for p in json.loads((tmp_path / "out" / "sweep.json").read_text())["points"]])
        return 0

    monkeypatch.setattr("temper.commands.sweep.run_point", look)
    assert main(ask) == 0
    assert shown == [["waiting", "done"], ["done", "done"]]


def test_what_only_the_evaluation_shows_is_shown(recipe, tmp_path):
    ask = ("--over", "report.k=2,8", "--stage", "data", "--out", tmp_path / "out", "--json")
    code, text, err = sweep(recipe, *ask)
    assert code == 0, err
    rows = json.loads(text)["rows"]
    assert [(row["runs"], row["held_out"]["second/sums/accuracy"]["mean"]) for row in rows] == [(1, 0.5), (1, 0.5)]
    assert all("loss" not in row["metrics"] for row in rows)


def test_killed_the_same_command_goes_on(recipe, tmp_path):
    recipe.write_text(fakes.RECIPE.replace("steps: 6", "steps: 6, sleep: 0.1"))
    out, ask = tmp_path / "out", ("--over", "second.learning_rate=1e-4,0.5", "--json")
    process = start(recipe, *ask, "--out", out)
    rows = out / "learning_rate=1e-4" / "stages" / "03-second" / "metrics.jsonl"
    while not rows.exists() or rows.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.finish()
    code, text, err = sweep(recipe, *ask, "--out", out)
    assert code == 0, err
    assert "goes on after step 2" in err
    whole = sweep(recipe, *ask, "--out", tmp_path / "whole")[1]
    drop = ("seconds", "cpu_seconds", "peak_memory_bytes")
    a, b = ([{k: v for k, v in p["metrics"].items() if k not in drop} for p in json.loads(t)["points"]]
            for t in (text, whole))  # fmt: skip
    assert a == b
    assert {p.name for p in (out / "artifacts").iterdir()} == {p.name for p in (tmp_path / "whole/artifacts").iterdir()}


def test_asked_to_stop_it_saves_stops_and_says_how_to_go_on(recipe, tmp_path):
    recipe.write_text(fakes.RECIPE.replace("steps: 6", "steps: 60, sleep: 0.05"))
    process = start(recipe, "--over", "first.learning_rate=1e-4,0.5", "--out", tmp_path / "out")
    rows = tmp_path / "out" / "learning_rate=1e-4" / "stages" / "02-first" / "metrics.jsonl"
    while not rows.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, _, err = process.finish()
    assert code == 75
    assert "checkpoint saved" in err
    assert "the same command again" in err
    points = json.loads((tmp_path / "out" / "sweep.json").read_text())["points"]
    assert [p["state"] for p in points] == ["stopped", "waiting"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--over", "second.lerning_rate=1,2"], "did you mean `learning_rate`?"),
        (["--over", "second.lerning_rate=1,2"], "where: --over second.lerning_rate"),
        (["--over", "secnd.learning_rate=1,2"], "did you mean"),
        (["--over", "second.learning_rate"], "names no key to sweep"),
        (["--over", "second.learning_rate=0.1,,0.2"], "empty value"),
        (["--over", "second.learning_rate=0.1,fast"], "learning_rate"),
        (["--over", "second.learning_rate=0.1", "--over", "second.learning_rate=0.2"], "swept twice"),
        (["--over", "second.steps,second.batch=1:4,2"], "move together"),
        (["--over", "second.steps=1", "--seeds", "1,x"], "`x` is no whole number"),
        (["--over", "second.steps=1", "--at", "0"], "`0` is no whole number"),
        (["--over", "second.steps=1", "--stage", "secnd"], "did you mean `second`?"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(recipe, tmp_path, capsys, monkeypatch, arguments, said):
    from temper.cli import main
    from temper.stages import STAGES

    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    assert main(["sweep", str(recipe), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@given(st.lists(st.text("ab 1.", min_size=1).filter(str.strip), min_size=1, max_size=4))
def test_values_are_read_back_as_they_were_joined(values):
    shown = [f"[{v}, {v}]" for v in values]
    assert split_outside(",".join(shown), ",") == [v.strip() for v in shown]
    assert split_outside(",".join(values), ",") == [v.strip() for v in values]


def test_every_combination_has_a_folder_of_its_own():
    axes = [parse_over("a.weights=[1, 0],[1,0],[1; 0]"), parse_over("a.rate,a.size=1:2,3:4"), parse_over("b.rate=1,2")]
    points = points_of(axes, [0, 1])
    assert len({point.name for point in points}) == len(points) == 3 * 2 * 2 * 2
    assert points[0].values() == {"a.weights": [1, 0], "a.rate": 1, "a.size": 2, "b.rate": 1, "seed": 0}
    with pytest.raises(ConfigError):
        points_of([parse_over("seed=1,2")], [0, 1])
