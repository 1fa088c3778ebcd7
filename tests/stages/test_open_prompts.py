"""Which tasks need gold answers: those that a reward which asks for them is for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from temper.config import TaskConfig
from temper.stages.context import Task
from temper.stages.prompts import check_tasks, known_prompts, open_prompts
from temper.stages.rewards import RewardsConfig, check_rewards, golds_of


@pytest.fixture
def ctx(tmp_path: Path) -> Any:
    files = {"maths": {"question": "2+3?", "answer": "5"}, "poems": {"prompt": "Write a poem.", "topic": "sea"}}
    for name, row in files.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    (tmp_path / "mine.py").write_text("def on_topic(p, r): return float(p.row['topic'] in r.text)\n"
                                      "def compares(p, r): return float(p.gold in r.text)\n"
                                      "compares.needs_gold = True\n")  # fmt: skip
    tasks = {name: Task(name, tmp_path / f"{name}.jsonl", None, TaskConfig(train=f"{name}.jsonl")) for name in files}
    inputs = {f"mine.py:{name}": Path(f"{tmp_path}/mine.py:{name}") for name in ("on_topic", "compares")}
    log = SimpleNamespace(warn=lambda text: None)
    return SimpleNamespace(tasks=tasks, inputs=inputs, log=log, work=tmp_path, stopping=lambda: False)


BOTH = ["maths", "poems"]


def test_a_task_without_golds_under_accuracy_is_told_with_file_and_line(ctx: Any) -> None:
    golds = golds_of(["accuracy", "format"], ctx, RewardsConfig(), BOTH)
    assert golds == {"maths": "accuracy", "poems": "accuracy"}
    (fault,) = check_tasks(BOTH, "train", ctx, golds)
    assert "`accuracy` asks for gold answers, and the task `poems` has none" in fault.what
    assert fault.where.endswith("poems.jsonl:1")


def test_a_reward_of_one_task_asks_nothing_of_the_other(ctx: Any) -> None:
    config = RewardsConfig(reward_tasks={"accuracy": ["maths"], "mine.py:on_topic": ["poems"]})
    names = ["accuracy", "format", "mine.py:on_topic"]
    golds = golds_of(names, ctx, config, BOTH)
    assert golds == {"maths": "accuracy"}
    assert check_tasks(BOTH, "train", ctx, golds) == []
    prompts = open_prompts(BOTH, "train", ctx, golds)
    assert [prompt.gold for of_task in prompts.values() for prompt in of_task] == ["5", None]
    assert check_rewards(names, ctx, config, lambda: known_prompts(BOTH, "train", ctx, golds)) == []


def test_a_reward_of_ones_own_that_needs_gold_says_so(ctx: Any) -> None:
    assert golds_of(["mine.py:compares"], ctx, RewardsConfig(), ["poems"]) == {"poems": "mine.py:compares"}
    assert golds_of(["mine.py:on_topic", "format"], ctx, RewardsConfig(), BOTH) == {}


def test_a_reward_is_tried_on_the_rows_of_its_own_tasks_alone(ctx: Any) -> None:
    everywhere = RewardsConfig()
    prompts = lambda: known_prompts(BOTH, "train", ctx, {})  # noqa: E731
    assert check_rewards(["mine.py:on_topic"], ctx, everywhere, prompts) == []  # it fails on some, which is a warning
    (fault,) = check_rewards(
        ["mine.py:on_topic"], ctx, RewardsConfig(reward_tasks={"mine.py:on_topic": ["maths"]}), prompts
    )
    assert "KeyError: 'topic'" in fault.why
