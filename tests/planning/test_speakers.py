"""What the model at the end of a chain of stages would refuse is told before the first stage, by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_zoo import make

from temper.cli import main

RECIPE = """
tasks:
  sums: {{train: sums.jsonl, test: held_out.jsonl{task}}}
stages:
  m: {{stage: import_model, model: model{template}}}
  cold_start: {{stage: sft, model: "@m", data: chats.jsonl}}
  rl: {{stage: grpo, model: "@cold_start", tasks: [sums], max_steps: 1, prompts_per_step: 2}}
  table: {{stage: evaluate, models: ["@m", "@rl"], tasks: [sums]}}
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch, capsys):
    """Plans the recipe for a model whose template refuses system turns and whose context is 64 tokens."""
    monkeypatch.chdir(tmp_path)
    make("gemma2", tmp_path / "model", max_position_embeddings=64)
    chat = {"prompt": "What is 2+3?", "completion": "<think>2+3</think><answer>5</answer>"}
    (tmp_path / "chats.jsonl").write_text(json.dumps(chat) + "\n", encoding="utf-8")

    def run(train: list[str], held_out: list[str], task: str = "", template: str = "") -> tuple[int, str]:
        for name, questions in (("sums", train), ("held_out", held_out)):
            rows = [{"question": question, "answer": "5"} for question in questions]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "r.yaml").write_text(RECIPE.format(task=task, template=template), encoding="utf-8")
        code = main(["plan", "r.yaml"])
        return code, capsys.readouterr().err

    return run


SHORT = [f"What is {i}+3?" for i in range(3)]
LONG = "What is " + "1+" * 100 + "1?"


def test_a_recipe_that_fits_has_no_fault(plan):
    code, said = plan(SHORT, ["What is 7+7?"])
    assert code == 0, said


def test_a_system_prompt_that_the_template_refuses(plan):
    code, said = plan(SHORT, ["What is 7+7?"], task=", system_prompt: Be brief")
    assert code == 3
    assert "sums.jsonl:1" in said
    assert "held_out.jsonl:1" in said
    assert "leave out `system_prompt`" in said
    code, said = plan(SHORT, ["What is 7+7?"], task=", system_prompt: Be brief", template=", chat_template: plain")
    assert code == 0, said


def test_a_prompt_longer_than_the_context(plan):
    code, said = plan([*SHORT, LONG], SHORT[:1])
    assert code == 3
    assert "sums.jsonl:4" in said
    assert "context of 64" in said
    assert said.count("sums.jsonl:4") == 1
    assert plan(SHORT, [LONG])[0] == 3
