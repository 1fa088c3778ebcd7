"""What a name of the Hub stands for on this machine: a file or folder, and the commit that it is from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from temper.errors import DataError, Exit, Fault, TemperError
from temper.hub.cache import Snapshot, cached, fetch, fetched, notes_of, remember
from temper.hub.names import DataName, data_name, model_name
from temper.hub.splits import choose, splits_of

_WEIGHTS = ("*.safetensors", "model.safetensors.index.json")
_MODEL = (
    "README.md", "config.json", "generation_config.json", "tokenizer*", "*.jinja", "vocab*", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template*", "*.model", *_WEIGHTS,
)  # fmt: skip


@dataclass(frozen=True)
class Resolved:
    """Where a name of the Hub lies on disk, and the commit that pins it."""

    path: Path
    commit: str


@lru_cache(maxsize=256)
def resolve_data(text: str, where: str = "") -> Resolved:
    """The file of `hf://org/name?split=…`, or the folder of its shards. What the cache holds is taken without a look at
    the Hub: a branch stays at the commit that was first fetched.

    Raises ConfigError for a name that cannot be read, DataError where it names no data, TemperError with exit code 9
    without huggingface_hub.
    """
    name = data_name(text, where)
    here = cached(name.repo, "dataset", name.revision, where)
    if here is not None and (known := fetched(here, _key(name))):
        return Resolved(_as_one(here, known, name), here.commit)

    def wanted(names: Sequence[str], readme: str) -> Sequence[str]:
        found = _files_of(name, names, readme, text, where)
        if isinstance(found, Fault):
            raise DataError(found)
        return found

    revision = here.commit if here is not None else name.revision
    try:
        snapshot, files = fetch(name.repo, "dataset", revision, wanted, where, Exit.DATA)
    except DataError:
        raise  # it was looked at, and is not what the name says
    except TemperError:
        files = _files_of(name, here.files(), here.text("README.md"), text, where) if here is not None else []
        if here is None or isinstance(files, Fault) or not _are_whole(files):
            raise
        return Resolved(_as_one(here, files, name), here.commit)  # fetched by hand, with `hf download`
    remember(snapshot, _key(name), files)
    return Resolved(_as_one(snapshot, files, name), snapshot.commit)


def _key(name: DataName) -> str:
    parts = [part for part in (name.name, name.split, name.file) if part]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "all"


def _files_of(name: DataName, files: Sequence[str], readme: str, text: str, where: str) -> list[str] | Fault:
    if name.file:
        found = name.file in files
        return [name.file] if found else Fault(f"`{text}`: no file `{name.file}` in the data set", where)
    splits = splits_of(files, readme)
    chosen = choose(splits, name.name, name.split, text, where)
    return chosen if isinstance(chosen, Fault) else list(splits[chosen[0]][chosen[1]])


def _are_whole(files: Sequence[str]) -> bool:
    """Whether what the cache holds are all shards: they say themselves of how many they are."""
    counts = {file.rpartition("-of-")[2][:5] for file in files if "-of-" in file}
    return not counts or (len(counts) == 1 and (count := counts.pop()).isdigit() and len(files) == int(count))


def _as_one(snapshot: Snapshot, files: Sequence[str], name: DataName) -> Path:
    """One file as it is; several as a folder of links that calls them shards of one data set, beside the snapshots."""
    if len(files) == 1:
        return snapshot.folder / files[0]
    key = _key(name)
    folder = notes_of(snapshot) / key
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        ending = file[file.rindex("/") + 1 :] if "/" in file else file
        link = folder / f"{key}-{number:05d}-of-{len(files):05d}{ending[ending.index('.') :]}"
        if not link.exists():
            link.unlink(missing_ok=True)
            os.symlink(os.path.relpath(snapshot.folder / file, folder), link)
    return folder


@lru_cache(maxsize=64)
def resolve_model(text: str, where: str = "") -> Resolved:
    """The directory of the model `org/name` or `org/name@revision`; from the cache without a look at the Hub.

    Raises TemperError with exit code 5 where there is none, 9 without huggingface_hub.
    """
    repo, revision = model_name(text)
    here = cached(repo, "model", revision, where)
    if here is not None and fetched(here, "model"):
        return Resolved(here.folder, here.commit)

    def wanted(names: Sequence[str], readme: str) -> Sequence[str]:
        return _MODEL

    try:
        snapshot, _ = fetch(repo, "model", here.commit if here is not None else revision, wanted, where, Exit.ARTIFACT)
    except TemperError:
        if here is None or not _is_model(here):
            raise
        return Resolved(here.folder, here.commit)  # fetched by hand, with `hf download`
    remember(snapshot, "model", snapshot.files())
    return Resolved(snapshot.folder, snapshot.commit)


def _is_model(snapshot: Snapshot) -> bool:
    """Whether a snapshot has its config and every file of weights that it names."""
    files = set(snapshot.files())
    if "model.safetensors.index.json" in files:
        try:
            index = json.loads(snapshot.text("model.safetensors.index.json"))
            return "config.json" in files and set(index["weight_map"].values()) <= files
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return "config.json" in files and any(file.endswith(".safetensors") for file in files)
