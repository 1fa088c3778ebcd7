"""Asked to stop, a run ends within seconds however long its step takes, and goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from temper.artifacts import hash_file

SOURCE = Path(__file__).parents[2] / "src"
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
SLOW = """
import sys, time
where = sys.argv.pop(1)
if where == "sampling":
    from temper.stages.rollouts import Rollouts as of; name = "collect"
else:
    from temper.train.learner import Learner as of; name = "_gather_gradients"
inner, calls = getattr(of, name), []
def slowly(*args):
    calls.append(1)
    if len(calls) == 2:
        open("slow", "w").close()
        for _ in range(600):
            time.sleep(0.1)
    return inner(*args)
setattr(of, name, slowly)
from temper.cli import main
sys.exit(main())
"""


def start(*command: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *command], env=env, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize(("where", "times", "code"), [("sampling", 1, 75), ("gradient", 2, 75)])
def test_a_long_step_is_given_up_within_seconds_and_taken_again(tmp_path, monkeypatch, where, times, code):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(8)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("my.yaml").write_text(RECIPE)
    process = start("-c", SLOW, where, "run", "my.yaml", "--out", "out")
    until = time.monotonic() + 90
    while not Path("slow").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert time.monotonic() - began < 20
    assert "step 2 of 3 was given up" in said
    assert "checkpoint after step 1" in said
    assert [path.name for path in Path("out").glob("stages/*/checkpoints/*")] == ["step-000001"]
    for out in ("out", "whole"):
        process = start("-m", "temper", "run", "my.yaml", "--out", out)
        _, said = process.communicate(timeout=90)
        assert process.returncode == 0, said
    assert len({hash_file(path) for path in Path().glob("*/artifacts/*/model.safetensors")}) == 2  # base and rl
