"""How data sets and models of the Hub are named: `hf://org/name?split=train`, `org/name`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from temper.errors import ConfigError, Fault

SCHEME = "hf://"
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_OPTIONS = ("split", "name", "revision")


@dataclass(frozen=True)
class DataName:
    """A data set, or one file of it. Empty where nothing is said: the only split, the only configuration, `main`."""

    repo: str
    split: str = ""
    name: str = ""
    revision: str = "main"
    file: str = ""


def is_hub_data(text: str) -> bool:
    """Whether this names data on the Hub.

    >>> is_hub_data("hf://openai/gsm8k?split=train"), is_hub_data("train.jsonl")
    (True, False)
    """
    return text.startswith(SCHEME)


def is_hub_model(text: str) -> bool:
    """Whether this can only be a model on the Hub: `org/name`, where no folder `org` is here.

    >>> is_hub_model("Qwen/Qwen3-0.6B"), is_hub_model("./mine"), is_hub_model("runs/mine/artifacts")
    (True, False, False)
    """
    bare = text.removeprefix(SCHEME).partition("@")[0]
    if not _REPO.fullmatch(bare) or "/" not in bare:
        return False
    return text.startswith(SCHEME) or not Path(bare.partition("/")[0]).exists()


def data_name(text: str, where: str = "") -> DataName:
    """What a text names. Raises ConfigError where it cannot be read.

    >>> data_name("hf://openai/gsm8k?split=test&name=main")
    DataName(repo='openai/gsm8k', split='test', name='main', revision='main', file='')
    >>> data_name("hf://datasets/openai/gsm8k@v1/main/train.parquet").file
    'main/train.parquet'
    """
    path, _, query = text.removeprefix(SCHEME).partition("?")
    parts = unquote(path).removeprefix("datasets/").strip("/").split("/")
    head, at, revision = "/".join(parts[:2]).partition("@")
    options = parse_qsl(query, keep_blank_values=True)
    given = dict(options)
    unknown = [key for key in given if key not in _OPTIONS]
    if not _REPO.fullmatch(head) or unknown or len(given) < len(options) or ".." in parts:
        why = f"it has no `{unknown[0]}`" if unknown else "it names no data set"
        fix = "write `hf://ORG/NAME?split=train`, and where needed `&name=CONFIGURATION&revision=COMMIT`"
        raise ConfigError(Fault(f"`{text}` cannot be read", where, why, fix))
    revision = given.get("revision") or (revision if at else "") or "main"
    return DataName(head, given.get("split", ""), given.get("name", ""), revision, "/".join(parts[2:]))


def model_name(text: str) -> tuple[str, str]:
    """(repository, revision) of a model's name.

    >>> model_name("Qwen/Qwen3-0.6B@c1899de"), model_name("hf://org/name")
    (('Qwen/Qwen3-0.6B', 'c1899de'), ('org/name', 'main'))
    """
    repo, _, revision = text.removeprefix(SCHEME).partition("@")
    return repo, revision or "main"
