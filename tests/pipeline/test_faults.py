"""What can be wrong with a run: damaged artifacts, other processes, full disks, recipes that cannot run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import fakes
import pytest
from fakes.running import interrupt_after, run, weights

from temper.artifacts import begin
from temper.errors import DataError, Exit, ResourceError, TemperError
from temper.pipeline.run import run_recipe
from temper.planning.plan import make_plan
from temper.recipe.reader import load_recipe
from temper.record.rundir import Lock, RunDir

pytestmark = pytest.mark.usefixtures("fake_kinds")


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


def test_a_directory_that_nothing_asks_for_and_that_is_no_artifact_is_named_and_stays(recipe, capfd):
    run(recipe)
    stray = Path("out/artifacts") / ("beef" * 8)
    stray.mkdir()
    (stray / "x").write_text("x")
    for _ in range(2):
        capfd.readouterr()
        assert run(recipe).ran == ()
        assert str(stray) in capfd.readouterr().err
        assert (stray / "x").read_text() == "x"


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
    left = begin(Path("out/artifacts/beef"))
    (left / "x").write_text("x")
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
    monkeypatch.setattr("temper.planning.preflight.disk_free", lambda folder: 1000)
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
