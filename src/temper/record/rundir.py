"""What is where in a run directory, and who may write to it.

run.json  recipe.resolved.yaml  hashes.json  lock
edits/<stage>.jsonl   what a stage handed over to a person
stages/<nn>-<name>/   stage.json  config.yaml  metrics.jsonl  checkpoints/ …     stages/.old/  set aside, may return
artifacts/<fingerprint>/   what a stage made, manifest.json last
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.artifacts import clean_leftovers, hash_file, is_behind_link, sync, write_atomically
from temper.errors import EXHAUSTED, ConfigError, Exit, Fault, ResourceError, TemperError
from temper.record.checkpoints import owner_of
from temper.sealed import Damaged, read_sealed, seal, trusted

OURS = (
    "artifacts", "edits", "hashes.json", "lock", "logs", "recipe.resolved.yaml", "report", "run.json", "stages",
    "tensorboard", "trackers.json", "trackers.log", "wandb",
)  # fmt: skip


# What a kill may leave of a file that was being replaced.
_LEFT = re.compile(
    r"\.(run\.json|hashes\.json|recipe\.resolved\.yaml|stage\.json|config\.yaml|step-\d{6,}\.jsonl\.gz|\d{5,}\.jsonl"
    r"|\d\d\.[^/]+\.jsonl?)\.tmp|metrics\.jsonl\.tmp"
)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, believed as it is; {} if there is none, or it is torn."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def edits_of(work: Path, name: str) -> Path:
    """The file that a stage with this working directory hands over."""
    return work.parent.parent / "edits" / f"{name}.jsonl"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


@dataclass(frozen=True)
class RunDir:
    """A run directory, which may not exist yet. Nothing here writes except what says so."""

    root: Path

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def artifact(self, fingerprint: str) -> Path:
        return self.artifacts / fingerprint

    def record(self) -> dict[str, Any]:
        """run.json, {} if there is none, or it is not as it was written."""
        return trusted(self.root / "run.json")

    def remembered_hashes(self) -> dict[str, Any]:
        return trusted(self.root / "hashes.json")

    def damaged_records(self) -> list[Damaged]:
        """What of run.json, hashes.json and the stages' stage.json is not as it was written. All can be written anew:
        what stages made and their checkpoints speak for themselves."""
        found = []
        works = self.work_folders()
        abouts = [work / "stage.json" for work in works.values()]
        for path in (self.root / "run.json", self.root / "hashes.json", *abouts):
            try:
                about = read_sealed(path)
                if path.name == "stage.json" and works.get(str(about.get("stage"))) != path.parent:
                    raise Damaged(path, f"it is that of the stage `{about.get('stage')}`")
            except FileNotFoundError:
                continue
            except Damaged as problem:
                found.append(problem)
        return found

    def work_folders(self) -> dict[str, Path]:
        """The directory of each stage that has one, by the stage's name."""
        found = {}
        for name in _names(self.root / "stages"):
            if match := re.fullmatch(r"\d+-(.+)", name):
                found[match[1]] = self.root / "stages" / name
        return found

    def edited(self, name: str) -> str:
        """The hash of the file that a stage handed over, "" if it is not there or nobody has edited it."""
        file = self.root / "edits" / f"{name}.jsonl"
        if not file.is_file():
            return ""
        found = hash_file(file)
        return "" if trusted(file.with_name(f".{name}.json")).get("content") == found else found

    def check_owner(self, recipe: str) -> None:
        """Raise ConfigError if the directory holds something else than a run of the recipe of this name."""
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(Fault(f"`{self.root}` is a file, not a run directory", fix="name another with --out"))
        others = [name for name in _names(self.root) if name not in OURS and not name.startswith(".")]
        if others and not (self.root / "lock").exists():
            why = f"it holds {', '.join(others[:3])}{' …' if len(others) > 3 else ''}, and no run"
            raise ConfigError(Fault(f"`{self.root}` is not a run directory", "", why, "name a new one with --out"))
        owner = self.record().get("recipe")
        if owner not in (None, recipe):
            why = f"this recipe is `{recipe}`"
            raise ConfigError(Fault(f"`{self.root}` holds a run of `{owner}`", "", why, "name another with --out"))

    def clean(self) -> None:
        """Remove what a killed run began and did not finish: artifacts, and files being replaced."""
        clean_leftovers(self.artifacts)
        works = [work for work in self.work_folders().values() if not is_behind_link(work, 2)]
        folders = [work / name for work in works for name in ("", "chunks", "samples", "rollouts")]
        for folder in [self.root, *folders]:
            for name in _names(folder) if not folder.is_symlink() else ():
                if _LEFT.fullmatch(name) and (folder / name).is_file():
                    (folder / name).unlink(missing_ok=True)

    # -- writing ------------------------------------------------------------------------------------------------------

    def prepare(self) -> Lock:
        """Make the directory and lock it. Raises ResourceError, or TemperError if another process has it."""
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.root / "lock")
            self.artifacts.mkdir(exist_ok=True)
            (self.root / "stages" / ".old").mkdir(parents=True, exist_ok=True)
            return lock

    def activate(self, name: str, folder: str, fingerprint: str, about: Mapping[str, Any], config: str) -> Path:
        """The directory `folder` of a stage, for this fingerprint: what belongs to another is set aside, what was comes
        back."""
        target = self.root / "stages" / folder
        found = self.work_folders().get(name)
        if found is not None and found != target and _is_work(found) and not target.exists():
            _move(found, target)  # the stage has another number now
        if target.is_dir() and not is_behind_link(target, 2) and not set(_names(target)) - {".stage.json.tmp"}:
            shutil.rmtree(target, ignore_errors=True)  # killed before it was anything
        if target.exists():
            old = owner_of(target) or "unknown"
            if old != fingerprint:
                aside = self._old(name, old) or self._old_folder / f"{folder}-{old[:8]}"
                if aside.exists() and owner_of(aside) == old and not is_behind_link(aside, 3):
                    shutil.rmtree(aside, ignore_errors=True)
                _move(target, aside)
        if not target.exists() and (returning := self._old(name, fingerprint)) is not None:
            _move(returning, target)
        target.mkdir(exist_ok=True)
        if trusted(target / "stage.json") != about:
            write_atomically(target / "stage.json", seal("stage.json", about, indent=1) + b"\n")
            write_atomically(target / "config.yaml", config)
            sync(target.parent)
        return target

    @property
    def _old_folder(self) -> Path:
        return self.root / "stages" / ".old"

    def _old(self, name: str, fingerprint: str) -> Path | None:
        pattern = re.compile(rf"\d+-{re.escape(name)}-{re.escape(fingerprint[:8])}")
        return next((self._old_folder / found for found in _names(self._old_folder) if pattern.fullmatch(found)), None)


