"""Which files of a data set's repository are one split of one configuration: as its README says, or by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from temper.errors import Fault

# The earlier, the better, where a repository has its rows in several formats.
READABLE = (".parquet", ".jsonl", ".json", ".csv", ".arrow", ".jsonl.gz", ".json.gz", ".csv.gz")
_NO_DATA = {"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json", "config.json"}
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(?:.*/)?([A-Za-z_][\w.]*?)-\d+-of-\d+(?:-[0-9a-f]+)?\.")

# configuration -> split -> files
Splits = Mapping[str, Mapping[str, Sequence[str]]]


def splits_of(files: Iterable[str], readme: str = "") -> Splits:
    """The configurations and splits of a repository with these files.

    >>> splits_of(["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet", "README.md"])
    {'main': {'test': ['main/test-00000-of-00001.parquet'], 'train': ['main/train-00000-of-00001.parquet']}}
    >>> splits_of(["test.jsonl", "README.md"])
    {'default': {'test': ['test.jsonl']}}
    """
    data = sorted(file for file in files if _is_data(file))
    return _declared(data, readme) or _by_names(data)


def _is_data(file: str) -> bool:
    name = file.rpartition("/")[2]
    return name.lower().endswith(READABLE) and name not in _NO_DATA and not name.startswith(".")


def _declared(data: Sequence[str], readme: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for config in _configs(readme):
        folder = str(config.get("data_dir") or "").strip("/")
        entries = config.get("data_files") or ([{"split": "train", "path": f"{folder}/**"}] if folder else [])
        entries = entries if isinstance(entries, list) else [entries]
        splits: dict[str, list[str]] = {}
        for entry in entries:
            split, patterns = ("train", entry) if isinstance(entry, str) else (entry.get("split"), entry.get("path"))
            patterns = [patterns] if isinstance(patterns, str) else patterns or []
            told = [file for pattern in patterns for file in data if _matches(file, str(pattern))]
            splits.setdefault(str(split or "train"), []).extend(dict.fromkeys(told))
        found[str(config.get("config_name") or "default")] = {name: told for name, told in splits.items() if told}
    return {name: splits for name, splits in found.items() if splits}


def _configs(readme: str) -> list[Mapping[str, Any]]:
    """What a README's first block says about its configurations; the default one first."""
    import yaml

    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", readme, re.DOTALL)
    if head is None:
        return []
    try:
        told = yaml.safe_load(head.group(1))
    except yaml.YAMLError:
        return []
    configs = told.get("configs") if isinstance(told, dict) else None
    kept = [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []
    return sorted(kept, key=lambda config: not config.get("default"))


def _matches(file: str, pattern: str) -> bool:
    """`*` stays in its folder, `**` does not."""
    pattern = pattern.removeprefix("./")
    if "**" not in pattern and pattern.count("/") != file.count("/"):
        return False
    return fnmatchcase(file, pattern) or fnmatchcase(file, pattern.replace("**/", ""))


def _by_names(data: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    endings = [ending for ending in READABLE if any(file.lower().endswith(ending) for file in data)]
    for file in data:
        if not file.lower().endswith(endings[0]):
            continue  # the same rows again, in another format
        folder = file.partition("/")[0] if "/" in file else ""
        name = folder if folder and _split_in(folder) is None and folder != "data" else "default"
        found.setdefault(name, {}).setdefault(_split_of(file), []).append(file)
    return found


def _split_of(file: str) -> str:
    known = _split_in(file.partition("/")[2] or file) or _split_in(file)
    shard = _SHARD.match(file)
    return known or (shard.group(1) if shard else "train")


def _split_in(text: str) -> str | None:
    words = re.split(r"[^a-z0-9]+", text.lower())
    return next((split for split, names in _WORDS.items() if any(name in words for name in names)), None)


def choose(splits: Splits, name: str, split: str, text: str, where: str = "") -> tuple[str, str] | Fault:
    """The configuration and split that are meant: as named, or the only ones; else a fault that lists them."""
    if not splits:
        known = ", ".join(READABLE[:5])
        return Fault(f"`{text}` has no data that temper reads", where, f"it reads {known}")
    names = list(splits)
    default = names[0] if len(names) == 1 else "default" if "default" in names else ""
    if not name and not default and split:
        having = [known for known in names if split in splits[known]]
        default = having[0] if len(having) == 1 else ""
    chosen = name or default
    if chosen not in splits:
        what = f"no configuration `{name}`" if name else "several configurations"
        return _which(f"`{text}`: {what}", names, "name", where)
    found = list(splits[chosen])
    split = split or (found[0] if len(found) == 1 else "")
    if split not in found:
        return _which(f"`{text}`: {f'no split `{split}`' if split else 'several splits'}", found, "split", where)
    return chosen, split


def _which(what: str, known: Sequence[str], option: str, where: str) -> Fault:
    listed = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
    why = f"there are {listed}" if len(known) > 1 else f"there is {listed}"
    return Fault(what, where, why, f"write `{option}={known[0]}`" + (" or another of them" if len(known) > 1 else ""))
