"""The key `reply` of tasks and stages: harvest, evaluation and table keep to the form that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli import main
from temper.stages.evaluate import Config

RECIPE = """
tasks:
  sums: {{test: sums.jsonl, train: sums.jsonl, reply: {task}}}
stages:
  base: {{stage: import_model, model: tiny-base}}
  again: {{stage: import_model, model: "@base"}}
  kept:
    {{stage: sample, model: "@base", tasks: [sums], num_generations: 2, min_rewards: {{format: 1.0}},
     max_completion_length: 12, reply: {stage}}}
  table:
    {{stage: evaluate, models: ["@base", "@again"], tasks: [sums], num_samples: 2, temperature: 1.0,
     max_completion_length: 12, reply: {{base: plain}}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"What is {i}+3?", "answer": f"{i + 3}"} for i in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_a_stage_and_a_model_of_the_table_have_forms_of_their_own(folder, capfd):
    (folder / "r.yaml").write_text(RECIPE.format(task="think", stage="plain"), encoding="utf-8")
    assert main(["run", "r.yaml", "--out", "run"]) == 0
    [found] = [json.loads(file.read_text()) for file in folder.glob("run/artifacts/*/evaluation.json")]
    forms = {model["stage"]: model["tasks"]["sums"]["reply"] for model in found["models"]}
    assert forms == {"base": "plain", "again": "think"}
    scores = {model["stage"]: model["tasks"]["sums"]["format"] for model in found["models"]}
    assert scores["base"] > scores["again"] == 0.0  # the base writes no tags at all
    out = capfd.readouterr().out
    assert "base (plain)" in out
    assert "again (think)" in out
    [kept] = [json.loads(file.read_text()) for file in folder.glob("run/artifacts/*/harvest.json")]
    assert kept["kept"] > 0
    assert set(kept["verdicts"]) <= {"kept", "truncated", "over the cap"}


def test_a_form_that_does_not_exist_is_refused_with_its_place(folder, capfd):
    (folder / "r.yaml").write_text(RECIPE.format(task="think", stage="thinking"), encoding="utf-8")
    assert main(["plan", "r.yaml"]) == 2
    said = capfd.readouterr().err
    assert "stages.kept.reply" in said
    assert "r.yaml:9" in said


def test_a_form_for_a_model_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match="reply names the model `other`"):
        Config(models=["@base"], tasks=["sums"], reply={"other": "plain"})


def test_eval_reads_columns_form_and_rewards_from_the_command_line(folder, capsys):
    (folder / "fragen.jsonl").write_text('{"frage": "What is 2+3?", "antwort": "five"}\n', encoding="utf-8")
    options = ["--columns", "prompt=frage,answer=antwort", "--answer=text", "--reply=plain", "--rewards=length"]
    sampling = ["-n", "2", "--max-tokens", "8", "--system-prompt", "Add.", "--json", "--out", "kept"]
    assert main(["eval", "tiny-base", "--tasks", "fragen.jsonl", *options, *sampling]) == 0
    report = json.loads(capsys.readouterr().out)
    measured = report["tasks"]["fragen"]
    assert (measured["reply"], measured["format"], report["rewards"]) == ("plain", 1.0, ["length"])
    assert 0 < measured["rewards"]["length"] < 0.01
    assert main(["eval", "tiny-base", "--tasks", "fragen.jsonl", "--columns", "frage"]) == 2
    assert main(["eval", "tiny-base", "--tasks", "fragen.jsonl", "--rewards", "lenght"]) == 2
