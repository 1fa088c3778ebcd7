"""The stage `distill`: it learns its teacher, whatever the micro-batches; an interrupted run ends in the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from pydantic import ValidationError
from tiny_models import tiny_model

from temper.artifacts import hash_file
from temper.config import TaskConfig
from temper.errors import ArtifactError, Preempted
from temper.stages import distill
from temper.stages.context import StageContext, Task
from temper.stages.distill import Config, update
from temper.train.divergence import Divergence
from temper.train.learner import Learner
from temper.types import Example

ROWS = [(5, 6, 7, 8, 9), (10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20, 21, 22)]
EXAMPLES = [Example(row, (False,) + (True,) * (len(row) - 1)) for row in ROWS]


class Log:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def step(self, step: int, total: int, metrics: dict[str, Any]) -> None:
        self.rows.append({"step": step, **metrics})

    def resume_at(self, step: int, kept: Path | None = None) -> None:
        self.rows = [row for row in self.rows if row["step"] <= step]

    def info(self, text: str) -> None: ...

    def note(self, text: str, key: str = "") -> None: ...

    def warn(self, text: str, key: str = "") -> None:
        self.warnings.append(text)


def settings(**options: Any) -> Config:
    return Config(**{"model": "student", "teacher": "teacher", "learning_rate": 0.01, "save_steps": 2, **options})


def given(**options: Any) -> Config:
    return settings(**{"mode": "forward_kl", "data": "data", "batch_size": 3, "num_train_epochs": 2, **options})


def sampled(**options: Any) -> Config:
    own = {"mode": "on_policy", "tasks": ["sums"], "max_steps": 6, "prompts_per_step": 4, "num_generations": 2}
    return settings(**{**own, "max_completion_length": 6, **options})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"prompt": f"{n}+1", "completion": f"<think>{n}+1</think><answer>{n + 1}</answer>"} for n in range(8)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(8)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    return {
        "student": make("llama", folder / "student", num_hidden_layers=1),
        "teacher": make("llama", folder / "teacher", seed=1),
        "data": folder / "data.jsonl",
        "sums": folder / "sums.jsonl",
    }


def run(config: Config, inputs: dict[str, Path], work: Path, stop_after: int | None = None) -> tuple[Path, Log]:
    log, out = Log(), work / "out"
    out.mkdir(parents=True, exist_ok=True)

    def stopping() -> bool:
        return stop_after is not None and len(log.rows) >= stop_after

    tasks = {"sums": Task("sums", inputs["sums"], None, TaskConfig(train="sums.jsonl"))}
    ctx = StageContext("student", 0, out, work, inputs, tasks, log, stopping)  # type: ignore[arg-type]
    assert distill.check(config, ctx) == []
    if stop_after is not None:
        with pytest.raises(Preempted):
            distill.run(config, ctx)
        return run(config, inputs, work)
    distill.run(config, ctx)
    return out / "model.safetensors", log


@pytest.mark.parametrize("config", [given(), sampled()], ids=["forward_kl", "on_policy"])
def test_an_interrupted_run_ends_in_the_same_bits(config: Config, inputs: dict[str, Path], tmp_path: Path) -> None:
    whole, log = run(config, inputs, tmp_path / "whole")
    cut, _ = run(config, inputs, tmp_path / "cut", stop_after=3)
    assert hash_file(whole) == hash_file(cut)
    assert hash_file(whole) != hash_file(inputs["student"] / "model.safetensors")
    assert len(log.rows) == 6


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("budget", [1, 8, 10_000])
def test_the_gradient_does_not_depend_on_the_micro_batches(name: Any, budget: int) -> None:
    gradients = []
    for size in (budget, 10_000):
        config = given(micro_batch_tokens=size, max_grad_norm=1e9)
        learner = Learner(tiny_model("llama"), config, 1)
        update(learner, tiny_model("qwen3"), Divergence(name, 1.0, 100), EXAMPLES)
        gradients.append(torch.cat([g.flatten() for g in learner.weights.gradients()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn_and_another_comes_nearer(name: Any) -> None:
    wanted, teacher = Divergence(name, 1.0, 100), tiny_model("llama")
    same = update(Learner(tiny_model("llama"), given(), 1), teacher, wanted, EXAMPLES)
    assert abs(same["loss"]) < 1e-6
    assert same["gradient_norm"] < 1e-5
    learner = Learner(tiny_model("qwen3"), given(), 30)
    losses = [update(learner, teacher, wanted, EXAMPLES)["loss"] for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


def test_another_vocabulary_is_refused_before_anything_runs(inputs: dict[str, Path], tmp_path: Path) -> None:
    foreign = {**inputs, "teacher": make("qwen3", tmp_path / "foreign")}
    ctx = StageContext("s", 0, tmp_path, tmp_path, foreign, {}, Log(), lambda: False)  # type: ignore[arg-type]
    [fault] = distill.check(given(), ctx)
    assert fault.what == "the student and the teacher have different tokenizers"
    with pytest.raises(ArtifactError):
        distill.run(given(), ctx)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "forward_kl"}, "mode `forward_kl` needs `data`"),
        ({"mode": "on_policy", "tasks": ["sums"]}, "mode `on_policy` needs `max_steps`"),
    ],
)
def test_a_config_names_what_its_mode_needs(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**options)
