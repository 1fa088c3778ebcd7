"""What a run would do, and why: fingerprints compared with what is on disk. Reads only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from temper.artifacts import (
    Foreign,
    HashCache,
    InvalidArtifact,
    Manifest,
    is_artifact_name,
    is_behind_link,
    read_manifest,
    verify,
)
from temper.errors import ArtifactError, ConfigError, DataError, Fault
from temper.masking import masked
from temper.planning.rounds import Verdict, judge
from temper.recipe.graph import Ref, is_folder
from temper.recipe.recipe import Recipe, Stage
from temper.recipe.resolved import flat
from temper.record.checkpoints import last_checkpoint, owner_of
from temper.record.rundir import RunDir
from temper.sealed import trusted

State = Literal["cached", "continue", "run"]


@dataclass(frozen=True)
class StagePlan:
    """One stage: whether it runs, and why. `material` is what its fingerprint is made of."""

    stage: Stage
    fingerprint: str
    material: Mapping[str, Any]
    state: State
    why: tuple[str, ...]
    manifest: Manifest | None = None  # of a cached stage

    @property
    def runs(self) -> bool:
        return self.state != "cached"


@dataclass(frozen=True)
class HalfDone:
    """A stage that has checkpoints under another config than the recipe's."""

    name: str
    step: int
    folder: Path
    changes: tuple[str, ...]


@dataclass
class Plan:
    """What a recipe does in a run directory. Of a block that has come to its end, `recipe` has no further rounds."""

    recipe: Recipe
    folder: RunDir
    stages: list[StagePlan] = field(default_factory=list)
    half_done: list[HalfDone] = field(default_factory=list)
    damaged: list[tuple[Path, Fault]] = field(default_factory=list)  # directories that are no artifacts, and why
    ignored: list[Fault] = field(default_factory=list)  # directories that nothing asks for
    hashes: dict[str, list[Any]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)  # by block, as far as its rounds have been measured

    @property
    def running(self) -> list[StagePlan]:
        return [plan for plan in self.stages if plan.runs]

    def artifacts(self) -> dict[str, Path]:
        """The artifact of each stage that is done, by the stage's name."""
        return {p.stage.name: self.folder.artifact(p.fingerprint) for p in self.stages if not p.runs}


def make_plan(recipe: Recipe, folder: RunDir, verified: Mapping[str, Manifest] = MappingProxyType({})) -> Plan:
    """Fingerprint every stage and verify, byte for byte, what is already there, but for what was `verified`. Raises
    DataError for unreadable files, ArtifactError for an artifact that holds more than was sealed in it.

    A fingerprint covers the stage's name (draws are keyed by it), kind and VERSION, its whole resolved config, the
    seed, the fingerprints of what it starts from, and the contents of the files that it and its tasks name.
    """
    plan = Plan(recipe, folder)
    hashes = HashCache(folder.remembered_hashes())
    fingerprints: dict[str, str] = {}
    works = folder.work_folders()
    while len(plan.stages) < len(plan.recipe.stages):
        stage = plan.recipe.stages[len(plan.stages)]
        try:
            material = fingerprint_material(stage, plan.recipe, fingerprints, hashes)
            if getattr(stage.module, "HANDS_OVER", False):
                material["edited"] = folder.edited(stage.name)
        except OSError as error:
            why = error.strerror or str(error)
            raise DataError(Fault("cannot read a file the recipe names", str(error.filename), why)) from None
        fingerprint = _digest(material)
        fingerprints[stage.name] = fingerprint
        manifest = verified.get(fingerprint) or _finished(plan, folder.artifact(fingerprint), fingerprint)
        if manifest is not None:
            plan.stages.append(StagePlan(stage, fingerprint, material, "cached", (), manifest))
            _end_of_round(plan, stage)
            continue
        state, why = _why(plan, stage, fingerprint, material, works.get(stage.name))
        plan.stages.append(StagePlan(stage, fingerprint, material, state, why))
    _find_half_done(plan, works)
    _find_damaged(plan)
    plan.hashes = hashes.used
    return plan


