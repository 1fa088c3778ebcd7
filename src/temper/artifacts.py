"""What a stage made, on disk: a directory whose manifest.json is written last, with the size and hash of every file.

    begin(final) -> an empty directory beside it -> the stage fills it -> seal(...): fsync, manifest, rename

A directory without a valid manifest does not exist. A kill at any moment leaves the whole artifact or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import Fault
from temper.sealed import Damaged, read_sealed
from temper.sealed import seal as sealed

FORMAT = 2
MANIFEST = "manifest.json"
MARK = ".making"  # in what is begun and not yet sealed
_MOST_MANIFEST = 64 << 20


class InvalidArtifact(Damaged):
    """Why a directory is not an artifact; `file` is the one at fault."""


class Foreign(InvalidArtifact):
    """An artifact is whole and holds, beside what was sealed, `files` that nobody vouches for."""

    def __init__(self, files: list[Path]):
        super().__init__(files[0], "was put there after the artifact was sealed")
        self.files = files

    def faults(self) -> list[Fault]:
        """One for each of the first files."""
        why, fix = "it was put there after the artifact was sealed, and might be loaded with it", "move it out of there"
        return [Fault(f"`{file.name}` is no part of the artifact", str(file), why, fix) for file in self.files[:20]]


@dataclass(frozen=True)
class Manifest:
    """`files` maps the path of each file to (size in bytes, sha256); `about` is whatever its maker said."""

    fingerprint: str
    files: Mapping[str, tuple[int, str]]
    about: Mapping[str, Any]

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())


# -- files ------------------------------------------------------------------------------------------------------------


def hash_file(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All regular files below `folder`, sorted by their path; hidden ones are left out."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace a file's content in one step: a reader, or a crash, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_behind_link(path: Path, levels: int) -> bool:
    """Whether the last `levels` parts of a path, its own name among them, lead through a symbolic link of somebody
    else's; the one by which the runs of a sweep share their artifacts is temper's own."""
    return any(part.is_symlink() and not _is_shared(part) for part in (path, *path.parents[: levels - 1]))


def _is_shared(link: Path) -> bool:
    target = link.parent.parent / "artifacts"
    has_lock = (target.parent / "lock").is_file()
    return has_lock and os.readlink(link) == os.path.join("..", "artifacts") and not target.is_symlink()


class HashCache:
    """Content hashes, remembered by path, size and times, so that large files are read once.

    The time of the last change of the file's entry counts too: that of its content can be set back. A file changed
    within the last two seconds is not remembered: its time may not tell two versions apart.
    """

    def __init__(self, remembered: Mapping[str, Any] | None = None):
        self.remembered: dict[str, Any] = dict(remembered or {})
        self.used: dict[str, list[Any]] = {}

    def hash(self, path: Path) -> str:
        """The hash of a file, or of a directory: of the names and contents of all that is not hidden in it."""
        if path.is_dir():
            parts = [(file.relative_to(path).as_posix(), self._file(file)) for file in files_in(path)]
            return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._file(path)

    def _file(self, path: Path) -> str:
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self.remembered.get(str(path))
        if isinstance(known, list) and len(known) == 4 and known[:3] == key and isinstance(known[3], str):
            digest = known[3]
        else:
            digest = hash_file(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > 2_000_000_000:
            self.used[str(path)] = [*key, digest]
        return digest


# -- artifacts --------------------------------------------------------------------------------------------------------


def is_artifact_name(path: Path) -> bool:
    """Whether a path is called what a run calls its artifacts."""
    return path.parent.name == "artifacts" and re.fullmatch("[0-9a-f]{32}", path.name) is not None


def begin(final: Path) -> Path:
    """A directory beside `final` to fill, empty but for a mark that says whose it is. What a killed run left there is
    removed; what is somebody else's, or lies behind a link, stays, and another name is taken."""
    for number in itertools.count(1):
        aside = final.with_name(f".making-{final.name}{f'-{number}' * (number > 1)}")
        remove_begun(aside)
        try:
            aside.mkdir(parents=True)
        except FileExistsError:
            continue
        (aside / MARK).write_text(final.name, encoding="utf-8")
        return aside
    raise AssertionError


def remove_begun(aside: Path) -> None:
    """Delete what `begin` made and nobody sealed; anything else stays."""
    if is_behind_link(aside, 2) or not aside.is_dir():
        return
    with contextlib.suppress(OSError):
        if re.fullmatch(r"\.making-[0-9a-f]+(-\d+)?", aside.name):
            if (mark := aside / MARK).is_file() and not mark.stat().st_size and len(os.listdir(aside)) == 1:
                mark.unlink()
            aside.rmdir()  # killed before it was marked
    with contextlib.suppress(OSError, ValueError, InvalidArtifact):  # a mark that is no text is nobody's
        mark = aside / MARK
        name = mark.read_text(encoding="utf-8") if mark.is_file() else read_manifest(aside).fingerprint
        if re.fullmatch(re.escape(f".making-{name}") + r"(-\d+)?", aside.name):
            shutil.rmtree(aside, ignore_errors=True)


