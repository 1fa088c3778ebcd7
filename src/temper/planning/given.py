"""What a stage is given: the paths of what its config names, as far as they exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from temper.config import TaskConfig
from temper.data.gym import gym_file
from temper.errors import TemperError
from temper.recipe.graph import Ref
from temper.recipe.recipe import Recipe, Stage
from temper.stages.context import Task


def locate(ref: Ref, artifacts: Mapping[str, Path]) -> Path | None:
    """The path of what a reference names; None if the stage that makes it has not run."""
    if ref.stage is None:
        return ref.path
    folder = artifacts.get(ref.stage)
    if folder is None or ref.kind in ("model", "reward"):
        return folder
    return folder / (ref.file or "data.jsonl")


def inputs(stage: Stage, artifacts: Mapping[str, Path]) -> dict[str, Path]:
    """The paths of everything a stage's config names that exists already."""
    found = {ref.text: locate(ref, artifacts) for ref in stage.references if ref.kind != "task"}
    return {text: path for text, path in found.items() if path is not None}


def tasks(stage: Stage, recipe: Recipe, artifacts: Mapping[str, Path]) -> dict[str, Task]:
    """The tasks that a stage's config names, then those of other stages, with their files as far as they exist: what
    one stage is tested on, another should not have been trained on."""
    paths = {text: path for other in recipe.stages for text, path in inputs(other, artifacts).items()}
    paths |= inputs(stage, artifacts)
    names = dict.fromkeys((*stage.tasks, *(name for other in recipe.stages for name in other.tasks)))
    return {
        name: _of_gym(name, config, recipe.origins.get(f"tasks.{name}.gym", "").removeprefix("recipe "))
        or Task(name, paths.get(config.train or ""), paths.get(config.test or ""), config)
        for name in names
        if (config := recipe.tasks.get(name))
    }


def _of_gym(name: str, config: TaskConfig, where: str = "") -> Task | None:
    """The task of a set of reasoning-gym, named at `where`: the prompts to test on are a tenth as many, and none of
    those to train on. Entry i is drawn by its seed plus i: those to test on begin where those to train on end."""
    if config.gym is None:
        return None
    try:
        train = gym_file(config.gym, config.size, config.seed, config.config)
        tested, seed = max(1, config.size // 10), config.seed + config.size
        test = gym_file(config.gym, tested, seed, config.config, unlike=(config.size, config.seed))
    except TemperError as error:
        raise TemperError([replace(fault, where=fault.where or where) for fault in error.faults], error.code) from None
    return Task(name, train, test, config)
