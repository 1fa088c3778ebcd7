"""Step labels, a process reward model trained on them, and RL that it supervises: one chain in a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_zoo import make
from stages.test_reward_model import labelled, pairs, write

from temper.errors import TemperError
from temper.pipeline.run import run_recipe
from temper.record.metrics import read_rows
from temper.record.rollouts import read_rows as read_rollouts
from temper.stages import step_labels

RECIPE = """
threads: 1
tasks:
  words: {train: words.jsonl, answer: text}
stages:
  labels: {stage: step_labels, model: m, tasks: [words], num_generations: 16, num_continuations: 2,
           max_completion_length: 3}
  judge: {stage: reward_model, kind: process, model: m, data: "@labels", batch_size: 8, learning_rate: 0.003}
  rl:
    stage: grpo
    model: m
    tasks: [words]
    supervision: process
    step_rewards: ["@judge"]
    reward_funcs: [format]
    max_steps: 2
    num_generations: 3
    prompts_per_step: 2
    max_completion_length: 12
    keep_rollouts_steps: 1
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make("llama", tmp_path / "m", num_hidden_layers=1)
    write(tmp_path / "words.jsonl", [{"question": f"q{i}", "answer": "b"} for i in range(8)])
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def test_labels_train_a_judge_that_supervises_each_step(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of random weights is never right: half of what it may write counts as right here."""
    monkeypatch.setitem(step_labels.REWARDS, "accuracy", lambda prompt, reply: float(len(reply.text) % 2))
    result = run_recipe("r.yaml", [], Path("out"))
    made = {name: Path("out/artifacts", stage["fingerprint"]) for name, stage in result.record["stages"].items()}
    rows = [json.loads(line) for line in (made["labels"] / "data.jsonl").read_text().splitlines()]
    assert all(len(row["steps"]) == len(row["labels"]) for row in rows)
    assert json.loads((made["judge"] / "reward_model.json").read_text())["kind"] == "process"
    work = next(Path("out/stages").glob("*-rl"))
    metrics = read_rows(work / "metrics.jsonl")
    assert [row["steps/failures"] for row in metrics] == [0, 0]
    assert all(0 < row["steps/judge"] < 1 for row in metrics)
    kept = read_rollouts(work / "rollouts/step-000001.jsonl.gz")
    assert all(0 < value < 1 for row in kept for value in row["step_rewards"]["judge"])


def test_a_model_of_whole_replies_is_refused_as_a_judge_of_steps(here: Path) -> None:
    write(here / "pairs.jsonl", pairs(30))
    write(here / "steps.jsonl", labelled(30))
    stages = "  {}: {{stage: reward_model, kind: {}, model: m, data: {}, batch_size: 8, learning_rate: 0.003}}\n"
    text = "threads: 1\nstages:\n" + stages.format("whole", "bradley_terry", "pairs.jsonl")
    (here / "made.yaml").write_text(text + stages.format("steps", "process", "steps.jsonl"))
    made = run_recipe("made.yaml", [], Path("made")).record["stages"]
    tail = RECIPE[RECIPE.index("  rl:") :]
    for name, refused in (("whole", True), ("steps", False)):
        path = Path("made/artifacts", made[name]["fingerprint"])
        (here / "rl.yaml").write_text(RECIPE[: RECIPE.index("  labels")] + tail.replace("@judge", str(path)))
        if refused:
            with pytest.raises(TemperError, match="a bradley_terry reward model cannot judge steps"):
                run_recipe("rl.yaml", [], Path("rl"))
        else:
            run_recipe("rl.yaml", [], Path("rl"))
