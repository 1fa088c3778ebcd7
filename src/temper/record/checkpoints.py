"""Directories of checkpoints: which there are, whose they are, which may go. What is in them: `train/checkpoint.py`.

Nothing is deleted that is not a checkpoint's own file, and nothing behind a link.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from temper.artifacts import is_behind_link
from temper.sealed import trusted

NOTE, STATE, PARTS = "checkpoint.json", "state.safetensors", "parts"
RECORDS = ("metrics.jsonl", "warnings.jsonl")  # of the stage's directory, as they were at the step
_LEVELS = 4  # stages/01-name/checkpoints/step-000040 below a run directory
_PATTERN = re.compile(r"step-(\d{6,18})")
_UNFINISHED = re.compile(r"\.writing-\d{6,18}")


def steps_in(folder: Path) -> list[tuple[int, Path]]:
    """(step, directory) of whatever bears a checkpoint's name, the newest first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = [(int(match[1]), folder / name) for name in names if (match := _PATTERN.fullmatch(name))]
    return sorted(((step, path) for step, path in found if path.is_dir()), reverse=True)


def last_checkpoint(work: Path) -> int | None:
    """The step of the newest checkpoint in a stage's directory."""
    return max((step for step, _ in steps_in(work / "checkpoints")), default=None)


def owner_of(work: Path) -> str:
    """The fingerprint that a stage's directory is for: that of stage.json; where it is missing or damaged, that of the
    newest checkpoint whose note is whole; "" where nothing says."""
    about = trusted(work / "stage.json")
    if isinstance(about.get("fingerprint"), str) and work.name.endswith(f"-{about.get('stage')}"):
        return about["fingerprint"]
    notes = (trusted(path / NOTE) for _, path in steps_in(work / "checkpoints"))
    return next((note["owner"] for note in notes if note.get("owner")), "")


def prune(folder: Path, newest: int, kept: int) -> None:
    """Remove checkpoints but the newest `kept` up to step `newest`: those after it were given up."""
    spared = [path for step, path in steps_in(folder) if step <= newest][:kept]
    for _, path in steps_in(folder):
        if path not in spared:
            remove(path)


def clear(work: Path) -> None:
    """Remove every checkpoint of a stage that is done, and the directory if it is empty then."""
    folder = work / "checkpoints"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _PATTERN.fullmatch(name) or _UNFINISHED.fullmatch(name):
                remove(folder / name)
        if not is_behind_link(folder, _LEVELS - 1):
            folder.rmdir()


def remove(path: Path) -> bool:
    """Delete a checkpoint, whole or not; False where it is behind a link or holds something else, and stays."""
    if not path.exists() and not path.is_symlink():
        return True
    if is_behind_link(path, _LEVELS) or not path.is_dir():
        return False
    names = {inner.name.removeprefix(".").removesuffix(".tmp") for inner in path.iterdir()}
    if names - {NOTE, STATE, PARTS, *RECORDS} or not _holds_parts(path / PARTS):
        return False
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _holds_parts(folder: Path) -> bool:
    """Whether there is nothing but parts of a checkpoint in `folder`, if there is one."""
    if folder.is_symlink():
        return False
    return not folder.exists() or all(file.suffix == ".safetensors" for file in folder.iterdir())