def _end_of_round(plan: Plan, stage: Stage) -> None:
    """After the last stage of a round, if all of the round is done: what the rule of its block says."""
    block = next((block for block in plan.recipe.blocks if block.name == stage.block), None)
    if block is None or not closes_round(stage, plan.recipe):
        return
    of_round = [p for p in plan.stages if (p.stage.block, p.stage.round) == (stage.block, stage.round)]
    verdict = None if any(p.runs for p in of_round) else judge(plan.recipe, block, plan.artifacts())
    if verdict is not None:
        plan.verdicts[block.name] = verdict
        if verdict.why:
            plan.recipe = plan.recipe.ended(block.name, stage.round)


def closes_round(stage: Stage, recipe: Recipe) -> bool:
    """Whether a stage is the last of its round."""
    of_round = [other.name for other in recipe.stages if (other.block, other.round) == (stage.block, stage.round)]
    return bool(stage.block) and of_round[-1] == stage.name


def fingerprint_material(
    stage: Stage, recipe: Recipe, fingerprints: Mapping[str, str], hashes: HashCache
) -> dict[str, Any]:
    """Everything that what a stage makes depends on, as JSON."""

    def identity(ref: Ref) -> str:
        if ref.stage is not None:
            return fingerprints[ref.stage]
        if ref.path is None:
            return ""
        is_function = ref.kind == "reward" and not is_folder(ref)
        path = ref.path.with_name(ref.path.name.partition(":")[0]) if is_function else ref.path
        return f"{ref.commit} {hashes.hash(path)}".strip()  # a commit where it comes from the Hub

    config = stage.config.model_dump(mode="json")
    if config.get("engine"):
        config["engine"] = "servers"  # where they are, and how they are asked, is no part of what is made
    for key in ("shard_optimizer", "fully_shard"):  # nor is who holds and moves a weight
        config.pop(key, None)
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "version": stage.module.VERSION,
        "seed": recipe.seed,
        "config": config,
        "tasks": {name: recipe.tasks[name].model_dump(mode="json", exclude={"description"}) for name in stage.tasks},
        "inputs": {ref.text: identity(ref) for ref in stage.references if ref.kind != "task"},
    }


def _digest(material: Mapping[str, Any]) -> str:
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _finished(plan: Plan, artifact: Path, fingerprint: str) -> Manifest | None:
    if not artifact.exists():
        return None
    try:
        return verify(artifact, fingerprint)
    except Foreign as problem:
        raise ArtifactError(problem.faults()) from None
    except InvalidArtifact as problem:
        if is_behind_link(artifact, 2):
            why = f"{problem.reason}; behind a link nothing is moved or deleted"
            fix = "move it away, or remove the link"
            raise ArtifactError(Fault(f"{artifact} is no whole artifact", str(problem.file), why, fix)) from None
        plan.damaged.append((artifact, _damage(artifact, problem)))
        return None


def _damage(artifact: Path, problem: InvalidArtifact) -> Fault:
    why = f"{problem.file.name}: {problem.reason}"
    return Fault(f"ignoring {artifact}: it is no whole artifact", str(problem.file), why, "what made it runs again")


def _why(
    plan: Plan, stage: Stage, fingerprint: str, material: Mapping[str, Any], work: Path | None
) -> tuple[State, tuple[str, ...]]:
    """Whether a stage that is not done starts or goes on, and the reasons in words."""
    if any(path == plan.folder.artifact(fingerprint) for path, _ in plan.damaged):
        return "run", ("what it made is damaged",)
    owner = owner_of(work) if work else ""
    if work is None or not owner:
        return "run", ("never run",)
    before = trusted(work / "stage.json")
    if owner == fingerprint:
        step = last_checkpoint(work)
        return "continue", (f"interrupted: goes on after step {step}" if step else "interrupted: starts over",)
    rerun = {done.stage.name for done in plan.stages if done.runs}
    rerun |= {text[1:] for text, used in stage.meant.items() if used in rerun}
    return "run", tuple(differences(before.get("material"), material, rerun)) or ("changed",)


