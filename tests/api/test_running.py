"""temper.run: `on_step` sees every step, can stop a run and end it; the same call goes on."""

from __future__ import annotations

import pytest

import temper

pytestmark = pytest.mark.usefixtures("fake_kinds", "recipe")


def test_steps_are_told_and_what_is_done_is_not_done_again():
    seen: list[temper.StepReport] = []
    done = temper.run("my.yaml", out="out", on_step=seen.append)
    assert done.ran
    assert done.report is not None
    assert done.report.is_file()
    assert {report.stage for report in seen} <= set(done.ran)
    for stage in {report.stage for report in seen}:
        steps = [report.step for report in seen if report.stage == stage]
        assert steps == [row["step"] for row in done.metrics(stage)] == list(range(1, len(steps) + 1))
    seen.clear()
    again = temper.run("my.yaml", out="out", on_step=seen.append)
    assert (again.ran, seen) == ((), [])
    assert again.evaluation == done.evaluation
    with pytest.raises(temper.TemperError, match="no stage"):
        done.metrics("nonsense")


def test_a_run_that_on_step_stops_goes_on_to_the_same_end():
    whole = temper.run("my.yaml", out="whole")
    with pytest.raises(temper.Stopped):
        temper.run("my.yaml", out="parts", on_step=lambda report: report.step != 2)
    assert not (whole.folder.parent / "parts" / "report").exists()
    parts = temper.run("my.yaml", out="parts")
    assert parts.evaluation == whole.evaluation
    assert parts.model().name == whole.model().name


def test_what_on_step_raises_is_raised():
    class Enough(OSError):
        pass

    def stop(report: temper.StepReport) -> None:
        raise Enough

    with pytest.raises(Enough):
        temper.run("my.yaml", out="out", on_step=stop)
    assert temper.run("my.yaml", out="out").ran


def test_settings_are_those_of_the_command_line():
    first = temper.run("my.yaml", {"seed": 5}, out="a")
    second = temper.run("my.yaml", ["seed=5"], out="b")
    assert first.model().name == second.model().name
    with pytest.raises(temper.TemperError, match="unknown key"):
        temper.run("my.yaml", {"sead": 5})


def test_ranks_are_refused_below_one_and_where_a_launcher_has_started_some(monkeypatch):
    with pytest.raises(temper.TemperError, match="at least one"):
        temper.run("my.yaml", out="out", ranks=0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(temper.TemperError, match="starts its ranks itself"):
        temper.run("my.yaml", out="out")
