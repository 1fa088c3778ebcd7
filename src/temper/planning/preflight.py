"""Everything that can be checked is checked before anything runs, and all that is wrong is told at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from temper.errors import DataError, Exit, Fault, ResourceError, TemperError
from temper.planning.estimate import estimate, model_sizes
from temper.planning.fit import Fit
from temper.planning.given import inputs, locate, tasks
from temper.planning.lengths import stage_tokens
from temper.planning.machines import this_machine
from temper.planning.plan import Plan, make_plan
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe
from temper.recipe.resolved import secrets
from temper.record.cost import memory_available, show_bytes
from temper.record.learning_rates import SUPERVISED_KINDS, advice
from temper.record.metrics import RL_KINDS
from temper.record.rundir import RunDir
from temper.stages.context import StageContext
from temper.trackers import missing_trackers

SPARE_BYTES = 64_000_000  # beside what the stages write: metrics, rollouts, the report


class CheckLog:
    """The log of a stage's `check`: it keeps warnings and shows nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str, key: str = "") -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def info(self, text: str) -> None:
        """A check has nothing to tell but faults and warnings."""

    def step(self, step: int, total: int, metrics: Mapping[str, object]) -> None:
        """A check takes no steps."""

    def note(self, text: str, key: str = "") -> None:
        """Nor of what asks for no change."""

    def resume_at(self, step: int, kept: Path | None = None) -> None:
        """Nothing was recorded."""


def prepare(
    reference: str,
    settings: Sequence[str] = (),
    out: Path | None = None,
    before_plan: Callable[[RunDir], None] = lambda folder: None,
) -> tuple[Plan, list[str]]:
    """The plan of a recipe that can run, and warnings. Writes nothing. `before_plan` is called once the recipe is known
    to be right and before anything is read of its run directory.

    Raises TemperError with every fault of the recipe, its files and its models; its code is that of the first family
    among them (config before data before models).
    """
    recipe, faults = load_recipe(reference, settings)
    faults += missing_trackers(recipe.trackers)
    folder = RunDir(out if out is not None else recipe.default_folder)
    folder.check_owner(recipe.name)
    plan = Plan(recipe, folder)
    if not faults:
        before_plan(folder)
        try:
            plan = make_plan(recipe, folder)
        except DataError as error:
            faults = list(error.faults)
    recipe = plan.recipe  # without the rounds that are known not to be needed
    log = CheckLog()
    faults += check_stages(recipe, plan, log)
    faults += Fit(recipe, lambda ref: locate(ref, plan.artifacts())).faults()
    if faults:
        raise TemperError(dict.fromkeys(faults), min(fault.code or Exit.CONFIG for fault in faults))
    return plan, [*secrets(recipe), *recipe.warnings, *log.warnings]


def check_stages(recipe: Recipe, plan: Plan, log: CheckLog) -> list[Fault]:
    """What the stages themselves find wrong with their files and models."""
    artifacts = plan.artifacts()
    faults: list[Fault] = []
    for stage in recipe.stages:
        check = getattr(stage.module, "check", None)
        if check is None:
            continue
        work = plan.folder.root / "stages" / stage.folder
        try:
            context = StageContext(
                name=stage.name,
                seed=recipe.seed,
                out=work,
                work=work,
                inputs=inputs(stage, artifacts),
                tasks=tasks(stage, recipe, artifacts),
                log=log,  # type: ignore[arg-type]
                stopping=lambda: False,
            )
            found = check(stage.config, context)
        except TemperError as error:
            found = error.faults
        faults += [fault if fault.where else replace(fault, where=str(stage.place(fault.what))) for fault in found]
    return faults


# -- resources --------------------------------------------------------------------------------------------------------


def disk_free(folder: Path) -> int:
    """Free bytes where `folder` is, or will be."""
    path = folder.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def advise(plan: Plan, kinds: Sequence[str] = (*RL_KINDS, *SUPERVISED_KINDS)) -> list[str]:
    """What there is to say against the settings of the stages of these `kinds` that will run."""
    sizes = model_sizes(plan.recipe, plan.artifacts())
    found = []
    for stage in (planned.stage for planned in plan.running if planned.stage.kind in kinds):
        size = sizes.get(getattr(stage.config, "model", ""))
        text = advice(stage.kind, vars(stage.config), size.parameters if size else None)
        found += [f"stage {stage.name}: {text}"] if text else []
    return found


def check_resources(plan: Plan) -> list[str]:
    """Warnings about memory. Raises ResourceError if the disk cannot hold what the stages will write."""
    artifacts = plan.artifacts()
    sizes, tokens = model_sizes(plan.recipe, artifacts), stage_tokens(plan.recipe, artifacts)
    here = this_machine(plan.recipe.threads)
    needs = [(p.stage.name, estimate(p.stage, sizes, tokens[p.stage.name], here)) for p in plan.running]
    disk = sum(need.disk_bytes or 0 for _, need in needs) + (SPARE_BYTES if needs else 0)
    free = disk_free(plan.folder.root)
    if free < disk:
        why = f"about {show_bytes(disk)} will be written, {show_bytes(free)} are free"
        fix = "free some space, or name a directory on another disk with --out"
        raise ResourceError(Fault("not enough disk space", str(plan.folder.root), why, fix))
    available = memory_available()
    return [
        f"stage {name} needs about {show_bytes(need.memory_bytes)} of memory, {show_bytes(available)} are available: "
        "it may not fit"
        for name, need in needs
        if available is not None and need.memory_bytes is not None and need.memory_bytes > available
    ]
