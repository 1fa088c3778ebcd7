"""From what a user types to a directory: a run, or a model that is shipped, on disk or made by a run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.artifacts import MANIFEST, Foreign, InvalidArtifact, is_artifact_name, read_manifest, verify
from temper.errors import ArtifactError, ConfigError, Fault, escape, tell
from temper.hub.names import is_hub_model
from temper.hub.resolve import resolve_model as hub_model
from temper.recipe.graph import ASSETS, shipped_models
from temper.recipe.words import did_you_mean
from temper.record.rundir import RunDir, read_object
from temper.record.trust import RunFiles
from temper.sealed import Damaged, read_sealed

RUNS = Path("runs")


def find_run(reference: str | Path) -> Path:
    """The run directory that `reference` is, or the only one in it; also the name of a run under `runs/`, or of the
    recipe of the only one of its kind there.

    Raises ConfigError if there is no such directory or more than one run in it, ArtifactError if it holds none.
    """
    text = str(reference)
    path = Path(text).expanduser()
    for folder in (path, RUNS / path) if not path.is_absolute() and path.parts else (path,):
        if _is_run(folder):
            return folder
    if _is_directory(path):
        return _only(_runs_in(path), text, ArtifactError(Fault(f"`{text}` is not a run directory: no run.json in it")))
    named = [run for run in _runs_in(RUNS) if re.fullmatch(re.escape(text) + "-[0-9a-f]{8}", run.name)]
    known = [run.name for run in _runs_in(RUNS)]
    why = f"the runs here are {', '.join(known[:5])}{' …' if len(known) > 5 else ''}" if known else ""
    missing = Fault(f"no run `{text}`", why=why, fix=did_you_mean(text, known) or "`temper run RECIPE` makes one")
    return _only(named, text, ConfigError(missing))


def read_run(reference: str | Path) -> Path:
    """`find_run` for who shows what a run recorded: a warning names each file that is not as it was written and that
    readers leave out."""
    folder = Path(find_run(reference))
    for text in RunFiles(folder).told():
        tell(escape(f"warning: {text}"))
    return folder


def _only(runs: Sequence[Path], text: str, otherwise: Exception) -> Path:
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise otherwise
    shown = ", ".join(str(run) for run in runs[:5])
    raise ConfigError(Fault(f"`{text}` is {len(runs)} runs", why=shown, fix=f"name one, such as {runs[-1]}"))


def _is_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file()
    except OSError:
        return False


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(path.parent for path in folder.glob("*/run.json"))
    except OSError:
        return []


@dataclass(frozen=True)
class Evaluated:
    """One model that was measured: `folder` holds evaluation.json, what every prompt scored, and the completions."""

    folder: Path
    model: str
    evaluation: dict[str, Any]


def find_evaluation(reference: str) -> Evaluated:
    """Where a model was measured: `RUN:stage`, `RUN` (the last model of its last evaluation), a directory that
    `temper eval --out` or an evaluate stage made (`DIR:model` for one of several), or a model that a run made.

    Raises ConfigError for what names no run or no model of it, ArtifactError for one that was not measured, or whose
    evaluation is damaged.
    """
    path, name = Path(reference).expanduser(), ""
    if not _is_directory(path) and ":" in reference:
        text, _, name = reference.rpartition(":")
        path = Path(text).expanduser()
    else:
        text = reference
    if _is_directory(path) and (path / "evaluation.json").is_file():
        return _measured([path], reference, name)
    if _is_directory(path) and (path / "config.json").is_file() and not name:
        made = maker_of(path)
        if made is None:
            fix = f"`temper eval {reference} --tasks … --out DIR`, then compare DIR"
            raise ArtifactError(Fault(f"`{reference}` is a model that no run measured", fix=fix))
        run, name = made
    else:
        run = find_run(text)
    stages = _stages(run)
    entries = {n: e for n, e in stages.items() if isinstance(e, dict)} if isinstance(stages, dict) else {}
    if name and name not in entries:
        raise ConfigError(Fault(f"`{run}` has no stage `{name}`", "", f"its stages are {', '.join(entries)}",
                                did_you_mean(name, entries)))  # fmt: skip
    done = {n: RunDir(run).artifact(str(e.get("fingerprint"))) for n, e in entries.items()
            if e.get("makes") == "evaluation" and e.get("state") == "done"}  # fmt: skip
    if name in done:
        return _measured([done[name]], reference, "")
    return _measured(list(done.values()), reference, name)


def maker_of(model: Path) -> tuple[Path, str] | None:
    """The run and the stage that made a model directory; None for one that no run made."""
    try:
        name = str(read_manifest(model).about.get("stage", ""))
    except InvalidArtifact:
        return None
    run = Path(os.path.abspath(model)).parent.parent
    return (run, name) if name and stage_fingerprint(run, name) == model.name else None


def _stages(run: Path) -> Any:
    """What run.json says of the stages. Raises ArtifactError if it is not as it was written."""
    try:
        return read_sealed(run / "run.json").get("stages")
    except FileNotFoundError:
        return None
    except Damaged as problem:
        fix = "`temper run` on its recipe writes it anew"
        raise ArtifactError(Fault("run.json is damaged", str(problem.file), problem.reason, fix)) from None


def _is_artifact(folder: Path) -> bool:
    """Whether a directory is a run's artifact, as its manifest says or its name does."""
    return (folder / MANIFEST).exists() or is_artifact_name(folder.resolve())