def differences(before: Any, after: Mapping[str, Any], rerun: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """What differs between the materials of two fingerprints, in words. `rerun` are the stages that will run.

    >>> old = {"seed": 0, "config": {"lr": 1e-4, "model": "@base"}, "inputs": {"@base": "f00"}}
    >>> new = {"seed": 0, "config": {"lr": 2e-4, "model": "@base"}, "inputs": {"@base": "ba5"}}
    >>> differences(old, new, {"base"})
    ['config key lr changed 0.0001 -> 0.0002', 'input @base will change']
    """
    if not isinstance(before, Mapping):
        return []
    before, after = masked(before), masked(after)  # what was kept is masked
    found = []
    for key, what in (("kind", "kind of stage"), ("version", "version of the stage's code"), ("seed", "seed")):
        if before.get(key) != after.get(key):
            found.append(f"{what} changed {before.get(key)} -> {after.get(key)}")
    for group, what in (("config", "config key "), ("tasks", "task key ")):
        found += _changed_keys(before.get(group), after.get(group), what)
    if before.get("edited") != after.get("edited"):
        found.append("the file that it handed over was edited")
    old, new = before.get("inputs"), after.get("inputs", {})
    for text, identity in new.items():
        if isinstance(old, Mapping) and text in old and old[text] != identity:
            if text.startswith("@"):
                will = text[1:] in rerun or text[1:].partition("/")[0] in rerun
                found.append(f"input {text} {'will change' if will else 'changed'}")
            else:
                found.append(f"content of {text} changed")
    return found


def _changed_keys(before: Any, after: Any, what: str) -> list[str]:
    old, new = (flat(values) if isinstance(values, Mapping) and values else {} for values in (before, after))
    lines = []
    for key in dict.fromkeys((*old, *new)):
        if key not in old:
            lines.append(f"{what}{key} is new: {_show(new[key])}")
        elif key not in new:
            lines.append(f"{what}{key} is gone")
        elif old[key] != new[key]:
            lines.append(f"{what}{key} changed {_show(old[key])} -> {_show(new[key])}")
    return lines


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


# -- what a run left --------------------------------------------------------------------------------------------------


def _find_half_done(plan: Plan, works: Mapping[str, Path]) -> None:
    """Stages with checkpoints that the recipe, as it is now, would not go on from."""
    planned = {p.stage.name: p for p in plan.stages}
    rerun = {p.stage.name for p in plan.running}
    for name, work in works.items():
        before, old, step = trusted(work / "stage.json"), owner_of(work), last_checkpoint(work)
        now = planned.get(name)
        if not old or step is None or (now is not None and (now.fingerprint == old or not now.runs)):
            continue
        if _is_whole(plan.folder.artifact(old), old):
            continue  # it ended; the run was killed before it could tidy up
        changes = differences(before.get("material"), now.material, rerun) if now else ["no longer in the recipe"]
        plan.half_done.append(HalfDone(name, step, work, tuple(changes)))


def _is_whole(artifact: Path, fingerprint: str) -> bool:
    try:
        return read_manifest(artifact).fingerprint == fingerprint
    except InvalidArtifact:
        return False


def _find_damaged(plan: Plan) -> None:
    """Directories that are called what artifacts are, that the recipe does not ask for, and that are none."""
    asked = {plan.folder.artifact(p.fingerprint) for p in plan.stages}
    try:
        folders = sorted(path for path in plan.folder.artifacts.iterdir() if is_artifact_name(path))
    except OSError:
        return
    for path in folders:
        if path not in asked:
            try:
                read_manifest(path)
            except InvalidArtifact as problem:
                plan.ignored.append(_damage(path, problem))


def half_done_error(plan: Plan) -> ConfigError:
    """Why a changed recipe does not just go on where a stage was half-way."""
    rerun = ", ".join(p.stage.name for p in plan.running)
    faults = []
    for half in plan.half_done:
        why = f"{'; '.join(half.changes) or 'its config changed'}; these stages would run again: {rerun or 'none'}"
        fix = "undo the change to go on from the checkpoint, or accept it with `--changed` (the old work is kept aside)"
        faults.append(Fault(f"stage `{half.name}` stopped at step {half.step} under another config",
                            str(half.folder), why, fix))  # fmt: skip
    return ConfigError(faults)


def reasons(plans: Sequence[StagePlan]) -> list[str]:
    """One line for each stage that runs though it ran before."""
    lines = []
    for planned in plans:
        if planned.runs and planned.why != ("never run",):
            again = " runs again" if planned.state == "run" else ""
            lines.append(f"{planned.stage.name}{again}: {'; '.join(planned.why)}")
    return lines
