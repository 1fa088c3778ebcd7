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
    None, True, False, 0, -1, 3, 10**23, 10**399, 0.5, float("nan"), float("inf"), "", " ", "x", "@", "@x",
    "@base", "@@", "/", "..", "maths", "a" * 5000, "\u202e", [], [[]], [None], ["x", 3], {}, {"x": {"y": {}}},
    {"": 1}, {"train": 5},
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
    assert all(re.search(r"\n  where: .*:\d+", block) for block in blocks), told


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


@pytest.mark.parametrize("value", ["1" * 23, "1" * 399, "-" + "1" * 399, "1e300", "1000000001"])
@pytest.mark.parametrize("key", ["max_steps", "kl_penalty", "learning_rate", "reward_weights", "guards"])
def test_numbers_that_nothing_is_made_for_are_refused_with_the_range(key, value, capsys):
    written = {"reward_weights": f"[1.0, 0.1, {value}]", "guards": f"{{max_kl_divergence: {value}}}"}.get(key, value)
    assert cli.main(["plan", "tiny", "--set", f"reasoning_rl.{key}={written}"]) == 2
    assert "it must be " in capsys.readouterr().err


LONG = ["x" * 5000, "y/" * 2500, "./" + "z" * 5000]


@pytest.mark.parametrize("name", LONG, ids=["word", "path", "file"])
@pytest.mark.parametrize(
    "command",
    ["run @", "plan @", "check @", "check --model @ f", "explain @", "samples @", "report @", "export @ x", "chat @",
     "export tiny-base @", "compare @ @", "eval @ --tasks z", "eval tiny-base --tasks @", "init @", "init tiny @", "@",
     "sweep @ --over seed=1", "sweep tiny --over @=1", "sweep tiny --over seed=@", "score --rewards @ f",
     "score --rewards accuracy @", "export-metrics @", "export-log @", "plan tiny --out @", "plan tiny --set @",
     "plan tiny --set @=1", "plan tiny --set name=@", "samples runs --stage @"],
)  # fmt: skip
def test_a_name_of_thousands_of_characters_is_one_short_error(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = cli.main([word.replace("@", name) for word in command.split()])
    told = capsys.readouterr().err
    assert code in (2, 3, 5), told[:300]
    assert told.count("error: ") == 1
    assert len(told) < 1500


@pytest.mark.parametrize(
    "stages",
    [
        "stages: {rl: 5, ev: {stage: evaluate, models: ['@rl'], tasks: [t]}}",
        "tasks: [t]\nstages: {ev: {stage: evaluate, models: [tiny-base], tasks: [t]}}",
        "stages: {ev: {stage: evaluate, models: [tiny-base], tasks: [t], reply: {tiny-base: plian}}}",
        "stages: {rl: {stage: grpo, model: tiny-base, tasks: [t], max_steps: 1, reward_tasks: {format: [tt]}}}",
        "stages: {rl: {stage: grpo, model: tiny-base, tasks: [t], max_steps: 1, lora: {target_modules: [nope_proj]}}}",
        "stages: {rl: {stage: grpo, model: tiny-base, tasks: [t], max_steps: 1, lora: {target_modules: '('}}}",
    ],
)
def test_what_follows_from_a_fault_is_not_told_beside_it(stages, tmp_path):
    if "lora" in stages:
        pytest.importorskip("peft")
    (tmp_path / "a.jsonl").write_text('{"question": "2+3", "answer": "5"}\n' * 40)
    path = tmp_path / "my.yaml"
    tasks = "" if stages.startswith("tasks") else "tasks: {t: {train: a.jsonl, test: a.jsonl}}\n"
    path.write_text(tasks + stages)
    code, told = plan(path)
    assert code == 2, told
    assert told.count("error:") == 1, told
    assert "my.yaml:" in told


@pytest.mark.parametrize(
    ("task", "said"),
    [("columns: {promt: question}", "did you mean `prompt`"), ("language: Klingon", "a language code")],
)
def test_a_fault_of_a_task_is_told_once_for_both_its_files_and_at_its_line(task, said, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2+3", "answer": "5"}\n' * 40)
    path = tmp_path / "my.yaml"
    path.write_text(
        f"tasks:\n  t: {{train: a.jsonl, test: a.jsonl, {task}}}\n"
        "stages: {rl: {stage: grpo, model: tiny-base, tasks: [t], max_steps: 1},\n"
        "  ev: {stage: evaluate, models: ['@rl'], tasks: [t]}}\n"
    )
    code, told = plan(path)
    assert code == 2, told
    assert told.count("error:") == 1
    assert said in told
    assert "my.yaml:2:" in told


def test_one_language_is_no_reward_where_no_word_of_it_is_known(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2+3", "answer": "5"}\n' * 40)
    path = tmp_path / "my.yaml"
    stages = "stages: {rl: {stage: grpo, model: tiny-base, tasks: [t], max_steps: 1, reward_funcs: [REWARD]}}\n"
    for reward, expected in (("language_consistency", 2), ("format", 0)):
        path.write_text("tasks: {t: {train: a.jsonl, language: tlh}}\n" + stages.replace("REWARD", reward))
        code, told = plan(path)
        assert code == expected, told
        assert "tlh" in told
