"""The runs that the page shows: found in folders, called by a number that is no path, read again when they change."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.masking import masked
from temper.record.rundir import holder
from temper.record.trust import RunFiles
from temper.report.find import Source, sources
from temper.report.gather import gather_stages
from temper.report.heldout import add_held_out

MOST_RUNS = 1000  # in the folders together
WATCHED = ("reward/total", "loss")  # of a stage that goes on
POINTS = 120
RECENT = 20  # steps whose mean time makes the ETA
AGAIN = 60.0  # seconds after which hashes of a run that changes are looked at again
RECORDS = ("run.json", "recipe.resolved.yaml")

Json = dict[str, Any]


class Unknown(Exception):
    """No such run, stage or model."""


@dataclass(frozen=True)
class Snapshot:
    """A run as it stood at one look."""

    signature: tuple[Any, ...]
    run: Json
    stages: list[Json]
    models: list[Json]  # what each scored, held out
    claims: list[Json]
    files: RunFiles
    looked: float


class Library:
    """Runs by number. `folders` are run directories, or folders with some in them."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = [folder.resolve() for folder in folders]
        self._added: list[Path] = []  # runs that were started here
        self._lock = threading.Lock()
        self._seen: dict[Path, Snapshot] = {}

    def paths(self) -> dict[str, Path]:
        """The directory of each run by its number: those given first, those in a folder by name."""
        found: dict[str, Path] = {}
        for folder in (*self.folders, *self._added):
            for path in _runs_at(folder):
                if len(found) < MOST_RUNS:
                    found.setdefault(id_of(path), path)
        return found

    def place_of(self, default: Path, is_named: bool) -> Path:
        """Where a run that is started belongs: where its recipe says, if it names a directory itself; else beside the
        other runs."""
        if is_named:
            return default.absolute()
        beside = next((folder for folder in self.folders if not (folder / "run.json").is_file()), None)
        return beside / default.name if beside is not None else default.absolute()

    def add(self, run: Path) -> None:
        """Show a run that need not be there yet, wherever it is."""
        if run.resolve() not in self._added:
            self._added.append(run.resolve())

    def path(self, number: str) -> Path:
        """Raises Unknown."""
        found = self.paths().get(number)
        if found is None:
            raise Unknown("no such run: it may have been deleted")
        return found

    def snapshot(self, number: str) -> Snapshot:
        """What is known of a run; read again only where a file of it changed. Raises Unknown."""
        path = self.path(number)
        signature = _signature(path)
        with self._lock:
            known = self._seen.get(path)
            if known is not None and known.signature == signature:
                return known
            is_fresh = (
                known is not None
                and known.signature[: len(RECORDS)] == signature[: len(RECORDS)]
                and time.monotonic() - known.looked < AGAIN
            )
            found = _look(path, signature, known.files if known is not None and is_fresh else None,
                          known.looked if known is not None and is_fresh else time.monotonic())  # fmt: skip
            self._seen[path] = found
            return found

    def sources(self, number: str) -> list[Source]:
        """Every file of completions of a run. Raises Unknown."""
        return sources(self.path(number), self.snapshot(number).files)


