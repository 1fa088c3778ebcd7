"""Trackers get every step once, and whatever they do, the run ends as it would have without them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from fakes.running import interrupt_after, run

from temper import cli
from temper.errors import Exit, TemperError
from temper.pipeline.run import Stopped
from temper.trackers import process
from temper.trackers.follow import Position, first_groups, read_positions, send_new, table

FAKE_WANDB = """
import json, os, sys, time
WAYS = os.environ["FAKE_WANDB"]
class Run:
    def define_metric(self, name, step_metric): pass
    def log(self, values):
        if WAYS == "refuse": raise ConnectionError("403")
        if WAYS == "die": os._exit(7)
        if WAYS == "hang": time.sleep(600)
        with open(os.environ["FAKE_WANDB_LOG"], "a") as log: log.write(json.dumps(values) + "\\n")
    def finish(self): pass
def init(project, id, name, resume, config, dir):
    if WAYS == "hang at the start": time.sleep(600)
    with open(os.environ["FAKE_WANDB_LOG"], "a") as log: log.write(json.dumps({"id": id}) + "\\n")
    return Run()
"""


pytestmark = pytest.mark.usefixtures("fake_kinds")


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    monkeypatch.setenv("TEMPER_TRACKER_SECONDS", "5")


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """A package of that name which behaves as it is told; what it got."""
    (tmp_path / "fake" / "wandb").mkdir(parents=True)
    (tmp_path / "fake" / "wandb" / "__init__.py").write_text(FAKE_WANDB)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), *sys.path]))
    monkeypatch.setenv("FAKE_WANDB_LOG", str(tmp_path / "got.jsonl"))
    monkeypatch.setattr("temper.trackers.util.find_spec", lambda name: object())

    def got(way: str = "work") -> Path:
        monkeypatch.setenv("FAKE_WANDB", way)
        return tmp_path / "got.jsonl"

    return got


def export(name: str) -> str:
    """In a process of its own: wandb reads its environment once."""
    command = [sys.executable, "-m", "temper", "export-metrics", "out", "--to", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tracker_gets_every_step_of_every_stage_once_and_a_resumed_run_is_the_same_run(
    recipe, wandb, monkeypatch, tmp_path
):
    log = wandb()
    monkeypatch.setattr(process, "PATIENCE", 20)
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe, "trackers=[wandb]")
    run(recipe, "trackers=[wandb]")
    ids = {row["id"] for row in rows(log) if "id" in row}
    assert len(ids) == 1
    for stage in ("first", "second"):
        steps = [row[f"{stage}/step"] for row in rows(log) if f"{stage}/step" in row]
        assert steps == [1, 2, 3, 4, 5, 6]
    assert export("wandb") == "0 steps sent\n"


@pytest.mark.parametrize("way", ["refuse", "die", "hang", "hang at the start"])
def test_a_tracker_that_fails_changes_no_bit_of_a_run_and_is_told_of_at_its_end(recipe, wandb, way, capsys):
    wandb(way)
    told = run(recipe, "trackers=[wandb]")
    err = capsys.readouterr().err
    assert "warning: the tracker wandb" in err
    assert "temper export-metrics out --to wandb" in err
    hashes = {p.name: p.read_bytes() for p in Path("out/artifacts").rglob("model.safetensors")}
    Path("out").rename("with")
    plain = run(recipe)
    assert told.ran == plain.ran
    assert {p.name: p.read_bytes() for p in Path("out/artifacts").rglob("model.safetensors")} == hashes
    assert set(os.listdir("out/artifacts")) == set(os.listdir("with/artifacts"))


def test_no_tracker_outlives_its_run_for_long(recipe, wandb, monkeypatch):
    run(recipe)
    monkeypatch.setenv("TEMPER_TRACKER_SECONDS", "0.2")
    for way in ("hang", "hang at the start"):
        wandb(way)
        child = process.start(Path("out"), "wandb")
        child.stdin.close()
        assert child.wait(20) != 0


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_runs(recipe, monkeypatch):
    monkeypatch.setattr("temper.trackers.util.find_spec", lambda name: None)
    with pytest.raises(TemperError) as caught:
        run(recipe, "trackers=[trackio]")
    assert caught.value.code == Exit.OPTIONAL_PART
    assert 'pip install "temper-rl[trackio]"' in caught.value.faults[0].fix
    assert not Path("out").exists()


def test_an_unknown_tracker_is_told_those_there_are(recipe):
    with pytest.raises(TemperError) as caught:
        run(recipe, "trackers=[mlflow]")
    assert "tensorboard" in caught.value.faults[0].render()


def test_metrics_of_a_run_that_is_over_come_as_csv(recipe, capsys):
    run(recipe)
    assert cli.main(["export-metrics", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("stage,step,")
    assert len(lines) == 1 + 12


def test_a_run_without_metrics_is_told_so(recipe, tmp_path, capsys):
    run(recipe)
    for file in Path("out/stages").rglob("metrics.jsonl"):
        file.unlink()
    assert cli.main(["export-metrics", "out"]) == int(Exit.DATA)
    assert "no metrics" in capsys.readouterr().err


class Told:
    def __init__(self):
        self.steps, self.tables = [], []

    def log(self, stage, step, metrics):
        self.steps.append((stage, step))

    def completions(self, stage, step, rows):
        self.tables.append((stage, step, table(rows)))

    def close(self): ...


def test_completions_come_with_the_first_groups_of_a_step_each_reward_a_column(tmp_path):
    folder = tmp_path / "stages" / "01-rl"
    (folder / "rollouts").mkdir(parents=True)
    (folder / "stage.json").write_text('{"fingerprint": "f"}')
    (folder / "metrics.jsonl").write_text('{"step": 1, "of": 2, "loss": 0.5}\n')
    shown = [{"prompt_id": f"p{i // 4}", "reply": f"<b>{i}|", "rewards": {"accuracy": 1.0}} for i in range(16)]
    for step in (1, 2):  # the second is there before its row of metrics
        with gzip.open(folder / "rollouts" / f"step-{step:06d}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in shown)
    tracker, position = Told(), Position()
    assert send_new(tmp_path, tracker, position)
    assert not send_new(tmp_path, tracker, position)
    [(stage, step, (columns, cells))] = tracker.tables
    assert (stage, step, len(cells), columns[-1]) == ("rl", 1, 8, "reward/accuracy")
    assert len(first_groups(shown, 1)) == 4


def test_a_damaged_record_of_positions_starts_a_new_run_of_the_tracker(tmp_path):
    for text in ("[]", '{"wandb": 3}', '{"wandb": {"key": ""}}', '{"wandb": {"key": "a", "steps": [1]}}', "{"):
        (tmp_path / "trackers.json").write_text(text)
        assert read_positions(tmp_path, ["wandb"])["wandb"].steps == {}


@pytest.mark.skipif(util.find_spec("tensorboard") is None, reason="the extra `tensorboard` is not installed")
def test_tensorboard_reads_what_was_sent(recipe, capsys):
    run(recipe)
    assert cli.main(["export-metrics", "out", "--to", "tensorboard"]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [folder] = Path("out/tensorboard").glob("*/first")
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    assert [event.step for event in events.Scalars(tags[0])] == [1, 2, 3, 4, 5, 6]
    assert run(recipe).ran == ()  # the run directory is still known as one


@pytest.mark.skipif(util.find_spec("trackio") is None, reason="the extra `trackio` is not installed")
def test_trackio_holds_what_was_sent(recipe, tmp_path):
    run(recipe)
    elsewhere = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}  # read once, when trackio is imported
    command = [sys.executable, "-m", "temper", "export-metrics", "out", "--to", "trackio"]
    subprocess.run(command, env=elsewhere, check=True)
    assert list((tmp_path / "trackio").rglob("*.db"))


@pytest.mark.skipif(util.find_spec("wandb") is None, reason="the extra `wandb` is not installed")
def test_wandb_takes_it_offline(recipe, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(recipe)
    assert export("wandb") == "12 steps sent\n"
    assert list(Path("out/wandb").rglob("*.wandb"))
    assert run(recipe).ran == ()
