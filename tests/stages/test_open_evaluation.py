"""Evaluating prompts without gold answers: by the rewards that need none, beside tasks and rows that have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temper.cli import main

POEMS = [{"prompt": f"Write a poem about {topic}.", "topic": topic} for topic in ("rain", "dust")]
SUMS = [{"question": "1+1", "answer": "2"}, {"question": "Say a number.", "answer": None}]
RECIPE = """\
name: my
tasks:
  poems: {test: poems.jsonl}
  sums: {test: sums.jsonl}
stages:
  one: {stage: import_model, model: tiny-base}
  two: {stage: import_model, model: tiny-base}
  report:
    stage: evaluate
    models: ["@one", "@two"]
    tasks: [poems, sums]
    reward_funcs: ["my.py:on_topic"]
    reward_tasks: {"my.py:on_topic": [poems]}
    num_samples: 2
    max_completion_length: 4
    claims:
      - {model: two, task: poems, metric: "my.py:on_topic", at_least: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open")
    for name, rows in (("poems", POEMS), ("sums", SUMS)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "my.py").write_text("def on_topic(prompt, reply):\n    return len(prompt.row['topic']) / 8\n")
    (folder / "my.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def run_folder(folder: Path) -> Path:
    assert main(["run", str(folder / "my.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def scores_of(run_folder: Path) -> dict[str, Any]:
    return json.loads(next((run_folder / "artifacts").glob("*/evaluation.json")).read_text())


def test_what_asks_for_a_right_answer_is_null_where_there_is_none(run_folder: Path) -> None:
    found = scores_of(run_folder)
    poems, sums = (found["models"][0]["tasks"][task] for task in ("poems", "sums"))
    assert [poems[key] for key in ("accuracy", "accuracy_interval", "pass_at_k", "cons_at_k")] == [None] * 4
    assert (poems["n"], poems["open"], poems["rewards"]["my.py:on_topic"]) == (2, 2, 0.5)
    assert "accuracy" not in poems["rewards"]
    assert (sums["n"], sums["open"]) == (2, 1)
    assert sums["accuracy"] is not None
    assert "my.py:on_topic" not in sums["rewards"]
    assert [(row["task"], row["metric"], row["n"]) for row in found["comparisons"]] == [
        ("poems", "my.py:on_topic", 2),
        ("sums", "accuracy", 1),
    ]
    assert [claim["holds"] for claim in found["claims"]] == [True]


def test_the_table_and_the_page_show_the_reward_in_its_place(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["show", str(run_folder)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()[:3]
    assert "poems my.py:on_topic" in head
    assert all(row.split()[1] == "–" and "0.500" in row for row in rows)
    assert main(["report", str(run_folder)]) == 0
    assert "my.py:on_topic<small>poems</small>" in (run_folder / "report" / "index.html").read_text()


def test_eval_and_compare_pair_open_prompts_by_their_reward(folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["--tasks", f"{folder}/poems.jsonl,{folder}/sums.jsonl", "-n", "1", "--max-tokens", "4"]
    asked += ["--rewards", f"{folder}/my.py:on_topic"]
    (folder / "my.py").write_text("def on_topic(prompt, reply):\n    return len(prompt.row.get('topic', '')) / 8\n")
    for out in ("a", "b"):
        assert main(["eval", "tiny-base", *asked, "--out", str(folder / out), "--json"]) == 0
        told = capsys.readouterr()
        poems = json.loads(told.out)["tasks"]["poems"]
        assert (poems["accuracy"], poems["open"]) == (None, 2)
        assert "2 of 2 prompts of the task `poems` have no gold answer" in told.err
    assert main(["compare", str(folder / "a"), str(folder / "b"), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert tasks["poems"]["metric"].endswith("my.py:on_topic")
    assert tasks["sums"]["metric"] == "accuracy"
    assert main(["compare", str(folder / "a"), str(folder / "b")]) == 0
    assert "poems, " in capsys.readouterr().out
    assert main(["compare", str(folder / "a"), str(folder / "b"), "--task", "poems", "--metric", "pass@1"]) == 2


@pytest.mark.parametrize(
    ("rewards", "row", "told"),
    [
        ("accuracy", {"prompt": "Hi", "topic": "x"}, "no known shape"),
        ("format", {"prompt": "Hi", "anwser": "5"}, "anwser"),
        ("format", {"prompt": "Hi", "answer": "by induction on all of its many parts"}, "cannot be verified"),
    ],
)
def test_a_gold_answer_that_is_asked_for_or_given_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture, rewards: str, row: dict, told: str
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    assert main(["eval", "tiny-base", "--tasks", str(tmp_path / "t.jsonl"), "--rewards", rewards]) == 3
    assert told in capsys.readouterr().err


def test_samples_of_open_prompts_are_neither_right_nor_wrong(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    asked = ["samples", str(run_folder), "--stage", "two", "--task", "poems", "--json"]
    for more, count in (([], 4), (["--right"], 0), (["--wrong"], 0)):
        main([*asked, *more])
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) == count
        assert all(row["total"] == row["rewards"]["my.py:on_topic"] for row in rows)
