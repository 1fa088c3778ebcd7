"""The stage `sft` on the gold answers of tasks: what it learns, and which tasks have nothing to learn."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_zoo import make
from pydantic import ValidationError

from temper import cli
from temper.config import TaskConfig
from temper.errors import DataError
from temper.stages import sft
from temper.stages.context import StageContext, Task
from temper.stages.sft import Config, read_examples
from temper.text.chat import ChatFormat

ASKED = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(6)]
SYSTEM = "Answer with the number alone."


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("llama", tmp_path_factory.mktemp("model") / "base", num_hidden_layers=1)


def context(model: Path, folder: Path, rows: list[dict[str, Any]], told: list[str], **options: Any) -> StageContext:
    config = TaskConfig(**{"train": "sums.jsonl", "reply": "plain", "system_prompt": SYSTEM, **options})
    tasks = {"sums": Task("sums", write(folder / "sums.jsonl", rows), None, config)}
    log = SimpleNamespace(warn=told.append, note=told.append)
    inputs = {"base": model, "data.jsonl": folder / "data.jsonl"}
    return StageContext("cold_start", 0, folder, folder, inputs, tasks, log, lambda: False)  # type: ignore[arg-type]


def test_it_learns_the_gold_answers_as_it_would_from_a_file_of_them(model: Path, tmp_path: Path) -> None:
    ctx, chat = context(model, tmp_path, ASKED, []), ChatFormat.load(model)
    turns = [
        [("system", SYSTEM), ("user", row["question"]), ("assistant", row["answer"])] for row in ASKED[:4]
    ]
    messages = [{"messages": [{"role": role, "content": content} for role, content in turn]} for turn in turns]
    write(tmp_path / "data.jsonl", messages)
    golds = Config(model="base", tasks=["sums"], max_prompts=4)
    assert sft.check(golds, ctx) == []
    assert read_examples(golds, chat, ctx) == read_examples(Config(model="base", data="data.jsonl"), chat, ctx)


def test_answers_that_no_verifier_reads_are_learned_too(model: Path, tmp_path: Path) -> None:
    rows = [{"question": "Keep those above 5: 3, 9", "answer": "['9']"}]
    config, ctx = Config(model="base", tasks=["sums"]), context(model, tmp_path, rows, [])
    assert sft.check(config, ctx) == []
    assert len(read_examples(config, ChatFormat.load(model), ctx)) == 1


def test_prompts_without_an_answer_are_left_out_and_counted(model: Path, tmp_path: Path) -> None:
    told: list[str] = []
    ctx = context(model, tmp_path, [*ASKED, {"question": "why?", "answer": None}], told)
    assert len(read_examples(Config(model="base", tasks=["sums"]), ChatFormat.load(model), ctx)) == len(ASKED)
    assert "1 of 7 prompts have no gold answer and are left out" in told


def test_a_task_without_golds_or_with_thoughts_is_refused_before_anything_runs(model: Path, tmp_path: Path) -> None:
    config = Config(model="base", tasks=["sums"])
    ctx = context(model, tmp_path, [{"prompt": "Tell a story."}], [])
    [fault] = sft.check(config, ctx)
    assert fault.what == "no row of task `sums` has a gold answer to learn"
    with pytest.raises(DataError, match="gold answer to learn"):
        read_examples(config, ChatFormat.load(model), ctx)
    [fault] = sft.check(config, context(model, tmp_path, ASKED, [], reply="tags"))
    assert "have no thoughts" in fault.what


@pytest.mark.parametrize("given", [{}, {"data": "data.jsonl", "tasks": ["sums"]}])
def test_one_of_data_and_tasks_is_asked_for(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`data` or `tasks`"):
        Config(model="base", **given)


def test_the_plan_knows_how_long_the_rows_are(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "sums.jsonl", ASKED)
    recipe = tmp_path / "my.yaml"
    recipe.write_text(
        f"tasks:\n  sums: {{train: sums.jsonl, reply: plain}}\n"
        f"stages:\n  cold_start: {{stage: sft, model: {model}, tasks: [sums]}}\n"
    )
    assert cli.main(["plan", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert "not known yet" not in capsys.readouterr().out