def id_of(path: Path) -> str:
    """A run's number: the same for as long as it lies where it does."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _runs_at(folder: Path) -> Iterator[Path]:
    try:
        if (folder / "run.json").is_file():
            yield folder
            return
        for name in sorted(os.listdir(folder)):
            if (folder / name / "run.json").is_file():
                yield folder / name
    except OSError:
        return


def _signature(path: Path) -> tuple[Any, ...]:
    """Changes when a run has written something that is shown."""
    files = [path / name for name in RECORDS]
    try:
        with os.scandir(path / "stages") as works:
            for work in sorted(works, key=lambda work: work.name):
                files += [Path(work.path, name) for name in ("metrics.jsonl", "warnings.jsonl", "stage.json")]
    except OSError:
        pass
    return tuple(_stat(file) for file in files)


def _stat(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:
        return (-1, 0)
    return about.st_size, about.st_mtime_ns


def _look(path: Path, signature: tuple[Any, ...], files: RunFiles | None, looked: float) -> Snapshot:
    files = files or RunFiles(path)
    stages = gather_stages(path, files)
    evaluations = [found for stage in stages if (found := _evaluation(path, stage, files))]
    models = _models(evaluations)
    add_held_out(stages, models)
    claims = [claim for found in evaluations for claim in found.get("claims") or [] if isinstance(claim, dict)]
    return Snapshot(signature, files.object(path / "run.json"), stages, models, claims, files, looked)


def _evaluation(path: Path, stage: Json, files: RunFiles) -> Json:
    if stage["makes"] != "evaluation" or not stage["fingerprint"]:
        return {}
    return files.object(path / "artifacts" / str(stage["fingerprint"]) / "evaluation.json")


def _models(evaluations: Sequence[Json]) -> list[Json]:
    """One entry a measured model; a later evaluation of the same task counts."""
    tasks: dict[str, Json] = {}
    for found in evaluations:
        for model in found.get("models") or []:
            if isinstance(model, dict) and isinstance(model.get("tasks"), dict):
                scores = {task: of for task, of in model["tasks"].items() if isinstance(of, dict)}
                tasks.setdefault(str(model.get("stage")), {}).update(scores)
    return [{"stage": stage, "tasks": scores} for stage, scores in tasks.items()]


# -- what the page is told --------------------------------------------------------------------------------------------


def overview(library: Library) -> list[Json]:
    """A line for each run."""
    found = []
    for number, path in library.paths().items():
        try:
            found.append(summary(number, path, library.snapshot(number)))
        except Unknown:  # deleted meanwhile
            continue
    return found


def summary(number: str, path: Path, shot: Snapshot) -> Json:
    """A run in short: its state, where it is, what it cost and what it claims."""
    run = shot.run
    is_live = holder(path / "lock") is not None
    stages = [brief(stage, is_live) for stage in shot.stages]
    state = "running" if is_live else str(run.get("state") or "unknown")
    return {
        "id": number,
        "name": path.name,
        "recipe": run.get("recipe"),
        "seed": run.get("seed"),
        "state": "stopped" if state == "running" and not is_live else state,
        "started": run.get("started"),
        "updated": run.get("updated"),
        "cpu_seconds": run.get("cpu_seconds") or _sum(stages, "cpu_seconds"),
        "wall_seconds": run.get("wall_seconds") or _sum(stages, "seconds"),
        "stages": stages,
        "now": next((stage for stage in stages if stage["state"] == "running"), None),
        "models": [{"stage": m["stage"], "tasks": _accuracies(m)} for m in shot.models],
        "claims": shot.claims,
        "damaged": len(shot.files.damaged),
    }


def brief(stage: Json, is_live: bool) -> Json:
    """A stage in short, with how long it may still take."""
    state = stage["state"]
    keys = ("name", "kind", "makes", "seconds", "cpu_seconds", "steps", "planned_steps", "peak_memory_bytes")
    return {
        **{key: stage[key] for key in keys},
        "state": "stopped" if state == "running" and not is_live else state,
        "eta": _eta(stage) if state == "running" and is_live else None,
        "curve": _curve(stage) if state == "running" and is_live else None,
        "warnings": sum(row.get("level") != "note" for row in stage["warnings"]),
        "has_metrics": bool(stage["metrics"]),
    }


def _eta(stage: Json) -> float | None:
    seconds = [s for s in stage["metrics"].get("seconds", [])[-RECENT:] if isinstance(s, int | float)]
    if not seconds or not isinstance(stage["planned_steps"], int):
        return None
    return max(0, stage["planned_steps"] - stage["steps"]) * sum(seconds) / len(seconds)


def _curve(stage: Json) -> Json | None:
    """The metric one looks at first, thinned; `x` are steps."""
    name = next((name for name in WATCHED if name in stage["metrics"]), None)
    if name is None:
        return None
    points = [(x, y) for x, y in zip(stage["metrics"]["step"], stage["metrics"][name], strict=True)
              if isinstance(y, int | float)]  # fmt: skip
    every = -(-len(points) // POINTS) or 1
    kept = points[(len(points) - 1) % every :: every]  # the last is one of them
    return {"name": name, "x": [x for x, _ in kept], "y": [y for _, y in kept]}


def _accuracies(model: Mapping[str, Any]) -> Json:
    return {task: {key: of.get(key) for key in ("accuracy", "accuracy_interval", "n")}
            for task, of in model["tasks"].items()}  # fmt: skip


def _sum(stages: Sequence[Json], key: str) -> float:
    return sum(stage[key] for stage in stages if isinstance(stage[key], int | float))


def details(number: str, path: Path, shot: Snapshot) -> Json:
    """A run with everything but its curves and completions."""
    keys = ("name", "inputs", "harvest", "warnings")
    return {
        **summary(number, path, shot),
        "command": _command(path, shot.run.get("command")),
        "versions": shot.run.get("versions"),
        "scores": shot.models,
        "settings": [{**{key: stage[key] for key in keys}, "config": _config(stage)} for stage in shot.stages],
        "told": [f"{problem.file.name} is damaged and is left out: {problem.reason}"
                 for problem in shot.files.damaged.values()],
    }  # fmt: skip


def _command(path: Path, command: Any) -> list[str]:
    """What was typed, without where on this machine the run is."""
    return [str(part).replace(str(path), path.name) for part in command] if isinstance(command, list) else []


def _config(stage: Json) -> list[Json]:
    """A stage's settings; a secret is known by its key."""
    return [{**entry, "value": masked(entry["value"], str(entry["key"]))} for entry in stage["config"]]


def curves(shot: Snapshot, stage: str, after: int) -> Json:
    """The metrics of a stage as columns, those of steps after `after`. Raises Unknown."""
    found = next((s for s in shot.stages if s["name"] == stage), None)
    if found is None:
        raise Unknown("no such stage")
    steps = found["metrics"].get("step", [])
    start = next((i for i, step in enumerate(steps) if step > after), len(steps))
    return {"stage": stage, "kind": found["kind"], "of": found["planned_steps"],
            "metrics": {name: column[start:] for name, column in found["metrics"].items()}}  # fmt: skip
