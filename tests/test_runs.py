"""From what a user types to a run or a model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fakes
import pytest

from temper.errors import Exit, TemperError
from temper.pipeline.run import Stopped, run_recipe
from temper.runs import find_run, resolve_model
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def run(monkeypatch, tmp_path) -> Path:
    """A finished run below runs/, and the directory it is in as the current one."""
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    Path("my.yaml").write_text(fakes.RECIPE)
    return run_recipe("my.yaml").plan.folder.root


def test_a_run_is_found_by_path_by_name_by_recipe_and_by_the_folder_it_is_in(run):
    for text in (str(run), run.name, "fake", "runs", str(run.absolute()), f"{run}/"):
        assert find_run(text).resolve() == run.resolve()
    assert find_run(run) == run


def test_of_two_runs_one_must_be_named(run):
    run_recipe("my.yaml", ["seed=8"])
    for text in ("runs", "fake"):
        with pytest.raises(TemperError) as error:
            find_run(text)
        assert error.value.code == Exit.CONFIG
        assert run.name in error.value.faults[0].why
    assert find_run(run.name) == run


@pytest.mark.parametrize("text", ["nope", "runs/nope", "/nope", "", "x" * 5000, "fak"])
def test_an_unknown_run_is_told_with_those_there_are(text):
    with pytest.raises(TemperError) as error:
        find_run(text)
    assert error.value.code in (Exit.CONFIG, Exit.ARTIFACT)


def test_a_directory_without_a_run_is_foreign(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(TemperError) as error:
        find_run("thesis")
    assert error.value.code == Exit.ARTIFACT


def model_of(path: Path) -> str:
    return json.loads((path / "manifest.json").read_text())["about"]["stage"]


def test_a_model_is_found_by_run_by_stage_and_by_path(run):
    assert model_of(resolve_model(str(run))) == "second"
    assert model_of(resolve_model("fake")) == "second"
    assert model_of(resolve_model("runs")) == "second"
    assert model_of(resolve_model(f"{run}:first")) == "first"
    assert model_of(resolve_model("fake:first")) == "first"
    path = resolve_model("fake:first")
    assert resolve_model(str(path)) == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fake:frist", "did you mean `first`?"), ("fake:data", "makes a data set"),
        ("fake:report", "makes an evaluation"),
        ("fake:", "no stage"), ("nope:first", "no run `nope`"),
    ],
)  # fmt: skip
def test_a_stage_without_a_model_is_told_with_those_that_have_one(text, said):
    with pytest.raises(TemperError) as error:
        resolve_model(text)
    assert said in error.value.render()


@pytest.mark.parametrize("text", ["nope", "./nope", "/nope/at/all", "my.yaml", "x" * 5000])
def test_what_is_no_model_is_told_as_an_artifact(text):
    with pytest.raises(TemperError) as error:
        resolve_model(text)
    assert error.value.code == Exit.ARTIFACT


def test_a_directory_without_a_model_says_what_is_missing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TemperError) as error:
        resolve_model("empty")
    assert error.value.code == Exit.ARTIFACT
    assert "config.json" in error.value.faults[0].why


def test_a_damaged_model_is_not_handed_out(run):
    path = resolve_model("fake:first") / "model.safetensors"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(TemperError) as error:
        resolve_model("fake:first")
    assert error.value.code == Exit.ARTIFACT
    assert "sha256" in error.value.faults[0].why


def test_the_last_finished_model_of_an_unfinished_run_is_taken(monkeypatch):
    import signal

    import fakes.train

    train = fakes.train.run

    def stop_in_second(config, ctx):
        if ctx.name == "second":
            os.kill(os.getpid(), signal.SIGTERM)
        return train(config, ctx)

    monkeypatch.setattr(fakes.train, "run", stop_in_second)
    with pytest.raises(Stopped):
        run_recipe("my.yaml", ["seed=9"], Path("out"))
    assert model_of(resolve_model("out")) == "first"
    with pytest.raises(TemperError, match="has not finished"):
        resolve_model("out:second")
