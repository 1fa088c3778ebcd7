"""Whatever is done to a recipe, what is wrong is told: each fault once, with its place, never as a bug of temper."""

from __future__ import annotations

import copy
import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper import cli
from temper.recipe.sources import RECIPES

NAMES = ("smoke", "tiny_rlhf", "tiny_process", "tiny_distill", "own_data")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 10**23, 0.5, float("nan"), float("inf"), "", " ", "x", "@", "@x", "@base", "@@", "/",
    "..", "maths", "a" * 5000, "\u202e", [], [[]], [None], ["x", 3], {}, {"x": {"y": {}}}, {"": 1}, {"train": 5},
)  # fmt: skip


def places(node: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def mutated(recipe: dict, random: Random) -> dict:
    """The recipe with one to three things dropped, renamed, doubled under another name or replaced."""
    made = copy.deepcopy(recipe)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        *way, last = random.choice(places(made) or [("stages",)])
        node = made
        for part in way:
            node = node[part]
        kind = random.choice(("drop", "rename", "replace", "replace", "add"))
        if kind == "drop":
            del node[last]
        elif kind in ("rename", "add") and isinstance(node, dict):
            node[random.choice(("tset", "lrr", "", "learning_rate", "x" * 70, "stage", "a.b"))] = node[last]
            if kind == "rename":
                node.pop(last, None)
        else:
            node[last] = copy.deepcopy(random.choice(VALUES))
    return made


def plan(path: Path) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(["plan", str(path), "--out", str(path.parent / "run")])
    return code, err.getvalue()


def check(path: Path) -> None:
    code, told = plan(path)
    assert code in (0, 2, 3, 4, 5, 9), told
    assert "Traceback" not in told
    assert "internal bug" not in told
    blocks = re.findall(r"^error: .*(?:\n  .*)*", told, re.MULTILINE)
    assert len(blocks) == len(set(blocks)), told
    assert bool(blocks) == (code != 0), told


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_recipe_is_planned_or_its_faults_are_told(name, tmp_path, seed):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "my.yaml"
    text = yaml.safe_dump(mutated(recipe, Random(seed)), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    check(path)


TASK_FAULTS = {
    "tset: b.jsonl": "did you mean `test`",
    "answer: maths": "math",
    "train: 5": "`tasks.t.train`",
    "language: [en]": "`tasks.t.language`",
    "columns: x": "`tasks.t.columns`",
    "system_prompt: {a: 1}": "`tasks.t.system_prompt`",
}


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_a_fault_inside_a_task_that_a_stage_uses_is_the_only_one_told(fault, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2+3", "answer": "5"}\n' * 1)
    path = tmp_path / "my.yaml"
    keys = ["train: a.jsonl"] if not fault.startswith("train") else []
    body = ", ".join([*keys, fault])
    path.write_text(
        f"tasks:\n  t: {{{body}}}\nstages:\n  rl: {{stage: grpo, model: tiny-base, tasks: [t], "
        "reward_funcs: [accuracy], prompts_per_step: 1, max_steps: 1}\n"
    )
    code, told = plan(path)
    assert code == 2, told
    assert told.count("error:") == 1
    assert TASK_FAULTS[fault] in told
    assert "my.yaml:2:" in told


@pytest.mark.parametrize("task", ["t:", "t: []", "t: 5", "t: a.jsonl", "t: {}"])
def test_a_task_that_is_no_table_or_names_no_file_is_told(task, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        f"tasks:\n  {task}\nstages:\n  rl: {{stage: grpo, model: tiny-base, tasks: [t], reward_funcs: [accuracy]}}\n"
    )
    code, told = plan(path)
    assert code == 2, told
    assert "internal bug" not in told
