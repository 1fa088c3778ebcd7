"""Asked to stop, a run ends within seconds however long its step takes, and goes on to the same bits."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from temper.artifacts import hash_file
from temper.cli import main
from temper.stages.rollouts import Rollouts
from temper.train.learner import Learner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

RECIPE = """\
name: slow
threads: 1
tasks:
  sums: {train: rows.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  rl: {stage: grpo, model: "@base", tasks: [sums], reward_funcs: [length], max_steps: 3, save_steps: 100,
       num_generations: 2, prompts_per_step: 2, max_completion_length: 6, learning_rate: 1e-3, kl_penalty: 0,
       dtype: float32}
"""
# What takes long at real sizes, made to take long here: the second step's sampling or its gradient.
SLOW = {"sampling": (Rollouts, "collect"), "gradient": (Learner, "_gather_gradients")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs; that in `whole` is nowhere slow."""
    folder = tmp_path_factory.mktemp("slow")
    rows = [{"prompt": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "my.yaml").write_text(RECIPE)
    assert main(["run", str(folder / "my.yaml"), "--out", str(folder / "whole")]) == 0
    return folder


def run_slowly(where: str, folder: Path) -> None:
    """A process that says on standard error what a run says, and that the slow call has begun in the file `slow`."""
    os.dup2(os.open(folder / f"{where}.txt", os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    of, name = SLOW[where]
    inner, calls = getattr(of, name), []

    def slowly(*args):
        calls.append(1)
        if len(calls) == 2:
            (folder / f"{where}-began").touch()
            for _ in range(600):
                time.sleep(0.1)
        return inner(*args)

    setattr(of, name, slowly)
    sys.exit(main(["run", str(folder / "my.yaml"), "--out", str(folder / where)]))


@pytest.mark.parametrize(("where", "times"), [("sampling", 1), ("gradient", 2)])
def test_a_long_step_is_given_up_within_seconds_and_taken_again(folder, where, times):
    process = multiprocessing.get_context("fork").Process(target=run_slowly, args=(where, folder), daemon=True)
    process.start()
    until = time.monotonic() + 90
    while not (folder / f"{where}-began").exists() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    began = time.monotonic()
    for _ in range(times):
        process.terminate()
        time.sleep(0.2)
    process.join(60)
    said = (folder / f"{where}.txt").read_text()
    assert process.exitcode == 75, said
    assert time.monotonic() - began < 20
    assert "step 2 of 3 was given up" in said
    assert "checkpoint after step 1" in said
    assert [path.name for path in (folder / where).glob("stages/*/checkpoints/*")] == ["step-000001"]
    assert main(["run", str(folder / "my.yaml"), "--out", str(folder / where)]) == 0
    made = {hash_file(path) for out in (where, "whole") for path in folder.glob(f"{out}/artifacts/*/model.safetensors")}
    assert len(made) == 2  # base and rl