def stage_fingerprint(run: Path, stage: str) -> str | None:
    """What run.json says that a stage's artifact is called."""
    stages = _stages(run)
    entry = stages.get(stage) if isinstance(stages, dict) else None
    return entry.get("fingerprint") if isinstance(entry, dict) else None


def _measured(folders: Sequence[Path], reference: str, model: str) -> Evaluated:
    """The newest of `folders` that measured `model` ("": the last it measured)."""
    known: list[str] = []
    for folder in reversed(folders):
        if _is_artifact(folder):
            _checked(folder, "an evaluation")
        found = read_object(folder / "evaluation.json")
        names = [str(m.get("stage")) for m in found.get("models") or [] if isinstance(m, dict)]
        if model in names or (names and not model):
            return Evaluated(folder, model or names[-1], found)
        known += names
    why = f"measured were {', '.join(dict.fromkeys(known))}" if known else "it holds no finished evaluation"
    raise ArtifactError(Fault(f"`{reference}` was not measured", why=why, fix=did_you_mean(model, known)))


def resolve_model(reference: str) -> Path:
    """The model directory that `reference` names: a shipped model, a directory, `RUN` for the last model that a run
    finished, or `RUN:stage` for the one that a stage made, its files verified; or a model of the Hub, `org/name`.

    Raises ArtifactError if there is none or it is damaged, ConfigError if the run or stage is unknown.
    """
    if reference in shipped_models():
        return ASSETS / reference
    path = Path(reference).expanduser()
    run, colon, stage = reference.rpartition(":")
    if _is_directory(path):
        if (path / "config.json").is_file():
            if _is_artifact(path):
                _checked(path, f"the model `{reference}`")
            return path
        if not _is_run(path) and not _runs_in(path):
            why = "no config.json (a model) and no run.json (a run) in it"
            raise ArtifactError(Fault(f"`{reference}` is no model directory", why=why))
    elif colon and run:
        return stage_model(find_run(run), stage)
    elif is_hub_model(reference) and not os.path.exists(path):
        return hub_model(reference).path
    elif (there := os.path.exists(path)) or "/" in reference:
        found = "is a file, not a model directory" if there else "does not exist"
        raise ArtifactError(Fault(f"`{reference}` {found}", fix=_known()))
    try:
        return last_model(find_run(reference))
    except ConfigError as error:
        if _is_directory(path):
            raise
        raise ArtifactError(Fault(f"no model `{reference}`", why=error.faults[0].why, fix=_known())) from None


def _known() -> str:
    shipped = shipped_models()
    return "name a model directory, a run, or RUN:stage" + (f"; shipped: {', '.join(shipped)}" if shipped else "")


def finished_models(run: Path, makes: Sequence[str] = ("model",)) -> dict[str, str]:
    """The fingerprint of each model that a run has finished, by stage, in order."""
    stages = _stages(run)
    found = {}
    for name, entry in stages.items() if isinstance(stages, dict) else ():
        is_done = isinstance(entry, dict) and entry.get("makes") in makes and entry.get("state") == "done"
        if is_done and isinstance(entry.get("fingerprint"), str):
            found[name] = entry["fingerprint"]
    return found


def last_model(run: Path) -> Path:
    """The model of the last stage of a run that finished one."""
    models = finished_models(run)
    if not models:
        fix = "go on with `temper run RECIPE`"
        raise ArtifactError(Fault(f"`{run}` has finished no model yet", fix=fix))
    return _verified(run, *list(models.items())[-1])


def stage_model(run: Path, stage: str) -> Path:
    """The model that one stage of a run made; a reward model too."""
    models = finished_models(run, ("model", "reward_model"))
    if stage in models:
        return _verified(run, stage, models[stage])
    stages: Any = _stages(run)
    known = list(stages) if isinstance(stages, dict) else []
    have = f"it has finished the models {', '.join(models)}" if models else "it has finished no model yet"
    if stage in known:
        makes = stages[stage].get("makes") if isinstance(stages[stage], dict) else None
        made = {"dataset": "a data set", "evaluation": "an evaluation"}.get(str(makes), "something else")
        what = "has not finished" if makes in ("model", "reward_model") else f"makes {made}, not a model"
        raise ConfigError(Fault(f"stage `{stage}` of `{run}` {what}", why=have))
    raise ConfigError(Fault(f"`{run}` has no stage `{stage}`", why=have, fix=did_you_mean(stage, models)))


def _verified(run: Path, stage: str, fingerprint: str) -> Path:
    path = RunDir(run).artifact(fingerprint)
    _checked(path, f"the model of `{stage}`", fingerprint)
    return path


def _checked(path: Path, what: str, fingerprint: str | None = None) -> None:
    """Raise ArtifactError, with the file, for an artifact that is not as it was sealed."""
    try:
        verify(path, fingerprint)
    except Foreign as problem:
        raise ArtifactError(problem.faults()) from None
    except InvalidArtifact as problem:
        fix = "`temper run` on its recipe makes it again"
        raise ArtifactError(Fault(f"{what} is damaged", str(problem.file), problem.reason, fix)) from None
