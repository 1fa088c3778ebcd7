"""What stages will take, told by rehearsing them: the clock, what later stages start from, and what the plan says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import fakes
import pytest

from temper.cli import main
from temper.planning import probe
from temper.planning.preflight import prepare
from temper.planning.probe import NotProbed
from temper.planning.rehearsal import MIN_STEPS, Rehearsed, Watch, rehearse
from temper.recipe.reader import load_recipe
from temper.record.cost import Cost, Meter, children_bytes
from temper.record.progress import StageLog
from temper.stages import STAGES

SMALL = """\
name: small
threads: 1
tasks:
  arithmetic: {train: "@world/arithmetic.train.jsonl"}
stages:
  world: {stage: tiny_world, arithmetic_train: 300, cold_start: 200, general_conversations: 7}
  base: {stage: import_model, model: tiny-base}
  sft: {stage: sft, model: "@base", data: "@world/cold_start.jsonl", batch_size: 2, learning_rate: 0.001}
  harvest: {stage: sample, model: "@sft", tasks: [arithmetic], num_generations: 2, max_completion_length: 3,
            max_per_prompt: 2, mix: ["@world/general_conversations.jsonl"]}
"""


@pytest.fixture
def fake_recipe(monkeypatch, tmp_path):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(fakes.RECIPE.replace("steps: 6}", "steps: 60, sleep: 0.01}", 1))
    return "my.yaml"


@pytest.fixture
def in_this_process(monkeypatch):
    """Rehearsals without a process each: the kinds of stages are those of this one."""

    def here(spec):
        recipe, _ = load_recipe(spec["recipe"], spec["settings"])
        artifacts = {name: Path(path) for name, path in spec["artifacts"].items()}
        try:
            return rehearse(recipe.by_name[spec["stage"]], recipe, artifacts, Path(spec["folder"]), spec["seconds"])
        except KeyError as error:
            raise NotProbed(f"KeyError: {error}") from None

    monkeypatch.setattr(probe, "rehearse_apart", here)


def rehearsed(name: str, folder: Path, artifacts: dict[str, Path], seconds: float = 0.01) -> Rehearsed:
    recipe, faults = load_recipe("small.yaml")
    assert not faults
    found = rehearse(recipe.by_name[name], recipe, artifacts, folder / name, seconds)
    artifacts[name] = folder / name / "out"
    return found


def test_a_rehearsal_takes_what_a_stage_tells_its_log():
    told = {name for name in vars(StageLog) if not name.startswith("_")} - {"close"}
    assert told <= set(dir(Watch))


def test_a_step_is_the_median_and_the_first_step_is_set_apart():
    watch = Watch(Meter(), 1)
    watch.marks = [(10.0, 20.0), (11.0, 22.0), (12.0, 24.0), (22.0, 44.0)]
    assert watch.times((3.0, 4.0)) == ((1.0, 2.0), (12.0, 22.0))


def test_where_a_step_is_long_one_is_enough_and_what_came_before_it_is_no_part_of_it(monkeypatch):
    watch = Watch(Meter(), 10)
    spent = iter([(6.0, 3.0), (9.0, 5.0), (14.0, 9.0)])
    monkeypatch.setattr(watch.meter, "spent", lambda: Cost(*next(spent)))
    watch.resume_at(0)
    assert not watch.stopping()  # nine of ten seconds
    assert watch.stopping()
    one = Watch(Meter(), 1)
    one.began, one.marks = (6.0, 3.0), [(14.0, 9.0)]
    assert one.times((0.5, 0.5)) == ((8.0, 6.0), (6.5, 3.5))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_probe_that_is_stopped_tells_what_it_has(number, code, fake_recipe, in_this_process, monkeypatch, capsys):
    here = probe.rehearse_apart

    def first_is_stopped(spec):
        if spec["stage"] == "first":
            os.kill(os.getpid(), number)
            time.sleep(1)
        return here(spec)

    monkeypatch.setattr(probe, "rehearse_apart", first_is_stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background may ignore it
    try:
        assert main(["plan", fake_recipe, "--probe", "0.001", "--json"]) == code
    finally:
        signal.signal(signal.SIGINT, before)
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["data"]["probe"]["steps"] == 1
    assert stages["first"]["probe"] == stages["report"]["probe"] == {"error": probe.STOPPED}


def test_a_stage_whose_first_step_does_not_end_is_given_up_in_time(monkeypatch, tmp_path):
    monkeypatch.setattr(probe, "LOADING", 0.2)
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nsleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    began = time.monotonic()
    with pytest.raises(NotProbed, match="not one step of it ended"):
        probe.rehearse_apart({"seconds": 0.1})
    assert time.monotonic() - began < 10


def test_a_rehearsal_ends_after_its_time_but_not_before_some_steps(fake_recipe, in_this_process, tmp_path):
    recipe, _ = load_recipe(fake_recipe)
    data = tmp_path / "data"
    rehearse(recipe.by_name["data"], recipe, {}, data, 1)
    short = rehearse(recipe.by_name["first"], recipe, {"data": data / "out"}, tmp_path / "short", 1e-9)
    assert (short.steps, short.total, short.finished) == (MIN_STEPS, 60, False)
    assert 0.01 <= short.seconds < 1
    longer = rehearse(recipe.by_name["first"], recipe, {"data": data / "out"}, tmp_path / "longer", 0.2)
    assert MIN_STEPS < longer.steps <= 60
    whole = rehearse(recipe.by_name["first"], recipe, {"data": data / "out"}, tmp_path / "whole", 1000)
    assert (whole.steps, whole.finished) == (60, True)


def test_a_plan_with_a_probe_tells_time_and_memory_and_writes_nothing(fake_recipe, in_this_process, capsys):
    assert main(["plan", fake_recipe, "--probe", "0.001", "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["first"]["probe"]["steps"] == 60
    assert 0.6 <= stages["first"]["seconds"] < 60
    assert stages["first"]["memory_bytes"] > 5_000_000
    assert "first has no" not in str(stages["second"]["probe"])
    assert os.listdir() == ["my.yaml"]
    assert main(["plan", fake_recipe, "--probe", "0.001"]) == 0
    shown = capsys.readouterr().out
    assert "with 60 steps of " in shown
    assert "what could be tried takes about" in shown
    assert "`--probe` tries" not in shown
    assert main(["plan", fake_recipe]) == 0
    assert "probe:   `--probe` tries each stage" in capsys.readouterr().out


def test_what_cannot_be_tried_is_told_and_the_rest_is_tried(fake_recipe, in_this_process):
    settings = ["first.fail=bug"]
    plan, _ = prepare(fake_recipe, settings)
    found = probe.probe(plan, fake_recipe, settings, 0.001, lambda text: None)
    assert "a bug" in str(found["first"])
    assert found["second"] == "it needs what first makes"
    assert not isinstance(found["data"], str)


def test_only_what_is_left_of_a_stage_that_goes_on_is_counted(fake_recipe, in_this_process, monkeypatch):
    from fakes.running import interrupt_after, run

    from temper.pipeline.run import Stopped

    interrupt_after(monkeypatch, "first", 20)
    with pytest.raises(Stopped):
        run(Path(fake_recipe))
    plan, _ = prepare(fake_recipe, out=Path("out"))
    found = probe.probe(plan, fake_recipe, [], 0.001, lambda text: None)["first"]
    assert isinstance(found, probe.Probed)
    assert found.steps == 40


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_a_length_of_time_that_is_none_is_refused(value, capsys):
    assert main(["plan", "smoke", f"--probe={value}"]) == 2
    assert "--probe" in capsys.readouterr().err


def test_a_stopped_stage_leaves_what_the_next_one_starts_from(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    artifacts: dict[str, Path] = {}
    rehearsed("world", tmp_path, artifacts)
    rehearsed("base", tmp_path, artifacts)
    trained = rehearsed("sft", tmp_path, artifacts)
    assert (trained.steps, trained.total, trained.finished) == (MIN_STEPS, 200, False)
    weights = [(artifacts[name] / "model.safetensors").read_bytes() for name in ("base", "sft")]
    assert weights[0] != weights[1]
    harvest = rehearsed("harvest", tmp_path, artifacts)
    assert harvest.total == 3
    assert 1 <= harvest.steps <= 2  # one where the machine is busy
    rows = (artifacts["harvest"] / "data.jsonl").read_text().splitlines()
    assert len(rows) == 2 * 300 + 7  # three tokens are never right, so that the mix stands in for what would be kept


def test_a_rehearsal_has_a_process_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    spec = {"recipe": "small.yaml", "settings": ["world.cold_start=10"], "stage": "world", "artifacts": {},
            "folder": str(tmp_path / "w"), "seconds": 1.0, "warm": True, "ended": {}}  # fmt: skip
    world = probe.rehearse_apart(spec)
    assert (world.steps, world.total, world.finished) == (1, 1, True)
    assert len((tmp_path / "w/out/cold_start.jsonl").read_text().splitlines()) == 10
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(NotProbed, match="ended with code 1: nothing was said"):
        probe.rehearse_apart(spec)


def test_the_cpu_time_of_a_living_child_counts_and_counts_once():
    meter, done = Meter(), os.pipe()
    child = os.fork()
    if child == 0:
        while time.process_time() < 0.3:
            pass
        os.write(done[1], b"x")
        time.sleep(60)
    os.read(done[0], 1)
    alive = meter.spent().cpu_seconds
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if Path(f"/proc/self/task/{os.getpid()}/children").exists():
        assert alive >= 0.25
    assert 0.25 <= meter.spent().cpu_seconds < alive + 0.2


def test_the_memory_of_children_is_what_they_hold_alone():
    before = children_bytes()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        held = bytearray(os.urandom(1)) * 50_000_000
        os.write(ready[1], held[:1])
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    held = children_bytes() - before
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    if Path("/proc/self/smaps_rollup").exists():
        assert 50_000_000 <= held < 80_000_000
    assert children_bytes() <= before
