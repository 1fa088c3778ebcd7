"""Benchmarks by name: rows of one's own copy or of the Hub, asked and read as published figures are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from temper.benchmarks import BENCHMARKS
from temper.cli import main
from temper.config import TaskConfig
from temper.data.tasks import load_prompts, resolve_task
from temper.errors import ConfigError, DataError, Fault
from temper.hub.names import data_name
from temper.hub.resolve import Resolved

# A row of each as its public copy writes them; ours in words.
ROWS = {
    "gsm8k": {"question": "4+5?", "answer": "4+5=<<4+5=9>>9\n#### 9"},
    "math500": {"problem": "4+5?", "solution": "$\\boxed{9}$", "answer": "9", "subject": "Algebra", "unique_id": "a/1"},
    "aime24": {"id": 60, "problem": "4+5?", "solution": "long", "answer": "009", "url": "u", "year": "2024"},
    "aime25": {"problem": "4+5?", "answer": "9", "id": "0"},
    "amc23": {"id": 0, "question": "4+5?", "answer": 9.0, "url": "u"},
    "olympiadbench": {
        "id": 1, "question": "4+5?", "solution": ["long"], "final_answer": ["$9$"], "context": None,
        "is_multiple_answer": False, "unit": None, "answer_type": "Numerical", "error": None, "language": "English",
    },
    "gpqa_diamond": {
        "Question": "4+5?", "Correct Answer": "nine", "Incorrect Answer 1": "one", "Incorrect Answer 2": "two",
        "Incorrect Answer 3": "ten", "Explanation": "long", "Pre-Revision Question": "4 plus 5?",
    },
    "minerva": {"question": "4+5?", "answer": "9"},
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_copy_of_each_loads_and_is_asked_as_published(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[name]))
    task = resolve_task(f"{name}={path}")
    assert task.name == name
    assert task.test == path
    (prompt,) = load_prompts(task.test, task.name, task.config, tell=lambda _: None)
    assert prompt.text.startswith("4+5?")
    assert "step by step" in prompt.text
    assert "\\boxed{}" in prompt.text
    assert prompt.reply == "think"
    assert prompt.gold in ("9", "009", "9.0", "$9$", "A", "B", "C", "D")
    written = TaskConfig(columns=dict(BENCHMARKS[name].columns))  # the columns that the table names are there
    assert load_prompts(path, name, written, tell=lambda _: None)


def test_every_source_can_be_read_as_a_name() -> None:
    for benchmark in BENCHMARKS.values():
        name = data_name(benchmark.source)
        assert name.split
        assert 4 <= benchmark.samples <= 64
        assert set(benchmark.keys()) <= set(TaskConfig.model_fields)


def test_what_is_written_wins_over_the_benchmark() -> None:
    config = TaskConfig(benchmark="gsm8k", reply="tags", prompt_template=None)
    assert (config.reply, config.prompt_template, config.unverifiable) == ("tags", None, "drop")
    with pytest.raises(ValidationError, match="no benchmark `gsm9k`: there are gsm8k"):
        TaskConfig(benchmark="gsm9k")


def test_an_unknown_name_lists_them() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_task("gsm9k")
    assert "aime24" in caught.value.render()


def test_a_recipe_names_a_benchmark_and_is_warned_of_what_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS["gsm8k"]))
    rows = [{"question": f"{n}+5?", "answer": str(n + 5)} for n in range(4, 8)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "my.yaml").write_text(
        "name: my\ntasks:\n  sums: {train: train.jsonl}\n  gsm8k: {benchmark: gsm8k=test.jsonl}\nstages:\n"
        "  rl: {stage: grpo, model: tiny-base, tasks: [sums], prompts_per_step: 2, num_generations: 2, max_steps: 1}\n"
        '  report: {stage: evaluate, models: ["@rl"], tasks: [gsm8k]}\n'
    )
    assert main(["plan", str(tmp_path / "my.yaml")]) == 0
    assert "1 of 1 test prompts are also in the training set" in capsys.readouterr().err


def test_without_the_hub_a_file_of_ones_own_is_offered(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    def unreachable(source: str) -> Resolved:
        raise DataError(Fault(f"`{source}` is not in the cache", fix="where there is a network: fetch it"))

    monkeypatch.setattr("temper.data.tasks.resolve_data", unreachable)
    assert main(["eval", "tiny-base", "--tasks", "aime24"]) == 3
    assert "fetch it; a file of yours will do: `aime24=FILE.jsonl`" in capsys.readouterr().err


def test_eval_takes_a_benchmark_and_says_what_it_was_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS["gsm8k"]))
    words = ["eval", "tiny-base", "--tasks", f"gsm8k={path}", "--max-tokens", "4", "--json", "--trained-on", str(path)]
    assert main(words) == 0
    said = capsys.readouterr()
    task = json.loads(said.out)["tasks"]["gsm8k"]
    assert (task["k"], task["reply"]) == (BENCHMARKS["gsm8k"].samples, "think")
    assert "1 of 1 test prompts are also in the training set" in said.err
