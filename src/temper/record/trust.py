"""What of a run is not as it was written: looked up before anything of it is shown or sent on.

run.json, stage.json and recipe.resolved.yaml carry a hash of their own. The manifest of a finished stage's artifact
has those of its files and, noted when the stage ended, those of the records in its working directory: metrics,
warnings, kept rollouts. What a stage that is not finished writes has no hash yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from temper.artifacts import InvalidArtifact, Manifest, hash_file, read_manifest
from temper.record.checkpoints import RECORDS
from temper.record.metrics import Row, read_rows
from temper.record.progress import read_warnings
from temper.record.rundir import RunDir
from temper.record.runfiles import read_object, rollout_files
from temper.sealed import Damaged, read_sealed_text, trusted

RECIPE = "recipe.resolved.yaml"
WEIGHTS = (".safetensors", ".bin")  # large, and verified by whoever loads them


class RunFiles:
    """The files of one run for readers: one that is `damaged` reads as if it were not there."""

    def __init__(self, run: Path):
        self.damaged = damaged_files(run)

    def object(self, path: Path) -> dict[str, Any]:
        """The JSON object of a file."""
        return {} if path in self.damaged else read_object(path)

    def metrics(self, work: Path) -> list[Row]:
        """The rows of metrics.jsonl in a stage's directory."""
        path = work / "metrics.jsonl"
        return [] if path in self.damaged else read_rows(path)

    def warnings(self, work: Path) -> list[Row]:
        """The rows of warnings.jsonl there."""
        path = work / "warnings.jsonl"
        return [] if path in self.damaged else read_warnings(path)

    def rollouts(self, work: Path) -> list[tuple[int, Path]]:
        """(step, file) of the kept rollouts there."""
        return [(step, path) for step, path in rollout_files(work) if path not in self.damaged]

    def about(self, artifact: Path) -> Mapping[str, Any]:
        """What the manifest of an artifact says of how it was made."""
        try:
            return read_manifest(artifact).about
        except InvalidArtifact:
            return {}

    def samples(self, artifact: Path) -> list[Path]:
        """The files of held-out completions in an evaluation."""
        return [path for path in sorted((artifact / "samples").glob("*.jsonl*")) if path not in self.damaged]

    def told(self) -> list[str]:
        """A sentence for each file that is left out."""
        return [f"{problem.file} is damaged and is left out: {problem.reason}" for problem in self.damaged.values()]


def note_records(work: Path) -> dict[str, list[Any]]:
    """Size and hash of the records in a stage's directory, by their names in it."""
    paths = [work / name for name in RECORDS] + sorted((work / "rollouts").glob("step-*.jsonl.gz"))
    return {
        path.relative_to(work).as_posix(): [path.stat().st_size, hash_file(path)] for path in paths if path.is_file()
    }


def damaged_records(work: Path, manifest: Manifest) -> Iterator[Damaged]:
    """The records of a finished stage that are there and are not as they were noted in its manifest."""
    noted = manifest.about.get("records")
    for name, entry in noted.items() if isinstance(noted, dict) else ():
        if (path := work / name).exists():
            yield from _differs(path, *entry)


def damaged_files(run: Path) -> dict[Path, Damaged]:
    """Every file of a run directory that is there and not as it was written, of those that people are shown something
    from."""
    folder = RunDir(run)
    found = list(folder.damaged_records())
    try:
        read_sealed_text(run / RECIPE)
    except Damaged as problem:
        found.append(problem)
    except FileNotFoundError:
        pass
    for name, fingerprint in _finished(folder).items():
        found += _of_stage(folder, folder.work_folders().get(name), fingerprint)
    return {problem.file: problem for problem in found}


def _finished(folder: RunDir) -> dict[str, str]:
    """The fingerprint of each stage that is done, by run.json; where that is damaged, of each that has an artifact."""
    stages = folder.record().get("stages")
    if isinstance(stages, Mapping):
        entries = {name: entry for name, entry in stages.items() if isinstance(entry, Mapping)}
        return {name: str(e.get("fingerprint")) for name, e in entries.items() if e.get("state") == "done"}
    prints = {name: trusted(work / "stage.json").get("fingerprint") for name, work in folder.work_folders().items()}
    return {name: print_ for name, print_ in prints.items() if print_ and folder.artifact(print_).is_dir()}


def _of_stage(folder: RunDir, work: Path | None, fingerprint: str) -> Iterator[Damaged]:
    artifact = folder.artifact(fingerprint)
    if not artifact.is_dir():
        return
    try:
        manifest = read_manifest(artifact)
    except InvalidArtifact as problem:
        yield problem
        return
    for name, entry in manifest.files.items():
        if not name.endswith(WEIGHTS) and (artifact / name).exists():
            yield from _differs(artifact / name, *entry)
    if work is not None and trusted(work / "stage.json").get("fingerprint", fingerprint) == fingerprint:
        yield from damaged_records(work, manifest)


def _differs(path: Path, size: int, digest: str) -> Iterator[Damaged]:
    try:
        is_same = path.stat().st_size == size and hash_file(path) == digest
    except OSError as error:
        yield Damaged(path, f"cannot be read: {error.strerror}")
        return
    if not is_same:
        yield Damaged(path, "its bytes do not match the hash written with them")