_OF_STAGES = {"stage.json", "config.yaml", "metrics.jsonl", "log.txt", "checkpoints"}


def _is_work(folder: Path) -> bool:
    """Whether a directory was made for a stage."""
    return not folder.is_symlink() and bool(_OF_STAGES & set(_names(folder)))


def _move(folder: Path, target: Path) -> None:
    """Rename a stage's directory. Raises ConfigError for one that no stage made, or that is behind a link."""
    where, fix = str(folder), "move it away yourself"
    if is_behind_link(folder, 3) or is_behind_link(target, 3):
        raise ConfigError(Fault("a stage's directory is behind a link", where, "nothing is moved there", fix))
    if not _is_work(folder):
        raise ConfigError(Fault(f"`{folder}` has the place of a stage's directory", where, "no stage made it", fix))
    if os.path.lexists(target):
        where = str(target)
        raise ConfigError(Fault(f"`{target}` has the place of a stage's directory", where, "it is another's", fix))
    folder.rename(target)


def _held(path: Path) -> Fault:
    about = read_object(path)
    known = ", ".join(f"{key} {about[key]}" for key in ("pid", "host", "since") if key in about)
    fix = "wait for it, stop it, or use another directory with --out"
    return Fault("this run is in use by another process", str(path), known or "it has just started", fix)


class Lock:
    """Holds a run directory for this process; the system lets go of it however the process ends.

    Raises TemperError with exit code 6 if another process holds it, naming that process.
    """

    def __init__(self, path: Path):
        self.path = path
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise TemperError(_held(path), Exit.LOCKED) from None
        holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, json.dumps(holder).encode() + b"\n", 0)

    def is_ours(self) -> bool:
        """Whether the run directory is still there: false once it was deleted or replaced."""
        try:
            there, here = os.stat(self.path), os.fstat(self.handle)
        except OSError:
            return False
        return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)

    def release(self) -> None:
        os.close(self.handle)


def holder(path: Path) -> Fault | None:
    """Who holds the lock at `path`, None if nobody does; takes and makes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _held(path)
    finally:
        os.close(handle)
    return None


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def writing(folder: Path, safe: str = "") -> Iterator[None]:
    """Turns an OSError into a ResourceError that says what is wrong with `folder`; `safe` is what is not lost."""
    try:
        yield
    except OSError as error:
        raise ResourceError(resource_fault(folder, error, safe)) from error


def resource_fault(folder: Path, error: OSError, safe: str = "") -> Fault:
    where = str(error.filename or folder)
    again = "then run the same command again: it goes on from there"
    if error.errno in _NO_SPACE:
        return Fault("the disk is full", where, safe, f"free some space, {again}")
    if error.errno in _FORBIDDEN:
        reason = error.strerror or "not permitted"
        return Fault(f"cannot write to the run directory: {reason}", where, safe, f"make it writable, {again}")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):  # no matter of files
        what, fix = EXHAUSTED[error.errno]
        return Fault(what, str(folder), safe, f"{fix}, {again}")
    return Fault(f"cannot write to the run directory: {error.strerror or error}", where, safe, f"mend it, {again}")
