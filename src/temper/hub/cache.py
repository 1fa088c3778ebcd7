"""Snapshots of repositories in the Hub's own cache: found there without a socket, fetched where they are missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from temper.artifacts import write_atomically
from temper.environment import is_offline
from temper.errors import Exit, Fault, TemperError

Kind = Literal["dataset", "model"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository as one commit has them."""

    folder: Path
    commit: str

    def files(self) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def cached(repo: str, kind: Kind, revision: str, where: str) -> Snapshot | None:
    """What the cache holds of a revision; no socket is opened."""
    folder = _cache_folder(where) / f"{kind}s--{repo.replace('/', '--')}"
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (folder / "refs" / revision).read_text().strip()
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / commit
    return Snapshot(snapshot, commit) if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def fetch(
    repo: str, kind: Kind, revision: str, wanted: Callable[[Sequence[str], str], Sequence[str]], where: str, code: Exit
) -> tuple[Snapshot, list[str]]:
    """The files of a revision that `wanted` picks, given the names of all and the README's text. Raises TemperError
    with `code` where the Hub has no such repository or cannot be reached."""
    hub = library(where)
    was_offline = hub.constants.HF_HUB_OFFLINE
    try:
        if is_offline():
            raise hub.errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        hub.constants.HF_HUB_OFFLINE = False  # for this once: the rest of the process stays offline
        info = hub.HfApi().repo_info(repo, repo_type=kind, revision=revision)
        names = [file.rfilename for file in info.siblings or []]
        readme = ""
        if kind == "dataset" and "README.md" in names:
            path = hub.hf_hub_download(repo, "README.md", repo_type=kind, revision=info.sha)
            readme = Path(path).read_text(encoding="utf-8", errors="replace")
        picked = list(wanted(names, readme))
        also = ["README.md"] if readme else []
        folder = hub.snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=[*picked, *also])
    except TemperError:
        raise
    except Exception as error:
        raise TemperError(_unreachable(repo, kind, revision, error, where), code) from None
    finally:
        hub.constants.HF_HUB_OFFLINE = was_offline
    return Snapshot(Path(folder), Path(folder).name), picked


def notes_of(snapshot: Snapshot) -> Path:
    """The folder of what temper keeps beside a snapshot."""
    return snapshot.folder.parent.parent / "temper" / snapshot.commit


def remember(snapshot: Snapshot, key: str, files: Sequence[str]) -> None:
    """Note that these files were fetched whole: next time nobody is asked."""
    notes_of(snapshot).mkdir(parents=True, exist_ok=True)
    write_atomically(notes_of(snapshot) / f"{key}.json", json.dumps(list(files)))


def fetched(snapshot: Snapshot, key: str) -> list[str]:
    """The files that were noted, where all of them are still there; else nothing."""
    try:
        files = json.loads((notes_of(snapshot) / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return files if isinstance(files, list) and all((snapshot.folder / str(file)).is_file() for file in files) else []


def library(where: str) -> Any:
    """huggingface_hub. Raises TemperError with exit code 9 where it is not installed."""
    try:
        import huggingface_hub  # type: ignore[import-not-found]
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        what, fix = "names of the Hub need huggingface_hub, which is not installed", 'pip install "temper-rl[hub]"'
        raise TemperError(Fault(what, where, fix=fix), Exit.OPTIONAL_PART) from None
    return huggingface_hub


def _cache_folder(where: str) -> Path:
    return Path(library(where).constants.HF_HUB_CACHE)


def _unreachable(repo: str, kind: Kind, revision: str, error: Exception, where: str) -> Fault:
    names = {cls.__name__ for cls in type(error).__mro__}
    command = f"hf download {repo}" + (" --repo-type dataset" if kind == "dataset" else "")
    command += f" --revision {revision}" if revision != "main" else ""
    shown = f"`{repo}`" + (f" at `{revision}`" if revision != "main" else "")
    noun = "data set" if kind == "dataset" else "model"
    if "GatedRepoError" in names:
        fix = f"accept its terms on the Hub, then `hf auth login` and `{command}`"
        return Fault(f"the {noun} {shown} is behind terms of use", where, "the Hub asks for an account", fix)
    if "RevisionNotFoundError" in names:
        why, fix = "it has no such revision", "name a branch, tag or commit that it has"
        return Fault(f"the {noun} {shown} does not exist", where, why, fix)
    if "RepositoryNotFoundError" in names or "HFValidationError" in names:
        fix = f"is it spelled right? a private one needs `hf auth login`, then `{command}`"
        return Fault(f"no {noun} {shown} on the Hub", where, "", fix)
    why = "HF_HUB_OFFLINE is set" if "OfflineModeIsEnabled" in names else f"the Hub cannot be reached ({_short(error)})"
    fix = f"where there is a network: `{command}`; after that no network is needed"
    return Fault(f"the {noun} {shown} is not in the cache", where, why, fix)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
