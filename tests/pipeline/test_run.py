"""Running recipes: a stage runs once, a changed key runs what depends on it, whatever stopped goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import fakes
import fakes.data
import fakes.train
import pytest
from fakes.running import interrupt_after, run, weights

from temper.artifacts import hash_file
from temper.errors import Exit, Preempted, TemperError
from temper.pipeline.run import Stopped, run_recipe

pytestmark = pytest.mark.usefixtures("fake_kinds")


# -- what runs --------------------------------------------------------------------------------------------------------


def test_every_stage_runs_and_leaves_what_it_made(recipe):
    result = run(recipe)
    assert result.ran == ("data", "first", "second", "report")
    assert result.evaluation is not None
    assert [model["stage"] for model in result.evaluation["models"]] == ["first", "second"]
    assert len(os.listdir("out/artifacts")) == 4
    assert not list(Path("out").rglob("checkpoints"))
    assert {"run.json", "recipe.resolved.yaml", "lock"} <= set(os.listdir("out"))
    assert {"stage.json", "config.yaml", "metrics.jsonl"} <= set(os.listdir("out/stages/02-first"))


def test_a_second_run_takes_no_step(recipe):
    before = run(recipe)
    files = {path: path.stat().st_mtime_ns for path in Path("out/artifacts").rglob("*")}
    rows = Path("out/stages/02-first/metrics.jsonl").read_text()
    again = run(recipe)
    assert again.ran == ()
    assert {path: path.stat().st_mtime_ns for path in Path("out/artifacts").rglob("*")} == files
    assert Path("out/stages/02-first/metrics.jsonl").read_text() == rows
    assert again.record["cpu_seconds"] == before.record["cpu_seconds"]


@pytest.mark.parametrize(
    ("setting", "ran"),
    [
        ("report.k=8", ("report",)), ("second.learning_rate=0.5", ("second", "report")),
        ("first.learning_rate=0.5", ("first", "second", "report")), ("seed=8", ("data", "first", "second", "report")),
        ("data.rows=4", ("data", "first", "second", "report")), ("sums.language=de", ("second", "report")),
        ("threads=1", ()), ("description=other", ()), ("sums.description=other", ()),
    ],
)  # fmt: skip
def test_one_changed_key_runs_exactly_what_depends_on_it(recipe, setting, ran):
    run(recipe)
    assert run(recipe, setting).ran == ran
    assert run(recipe, setting).ran == ()
    assert run(recipe).ran == ()  # what was there before is there still


def test_a_new_version_of_a_stage_runs_it_again(recipe, monkeypatch):
    run(recipe)
    monkeypatch.setattr(fakes.train, "VERSION", 2)
    assert run(recipe).ran == ("first", "second", "report")


def test_a_changed_file_runs_what_reads_it(tmp_path):
    data, recipe = tmp_path / "mine.jsonl", tmp_path / "my.yaml"
    data.write_text('{"text": "a"}\n')
    stages = "stages:\n  a: {stage: fake_train, data: mine.jsonl}\n  b: {stage: fake_train}\n"
    recipe.write_text(stages)
    run(recipe)
    os.utime(data)
    assert run(recipe).ran == ()
    data.write_text('{"text": "b"}\n')
    assert run(recipe).ran == ("a",)


def test_a_changed_reward_file_runs_what_names_it(tmp_path):
    reward, recipe = tmp_path / "mine.py", tmp_path / "my.yaml"
    reward.write_text("def f(prompt, reply): return 1.0\n")
    recipe.write_text("stages:\n  a: {stage: fake_train, reward_funcs: ['mine.py:f', accuracy]}\n")
    run(recipe)
    reward.write_text("def f(prompt, reply): return 0.0\n")
    assert run(recipe).ran == ("a",)


def test_a_changed_model_directory_runs_what_starts_from_it(tmp_path):
    model, recipe = tmp_path / "model", tmp_path / "my.yaml"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("one")
    recipe.write_text("stages:\n  a: {stage: fake_train, model: model}\n")
    run(recipe)
    (model / "model.safetensors").write_text("two")
    assert run(recipe).ran == ("a",)


def test_another_seed_has_another_directory_and_an_edited_key_has_not(recipe):
    folders = [
        run_recipe(str(recipe), settings).plan.folder.root for settings in ([], ["first.learning_rate=0.5"], ["seed=8"])
    ]
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].parent == Path("runs")
    assert folders[0].name.startswith("fake-")


def test_a_stage_that_moves_keeps_its_directory(recipe):
    run(recipe)
    text = fakes.RECIPE.replace("  first:", "  extra: {stage: fake_data}\n  first:")
    recipe.write_text(text)
    assert run(recipe).ran == ("extra",)
    assert sorted(os.listdir("out/stages")) == [".old", "01-data", "02-extra", "03-first", "04-second", "05-report"]


def test_the_work_of_another_config_is_set_aside_and_comes_back(recipe):
    run(recipe)
    rows = Path("out/stages/02-first/metrics.jsonl").read_text()
    run(recipe, "first.steps=4")
    assert len(Path("out/stages/02-first/metrics.jsonl").read_text().splitlines()) == 4
    run(recipe)
    assert Path("out/stages/02-first/metrics.jsonl").read_text() == rows


# -- stopping and going on --------------------------------------------------------------------------------------------


def test_sigterm_saves_and_the_same_command_goes_on_to_the_same_bytes(recipe, monkeypatch, tmp_path):
    whole = run_recipe(str(recipe), [], tmp_path / "whole")
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped) as error:
        run(recipe)
    assert error.value.code == Exit.PREEMPTED
    assert "step 3 of 6" in str(error.value)
    record = json.loads(Path("out/run.json").read_text())
    assert (record["state"], record["stages"]["second"]["state"]) == ("stopped", "stopped")
    assert record["stages"]["second"]["steps"] == 3
    result = run(recipe)
    assert result.ran == ("second", "report")
    fingerprint = whole.record["stages"]["second"]["fingerprint"]
    there = tmp_path / "whole" / "artifacts" / fingerprint / "model.safetensors"
    assert hash_file(weights(result, "second")) == hash_file(there)
    assert len(Path("out/stages/03-second/metrics.jsonl").read_text().splitlines()) == 6


def test_costs_add_up_over_processes(recipe, monkeypatch):
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe, "second.sleep=0.05")
    before = json.loads(Path("out/run.json").read_text())["stages"]["second"]["seconds"]
    after = run(recipe, "second.sleep=0.05").record["stages"]["second"]
    assert before >= 0.15
    assert after["seconds"] >= before + 0.15
    assert after["steps"] == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, Exit.PREEMPTED), (signal.SIGINT, Exit.INTERRUPTED)])
def test_the_first_signal_is_a_request_and_its_kind_is_the_exit_code(recipe, monkeypatch, number, code):
    def ask(config, ctx):
        os.kill(os.getpid(), number)
        assert ctx.stopping()
        raise Preempted("saved")

    monkeypatch.setattr(fakes.train, "run", ask)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as error:
        run(recipe)
    assert error.value.code == code
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("second", "ends"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_second_signal_gives_up_the_step_under_way(recipe, monkeypatch, second, ends):
    seen, real = [], fakes.train.run

    def ask(config, ctx):
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(ctx.stopping())
        os.kill(os.getpid(), second)
        seen.append("not reached")

    monkeypatch.setattr(fakes.train, "run", ask)
    with pytest.raises(ends):
        run(recipe)
    assert seen == [True]
    monkeypatch.setattr(fakes.train, "run", real)
    assert run(recipe).ran == ("first", "second", "report")


def test_a_signal_between_stages_stops_before_the_next(recipe, monkeypatch):
    make = fakes.data.run

    def ask(config, ctx):
        make(config, ctx)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fakes.data, "run", ask)
    with pytest.raises(Stopped, match="before stage first"):
        run(recipe)


# -- a changed config half-way ----------------------------------------------------------------------------------------


def test_a_changed_config_half_way_is_refused_with_the_difference(recipe, monkeypatch):
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe)
    for setting, change in (
        ("second.learning_rate=0.5", "config key learning_rate changed 0.0001 -> 0.5"),
        ("first.steps=7", "input @first will change"),
        ("seed=8", "seed changed 7 -> 8"),
    ):
        before = sorted(Path("out").rglob("*"))
        with pytest.raises(TemperError) as error:
            run(recipe, setting)
        (fault,) = error.value.faults
        assert error.value.code == Exit.CONFIG
        assert change in fault.why
        assert "second" in fault.why.partition("run again:")[2]
        assert "--changed" in fault.fix
        assert "step 3" in fault.what
        assert sorted(Path("out").rglob("*")) == before
    assert run(recipe).ran == ("second", "report")


def test_an_accepted_change_starts_over_and_the_old_work_comes_back(recipe, monkeypatch):
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe)
    assert run(recipe, "second.learning_rate=0.5", changed=True).ran == ("second", "report")
    seen = []
    monkeypatch.setattr(fakes.train, "_newest", lambda folder, newest=fakes.train._newest: seen.append(newest(folder)))
    assert run(recipe).ran == ("second", "report")
    assert seen[0][1] == 3


def test_a_half_done_stage_that_left_the_recipe_is_told(recipe, monkeypatch):
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe)
    recipe.write_text(fakes.RECIPE.replace("second", "another"))
    with pytest.raises(TemperError) as error:
        run(recipe)
    assert "no longer in the recipe" in error.value.faults[0].why