def seal(aside: Path, final: Path, fingerprint: str, about: Mapping[str, Any]) -> Manifest:
    """Turn what was begun into the artifact `final`: every file on disk, then the manifest, then the name.

    Raises OSError if the disk does not take it and ValueError if something in it is no regular file.
    """
    files: dict[str, tuple[int, str]] = {}
    mark = aside / MARK
    for path in _everything(aside):
        if path == mark:
            continue
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"an artifact holds regular files only, not {path}")
        sync(path)
        files[path.relative_to(aside).as_posix()] = (path.stat().st_size, hash_file(path))
    listed = {name: {"size": size, "sha256": digest} for name, (size, digest) in files.items()}
    content = {"format": FORMAT, "fingerprint": fingerprint, "files": listed, "about": dict(about)}
    write_atomically(aside / MANIFEST, sealed(MANIFEST, content, indent=1) + b"\n")
    mark.unlink(missing_ok=True)  # from here on the manifest says whose it is
    for root, _, _ in os.walk(aside):
        sync(Path(root))
    set_aside(final)
    aside.rename(final)
    sync(final.parent)
    return Manifest(fingerprint, files, dict(about))


def _everything(folder: Path) -> Iterator[Path]:
    """Every file below `folder` in order, the manifest itself left out."""
    found = [Path(root, name) for root, folders, names in os.walk(folder) for name in names]
    found += [
        path for root, folders, _ in os.walk(folder) for name in folders if (path := Path(root, name)).is_symlink()
    ]
    yield from sorted(path for path in found if path != folder / MANIFEST)


def set_aside(final: Path) -> Path | None:
    """Move an artifact that is not to be used out of the way; None if there is nothing. Raises FileExistsError for one
    behind a link, where nothing is moved."""
    if not final.exists() and not final.is_symlink():
        return None
    if is_behind_link(final, 2):
        raise FileExistsError(errno.EEXIST, "it is behind a link, where nothing is moved", str(final))
    names = (final.with_name(f".damaged-{final.name}{f'-{n}' * (n > 1)}") for n in itertools.count(1))
    damaged = next(path for path in names if not os.path.lexists(path))
    final.rename(damaged)
    return damaged


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact. Raises InvalidArtifact if there is none, or none that can be believed."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_MANIFEST:
            raise InvalidArtifact(path, "too large to be a manifest")
        content = read_sealed(path)
    except FileNotFoundError:
        raise InvalidArtifact(path, "missing") from None
    except OSError as error:
        raise InvalidArtifact(path, f"cannot be read: {error.strerror}") from None
    except Damaged as problem:
        raise InvalidArtifact(path, problem.reason) from None
    if content.get("format") != FORMAT:
        raise InvalidArtifact(path, f"not a manifest of format {FORMAT}")
    files, about, fingerprint = content.get("files"), content.get("about", {}), content.get("fingerprint")
    if not isinstance(files, dict) or not isinstance(about, dict) or not isinstance(fingerprint, str):
        raise InvalidArtifact(path, "not a manifest: keys are missing or of the wrong type")
    return Manifest(fingerprint, {name: _listed(path, folder, name, entry) for name, entry in files.items()}, about)


def _listed(path: Path, folder: Path, name: str, entry: Any) -> tuple[int, str]:
    is_inside = bool(name) and not name.startswith("/") and ".." not in Path(name).parts
    if is_inside and isinstance(entry, dict):
        size, digest = entry.get("size"), entry.get("sha256")
        if isinstance(size, int) and isinstance(digest, str):
            return size, digest
    raise InvalidArtifact(path, f"not a manifest: its entry `{name[:80]}` is wrong")


def verify(folder: Path, fingerprint: str | None = None) -> Manifest:
    """The manifest of an artifact all of whose files are as they were written, byte for byte.

    Raises InvalidArtifact with the first file that is not, or if it is the artifact of another `fingerprint`; Foreign
    if all are and others lie among them.
    """
    manifest = read_manifest(folder)
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise InvalidArtifact(folder / MANIFEST, f"made for {manifest.fingerprint}, not for {fingerprint}")
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                raise InvalidArtifact(path, f"has {found} bytes, the manifest says {size}")
            content = hash_file(path)
        except FileNotFoundError:
            raise InvalidArtifact(path, "missing") from None
        except OSError as error:
            raise InvalidArtifact(path, f"cannot be read: {error.strerror}") from None
        if content != digest:
            raise InvalidArtifact(path, f"its sha256 is {content}, the manifest says {digest}")
    if strange := foreign_files(folder, manifest):
        raise Foreign(strange)
    return manifest


def foreign_files(folder: Path, manifest: Manifest) -> list[Path]:
    """What lies in an artifact and is none of the files that were sealed, nor a folder of theirs."""
    known = {MANIFEST, *manifest.files}
    known |= {parent.as_posix() for name in manifest.files for parent in Path(name).parents}
    found = [Path(root, name) for root, folders, names in os.walk(folder) for name in (*folders, *names)]
    return sorted(path for path in found if path.relative_to(folder).as_posix() not in known)


def clean_leftovers(artifacts: Path) -> None:
    """Remove the artifacts in a folder that a killed run began and did not finish."""
    for aside in artifacts.glob(".making-*"):
        remove_begun(aside)
