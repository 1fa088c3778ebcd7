"""Recipes that extend others, and recipes as they were understood: every value with its origin."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from temper.errors import ConfigError
from temper.recipe.reader import load_recipe
from temper.recipe.resolved import render_recipe
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)


# -- extends ----------------------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / "my.yaml")


def test_a_recipe_extends_another_deeply(tmp_path):
    base = "name: base\nseed: 3\nstages:\n  a: {stage: fake_train, steps: 9, schedule: {warmup_steps: 2}}\n"
    mine = "extends: base.yaml\nstages:\n  a: {learning_rate: 0.5, schedule: {shape: x}}\n"
    path = write(tmp_path, base=base, my=mine)
    recipe, faults = load_recipe(path)
    assert not faults
    config = recipe.stages[0].config
    assert (config.steps, config.learning_rate, config.schedule.warmup_steps, config.schedule.shape) == (9, 0.5, 2, "x")
    assert (recipe.name, recipe.seed) == ("my", 3)
    assert "base.yaml:4" in recipe.origin("stages.a.steps")
    assert "my.yaml:3" in recipe.origin("stages.a.learning_rate")


def test_a_stage_of_another_kind_replaces_the_one_it_extends(tmp_path):
    base = "stages:\n  a: {stage: fake_train, steps: 9}\n"
    path = write(tmp_path, base=base, my="extends: base.yaml\nstages:\n  a: {stage: fake_data, rows: 2}\n")
    _, faults = load_recipe(path)
    assert not faults


def test_an_empty_table_empties_what_it_extends_inside_a_stage_and_nothing_above(tmp_path):
    base = "tasks: {t: {columns: {prompt: q}, language: de}}\nstages:\n  a: {stage: fake_train, tasks: [t], steps: 9}\n"
    recipe, faults = load_recipe(
        write(tmp_path, base=base, my="extends: base.yaml\ntasks: {t: {columns: {}}}\nstages: {a: {}}\n")
    )
    assert not faults
    assert (recipe.tasks["t"].columns, recipe.tasks["t"].language, recipe.stages[0].config.steps) == ({}, "de", 9)


def test_new_stages_of_an_extending_recipe_run_before_what_uses_them(tmp_path):
    base = "stages:\n  a: {stage: fake_train}\n  report: {stage: fake_measure, models: ['@a']}\n"
    mine = "extends: base.yaml\nstages:\n  b: {stage: fake_train, model: '@a'}\n  report: {models: ['@a', '@b']}\n"
    recipe, faults = load_recipe(write(tmp_path, base=base, my=mine))
    assert not faults
    assert [s.folder for s in recipe.stages] == ["01-a", "02-b", "03-report"]


def test_a_circle_of_recipes_is_told_as_a_chain(tmp_path):
    path = write(tmp_path, my="extends: b.yaml\n", b="extends: c.yaml\n", c="extends: my.yaml\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    chain = [part.rpartition("/")[2] for part in error.value.faults[0].what.partition(": ")[2].split(" -> ")]
    assert chain == ["my.yaml", "b.yaml", "c.yaml", "my.yaml"]
    with pytest.raises(ConfigError, match="circle"):
        load_recipe(write(tmp_path, my="extends: my.yaml\n"))


def test_a_missing_base_is_told_with_the_chain(tmp_path):
    path = write(tmp_path, my="extends: b.yaml\n", b="extends: nope.yaml\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    (fault,) = error.value.faults
    assert "nope.yaml" in fault.what
    assert "my.yaml ->" in fault.where
    assert "b.yaml:1:10" in fault.where


@pytest.mark.parametrize("value", ["3", "[a]", "''", "{a: b}", "true"])
def test_extends_names_one_recipe(tmp_path, value):
    with pytest.raises(ConfigError, match="names one recipe"):
        load_recipe(write(tmp_path, my=f"extends: {value}\n"))


def test_faults_of_a_base_have_their_place_in_the_base(tmp_path):
    path = write(tmp_path, base="stages:\n  a: {stage: fake_train, stepz: 9}\n", my="extends: base.yaml\n")
    _, faults = load_recipe(path)
    assert [fault.where.rpartition("/")[2] for fault in faults] == ["base.yaml:2:26"]


# -- the recipe as it was understood ----------------------------------------------------------------------------------


def test_the_resolved_recipe_is_the_same_recipe(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, my=fakes.RECIPE), ["second.learning_rate=3e-4"])
    (tmp_path / "again.yaml").write_text(render_recipe(recipe), encoding="utf-8")
    again, faults = load_recipe(str(tmp_path / "again.yaml"))
    assert not faults
    assert [s.config for s in again.stages] == [s.config for s in recipe.stages]
    assert (again.name, again.seed, again.tasks) == (recipe.name, recipe.seed, recipe.tasks)


@pytest.mark.parametrize("name", ["tiny", "tiny_ppo", "tiny_presets", "tiny_process", "tiny_distill", "tiny_rlhf"])
def test_keys_that_the_resolved_recipe_filled_in_are_nobodys_mistake(tmp_path, name):
    recipe, faults = load_recipe(name)
    assert not faults
    (tmp_path / "again.yaml").write_text(render_recipe(recipe), encoding="utf-8")
    again, faults = load_recipe(str(tmp_path / "again.yaml"))
    assert not faults
    assert again.warnings == recipe.warnings
    assert [s.config for s in again.stages] == [s.config for s in recipe.stages]


def test_the_resolved_recipe_says_where_each_value_comes_from(tmp_path):
    recipe, _ = load_recipe(write(tmp_path, my=fakes.RECIPE), ["second.learning_rate=3e-4"])
    text = render_recipe(recipe)
    assert "learning_rate: 0.0003  # --set" in text
    assert "rows: 3  # recipe" in text
    assert "my.yaml:6" in text
    assert "shuffle: true  # default" in text
