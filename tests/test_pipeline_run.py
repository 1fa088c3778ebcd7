"""Running recipes: a stage runs once, a changed key re-runs what depends on it, nothing wrong goes unnoticed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import fakes
import fakes.train
import pytest

from temper.artifacts import hash_file
from temper.errors import DataError, Exit, Preempted, ResourceError, TemperError
from temper.pipeline import STAGES
from temper.pipeline.plan import make_plan
from temper.pipeline.recipe import load_recipe
from temper.pipeline.run import Result, Stopped, run_recipe
from temper.pipeline.rundir import Lock, RunDir


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch, tmp_path):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and no test in this process can tell


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE, encoding="utf-8")
    return path


def run(recipe: Path, *settings: str, changed: bool = False) -> Result:
    return run_recipe(str(recipe), settings, Path("out"), changed)


def artifacts() -> list[Path]:
    return sorted(path for path in Path("out/artifacts").iterdir() if not path.name.startswith("."))


def weights(result: Result, stage: str) -> Path:
    return Path("out/artifacts", result.record["stages"][stage]["fingerprint"], "model.safetensors")


def interrupt_after(monkeypatch, stage: str, step: int, error: BaseException | None = None) -> None:
    """Make one stage stop after one of its steps, once."""
    run_stage, done = fakes.train.run, []

    def stopping_run(config, ctx):
        if ctx.name != stage or done:
            return run_stage(config, ctx)
        done.append(True)
        log = ctx.log.step

        def stop_after(number, total, metrics):
            log(number, total, metrics)
            if number == step:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)

        ctx.log.step = stop_after
        return run_stage(config, ctx)

    monkeypatch.setattr(fakes.train, "run", stopping_run)


# -- what runs --------------------------------------------------------------------------------------------------------


def test_every_stage_runs_and_leaves_what_it_made(recipe):
    result = run(recipe)
    assert result.ran == ("data", "first", "second", "report")
    assert result.evaluation is not None
    assert [model["stage"] for model in result.evaluation["models"]] == ["first", "second"]
    assert len(artifacts()) == 4
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
        run_recipe(str(recipe), settings).plan.folder.root
        for settings in ([], ["first.learning_rate=0.5"], ["seed=8"])
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


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_stops_at_once(recipe, monkeypatch):
    seen, real = [], fakes.train.run

    def ask(config, ctx):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(ctx.stopping())
        os.kill(os.getpid(), signal.SIGINT)
        seen.append("not reached")

    monkeypatch.setattr(fakes.train, "run", ask)
    with pytest.raises(KeyboardInterrupt):
        run(recipe)
    assert seen == [True]
    monkeypatch.setattr(fakes.train, "run", real)
    assert run(recipe).ran == ("first", "second", "report")


def test_a_signal_between_stages_stops_before_the_next(recipe, monkeypatch):
    import fakes.data

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


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named_and_its_stage_runs_again(recipe, capfd, damage):
    result = run(recipe)
    path = weights(result, "first")
    good = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:] if damage == "flip" else good[:-1])
    capfd.readouterr()
    again = run(recipe)
    warned = capfd.readouterr().err
    assert again.ran == ("first",)
    assert "warning:" in warned
    assert "model.safetensors" in warned
    assert path.read_bytes() == good
    if damage == "flip":
        assert "sha256" in warned
    assert run(recipe).ran == ()
    assert "warning:" not in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 99}'])
def test_a_directory_without_a_manifest_is_ignored_by_name(recipe, capfd, content):
    result = run(recipe)
    manifest = weights(result, "second").parent / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    capfd.readouterr()
    assert run(recipe).ran == ("second",)
    assert str(manifest.parent) in capfd.readouterr().err


def test_a_stray_directory_among_the_artifacts_is_named_and_harms_nothing(recipe, capfd):
    run(recipe)
    stray = Path("out/artifacts/beef")
    stray.mkdir()
    (stray / "x").write_text("x")
    capfd.readouterr()
    assert run(recipe).ran == ()
    assert str(stray) in capfd.readouterr().err
    assert run(recipe).ran == ()
    assert str(stray) not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "hashes.json", "recipe.resolved.yaml", "stages/02-first/stage.json"])
@pytest.mark.parametrize("content", [None, b"", b'{"stages": {', b"[]", b"\xff", b'{"stages": 3, "overhead": []}'])
def test_torn_and_missing_records_are_no_harm(recipe, name, content):
    run(recipe)
    if content is None:
        Path("out", name).unlink()
    else:
        Path("out", name).write_bytes(content)
    assert run(recipe).ran == ()
    assert json.loads(Path("out/run.json").read_text())["stages"]["second"]["steps"] == 6


def test_what_a_killed_run_left_is_cleared(recipe):
    run(recipe)
    left = Path("out/artifacts/.making-beef")
    left.mkdir()
    checkpoints = Path("out/stages/02-first/checkpoints/step-000002")
    checkpoints.mkdir(parents=True)
    assert run(recipe).ran == ()
    assert not left.exists()
    assert not checkpoints.exists()


# -- the lock ---------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_who_holds_the_run(recipe):
    Path("out").mkdir()
    lock = Lock(Path("out/lock"))
    try:
        with pytest.raises(TemperError) as error:
            run(recipe)
    finally:
        lock.release()
    assert error.value.code == Exit.LOCKED
    assert f"pid {os.getpid()}" in error.value.faults[0].why
    assert "host " in error.value.faults[0].why
    assert "since " in error.value.faults[0].why
    assert run(recipe).ran


def test_a_lock_that_nobody_holds_is_no_obstacle(recipe):
    run(recipe)
    Path("out/lock").write_text('{"pid": 1, "host": "elsewhere"}')
    assert run(recipe).ran == ()


# -- resources --------------------------------------------------------------------------------------------------------


def test_a_run_directory_that_goes_away_is_told_with_the_stage(recipe, monkeypatch):
    import shutil

    interrupt_after(monkeypatch, "second", 3, None)
    monkeypatch.setattr(os, "kill", lambda pid, number: shutil.rmtree("out"))
    with pytest.raises(ResourceError) as error:
        run(recipe)
    assert "run directory is gone" in error.value.faults[0].what
    assert "second" in error.value.faults[0].why
    assert run(recipe).ran == ("data", "first", "second", "report")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(28, "No space left on device"), "the disk is full"),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(30, "Read-only file system"), "cannot write"),
        (PermissionError(13, "Permission denied"), "cannot write"), (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
    ],
)  # fmt: skip
def test_exhausted_resources_are_told_with_the_last_safe_step(recipe, monkeypatch, error, what):
    interrupt_after(monkeypatch, "second", 5, error)
    with pytest.raises(ResourceError) as raised:
        run(recipe)
    (fault,) = raised.value.faults
    assert what in fault.what
    assert "the last safe step of `second` is 4" in fault.why
    assert json.loads(Path("out/run.json").read_text())["state"] == "failed"
    assert run(recipe).ran == ("second", "report")


def test_a_loss_that_is_no_number_is_a_guard_with_the_last_good_step(recipe):
    with pytest.raises(TemperError) as error:
        run(recipe, "second.fail=nan")
    assert error.value.code == Exit.GUARD
    assert "step 3" in error.value.faults[0].what
    assert "the last safe step of `second` is 2" in error.value.faults[0].why


def test_a_bug_is_not_dressed_up(recipe):
    with pytest.raises(KeyError):
        run(recipe, "second.fail=bug")
    assert json.loads(Path("out/run.json").read_text())["stages"]["second"]["state"] == "failed"
    assert json.loads(Path("out/run.json").read_text())["stages"]["first"]["state"] == "done"


def test_a_disk_without_room_is_told_before_anything_runs(recipe, monkeypatch):
    monkeypatch.setattr("temper.pipeline.preflight.disk_free", lambda folder: 1000)
    with pytest.raises(ResourceError, match="not enough disk space"):
        run(recipe)
    assert not Path("out").exists()


def test_a_run_directory_that_cannot_be_made_is_told(recipe):
    Path("out").write_text("a file")
    with pytest.raises(TemperError, match="is a file"):
        run(recipe)
    with pytest.raises(ResourceError):
        run_recipe(str(recipe), [], Path("out/below"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run_directory_is_told(recipe):
    run(recipe)
    Path("out").chmod(0o500)
    try:
        with pytest.raises(ResourceError):
            run(recipe, "seed=8")
    finally:
        Path("out").chmod(0o700)


def test_a_directory_of_something_else_is_not_written_to(recipe):
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("x")
    with pytest.raises(TemperError, match="is not a run directory"):
        run(recipe)
    assert os.listdir("out") == ["thesis.tex"]


def test_a_run_of_another_recipe_is_not_written_to(recipe):
    run(recipe)
    other = recipe.with_name("other.yaml")
    other.write_text("stages: {a: {stage: fake_data}}\n")
    with pytest.raises(TemperError, match="holds a run of `fake`"):
        run(other)


# -- everything is checked first --------------------------------------------------------------------------------------


def test_faults_of_configs_and_files_are_told_together_before_anything_runs(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    recipe = tmp_path / "my.yaml"
    recipe.write_text(
        "stages:\n  a: {stage: fake_train, data: empty.jsonl}\n  b: {stage: fake_train, lrr: 3}\n"
        "  c: {stage: fake_train, data: nope.jsonl}\n"
    )
    with pytest.raises(TemperError) as error:
        run(recipe)
    assert error.value.code == Exit.CONFIG
    assert [fault.what.split("`")[0].strip() for fault in error.value.faults] == [
        "unknown key", "data file", "empty.jsonl has 0 rows",
    ]  # fmt: skip
    assert not Path("out").exists()


def test_the_exit_code_is_that_of_the_first_family(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    recipe = tmp_path / "my.yaml"
    recipe.write_text("stages:\n  a: {stage: fake_train, data: empty.jsonl, model: nope}\n")
    with pytest.raises(TemperError) as error:
        run(recipe)
    assert error.value.code == Exit.ARTIFACT
    recipe.write_text("stages:\n  a: {stage: fake_train, data: empty.jsonl}\n")
    with pytest.raises(TemperError) as error:
        run(recipe)
    assert error.value.code == Exit.DATA


def test_warnings_of_checks_are_said(recipe, capfd):
    run(recipe, "first.language=xx")
    assert "warning: language xx is ignored" in capfd.readouterr().err


def test_a_file_a_stage_did_not_make_is_told(recipe):
    recipe.write_text(fakes.RECIPE.replace("@data/test.jsonl", "@data/tset.jsonl"))
    with pytest.raises(DataError) as error:
        run(recipe)
    assert "`data` made data.jsonl, test.jsonl" in error.value.faults[0].why


def test_a_plan_writes_nothing(recipe, tmp_path):
    run(recipe)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for settings in ([], ["seed=8"], ["first.steps=2"]):
        make_plan(load_recipe(str(recipe), settings)[0], RunDir(Path("out")))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
