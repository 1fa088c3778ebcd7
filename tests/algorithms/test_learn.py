"""The examples of docs/learn.md are run as they stand; the words it names are in the code."""

from __future__ import annotations

import argparse
import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from temper.cli import COMMANDS
from temper.recipe.reader import load_recipe
from temper.stages.grpo import Config
from temper.stages.ppo import Config as PPOConfig

PAGE = Path(__file__).parents[2] / "docs/learn.md"


def test_the_ten_errors_are_proved() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (found.failed, found.attempted > 25) == (0, True)


def test_there_are_ten_and_each_has_lines_that_show_it() -> None:
    section = PAGE.read_text("utf-8").split("## Ten things")[1].split("\n## ")[0]
    parts = re.split(r"^\*\*(\d+)\. ", section, flags=re.M)[1:]
    assert parts[::2] == [str(number) for number in range(1, 11)]
    assert all("```python" in part for part in parts[1::2])


def test_keys_of_the_table_of_words_are_keys() -> None:
    words = PAGE.read_text("utf-8").split("## The words")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+):?[^`]*`", words)) & {
        "num_generations",
        "kl_penalty",
        "advantage",
        "temperature",
    }
    known = set(Config.model_fields) | set(PPOConfig.model_fields)
    assert named
    assert named | {"num_mini_batches", "num_iterations", "ratio_against", "value_model", "prompts_per_step"} <= known


EXERCISE = (PAGE.parent / "exercise.md").read_text("utf-8")
LINES = re.findall(r"^    (temper .+)$", EXERCISE, re.M)


def parsed(line: str) -> tuple[str, argparse.Namespace]:
    verb, *rest = shlex.split(line, comments=True)[1:]
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    importlib.import_module(COMMANDS[verb][0]).add_arguments(parser)
    return verb, parser.parse_args(rest)


@pytest.mark.parametrize("line", [line for line in LINES if " doctor" not in line])
def test_every_command_of_the_exercise_is_one(line: str) -> None:
    assert parsed(line)[1]


def test_the_exercise_changes_keys_that_its_recipe_has() -> None:
    keys = [
        key for verb, given in map(parsed, LINES) if verb == "sweep" for key in given.over[0].split("=")[0].split(",")
    ]
    settings = re.findall(r"--set ([\w.]+=\S+?)`", EXERCISE) + re.findall(r"--set ([\w.]+=\d+)", EXERCISE)
    recipe, faults = load_recipe("tiny_rl", sorted(set(settings)))
    assert faults == []
    assert len(keys) == 4
    for key in keys:
        stage, name = key.split(".")
        assert name in type(recipe.by_name[stage].config).model_fields
    assert [f"## Task {number}:" in EXERCISE for number in range(1, 6)] == [True] * 5
