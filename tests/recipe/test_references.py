"""References: every one is found before anything runs, or told about with what would be right."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import fakes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Exit, Fault
from temper.recipe.graph import find_circle, sort_stages
from temper.recipe.reader import load_recipe
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)


def faults_of(folder: Path, text: str) -> list[Fault]:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path))[1]


def one_fault(folder: Path, stages: str, tasks: str = "") -> Fault:
    faults = faults_of(folder, tasks + "stages:\n" + "".join(f"  {line}\n" for line in stages.splitlines()))
    assert len(faults) == 1, [fault.render() for fault in faults]
    return faults[0]


def test_an_unknown_stage_has_the_nearest_name(tmp_path):
    fault = one_fault(tmp_path, "first: {stage: fake_train}\nb: {stage: fake_train, model: '@frist'}")
    assert "unknown stage `@frist`" in fault.what
    assert fault.fix == "did you mean `@first`?"
    assert fault.where.endswith("my.yaml:3:33")


@pytest.mark.parametrize(
    ("use", "what"),
    [
        ("model: '@d'", "needs a model, but `@d` is a data set"), ("model: '@r'", "is an evaluation"),
        ("data: '@m'", "needs a data set, but `@m` is a model"), ("data: '@r'", "is an evaluation"),
        ("mix: ['@d', '@m']", "needs a data set, but `@m` is a model"), ("model: '@d/x.jsonl'", "needs a model"),
        ("data: '@d/../../x'", "leaves what `d` makes"), ("data: '@'", "unknown stage"),
    ],
)  # fmt: skip
def test_what_a_stage_makes_must_be_what_is_needed(tmp_path, use, what):
    stages = (
        "d: {stage: fake_data}\nm: {stage: fake_train}\nr: {stage: fake_measure, models: ['@m']}\n"
        f"x: {{stage: fake_train, {use}}}"
    )
    assert what in one_fault(tmp_path, stages).what


def test_a_file_of_an_evaluation_can_be_data(tmp_path):
    text = (
        "stages:\n"
        "  m: {stage: fake_train}\n"
        "  r: {stage: fake_measure, models: ['@m']}\n"
        "  x: {stage: fake_train, data: '@r/s.jsonl'}\n"
    )
    assert not faults_of(tmp_path, text)


def test_a_stage_before_what_it_uses_is_told_which_to_move(tmp_path):
    fault = one_fault(tmp_path, "harvest: {stage: fake_train, model: '@rl'}\nrl: {stage: fake_train}")
    assert "`harvest` stands before `rl`" in fault.what
    assert "needs what `rl` makes" in fault.why
    assert fault.fix == "move `harvest` below `rl`"


@pytest.mark.parametrize(
    "stages",
    [
        "a: {stage: fake_train, model: '@a'}",
        "a: {stage: fake_train, model: '@b'}\nb: {stage: fake_train, model: '@a'}",
        "a: {stage: fake_train, model: '@c'}\nb: {stage: fake_train, model: '@a'}\nc: {stage: fake_train, model: '@b'}",
    ],
)
def test_a_circle_is_one_fault(tmp_path, stages):
    fault = one_fault(tmp_path, stages)
    assert "circle" in fault.what or "refers to the stage itself" in fault.what
    assert "needs" in fault.why


def test_a_circle_through_a_task_is_found(tmp_path):
    tasks = "tasks: {t: {train: '@d/x.jsonl'}}\n"
    stages = "m: {stage: fake_train, tasks: [t]}\nd: {stage: fake_data}"
    assert "`m` stands before `d`" in one_fault(tmp_path, stages, tasks).what


def test_a_stage_named_without_its_sign_is_recognised(tmp_path):
    fault = one_fault(tmp_path, "base: {stage: fake_train}\nb: {stage: fake_train, model: base}")
    assert '"@base"' in fault.fix
    assert fault.code == Exit.CONFIG


def test_an_unknown_task_has_the_nearest_name(tmp_path):
    tasks = "tasks: {arithmetic: {}}\n"
    fault = one_fault(tmp_path, "m: {stage: fake_train, tasks: [arithmetics]}", tasks)
    assert fault.fix == "did you mean `arithmetic`?"
    assert "no `tasks`" in one_fault(tmp_path, "m: {stage: fake_train, tasks: [x]}").why


def test_a_missing_data_file_is_named_with_where_it_was_looked_for(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{}\n")
    fault = one_fault(tmp_path, "m: {stage: fake_train, data: promts.jsonl}")
    assert str(tmp_path / "promts.jsonl") in fault.why
    assert fault.fix == "did you mean `prompts.jsonl`?"
    assert fault.code == Exit.DATA


def test_a_directory_is_no_data_file(tmp_path):
    (tmp_path / "prompts").mkdir()
    fault = one_fault(tmp_path, "m: {stage: fake_train, data: prompts}")
    assert "is a directory" in fault.why


def test_a_missing_file_of_a_task_is_told_once_however_many_stages_use_it(tmp_path):
    tasks = "tasks: {t: {train: nope.jsonl}}\n"
    stages = "a: {stage: fake_train, tasks: [t]}\nb: {stage: fake_train, tasks: [t]}"
    assert one_fault(tmp_path, stages, tasks).where.endswith("my.yaml:1:20")


@pytest.mark.parametrize("name", ["nope", "./nope", "/nope/at/all", "x" * 5000, ""])
def test_a_missing_model_is_told_as_a_model(tmp_path, name):
    fault = one_fault(tmp_path, f"m: {{stage: fake_train, model: '{name}'}}")
    assert fault.code == Exit.ARTIFACT


def test_a_model_of_the_hub_says_how_to_fetch_it(tmp_path):
    fault = one_fault(tmp_path, "m: {stage: fake_train, model: Qwen/Qwen2.5-0.5B}")
    assert "hf download Qwen/Qwen2.5-0.5B" in fault.fix


def test_a_runs_model_is_exported_before_a_recipe_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/tiny-1").mkdir(parents=True)
    Path("my.yaml").write_text("stages:\n  a: {stage: import_model, model: 'runs/tiny-1:final_rl'}\n")
    _, [fault] = load_recipe("my.yaml")
    assert "temper export runs/tiny-1:final_rl DIR" in fault.fix


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_text("x")
    assert "is a file" in one_fault(tmp_path, "m: {stage: fake_train, model: model.bin}").why


def test_paths_are_relative_to_the_recipe_they_are_written_in(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.jsonl").write_text("{}\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    (tmp_path / "base" / "base.yaml").write_text("stages: {m: {stage: fake_train, data: a.jsonl}}\n")
    (tmp_path / "my.yaml").write_text("extends: base/base.yaml\nstages: {m: {mix: [b.jsonl]}}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe, faults = load_recipe(str(tmp_path / "my.yaml"))
    assert not faults
    assert [ref.path for ref in recipe.stages[0].references] == [tmp_path / "base" / "a.jsonl", tmp_path / "b.jsonl"]


def test_paths_are_also_found_from_the_current_directory(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.jsonl").write_text("{}\n")
    monkeypatch.chdir(elsewhere)
    assert not faults_of(tmp_path, "stages: {m: {stage: fake_train, data: a.jsonl}}\n")


def test_one_name_for_two_files_in_one_stage_is_refused(tmp_path):
    (tmp_path / "base").mkdir()
    for folder in (tmp_path, tmp_path / "base"):
        (folder / "a.jsonl").write_text("{}\n")
    (tmp_path / "base" / "base.yaml").write_text("stages: {m: {stage: fake_train, data: a.jsonl}}\n")
    path = tmp_path / "my.yaml"
    path.write_text("extends: base/base.yaml\nstages: {m: {mix: [a.jsonl]}}\n")
    (fault,) = load_recipe(str(path))[1]
    assert "means two files" in fault.what


def test_a_reward_file_is_found_and_a_reward_by_name_is_left_to_the_stage(tmp_path):
    (tmp_path / "mine.py").write_text("def f(prompt, reply): return 1.0\n")
    text = "stages: {m: {stage: fake_train, reward_funcs: [accuracy, 'mine.py:f']}}\n"
    (tmp_path / "my.yaml").write_text(text)
    recipe, faults = load_recipe(str(tmp_path / "my.yaml"))
    assert not faults
    assert {ref.text: ref.path for ref in recipe.stages[0].references} == {
        "accuracy": None, "mine.py:f": tmp_path / "mine.py:f",
    }  # fmt: skip
    assert "reward file" in one_fault(tmp_path, "m: {stage: fake_train, reward_funcs: ['nope.py:f']}").what


NAMES = [f"s{i}" for i in range(6)]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)))
def test_a_graph_has_a_circle_or_an_order(uses):
    circle = find_circle(uses)
    if circle:
        assert circle[0] == circle[-1]
        assert all(b in uses[a] for a, b in pairwise(circle))
    else:
        order = sort_stages(uses)
        assert sorted(order) == sorted(uses)
        assert all(order.index(used) < order.index(name) for name in uses for used in uses[name] if used in uses)
