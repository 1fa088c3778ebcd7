"""The points of a sweep: what `--over` and `--seeds` say, and the stage whose metrics tell the points apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault
from temper.recipe.document import plain, read_document
from temper.recipe.recipe import Recipe

LONGEST_NAME = 80


@dataclass(frozen=True)
class Axis:
    """What `--over` gives: keys that move together, and their values as they were typed, one tuple a point."""

    keys: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Point:
    """One combination: `settings` are (dotted key, text of its value), the seed among them if seeds are swept."""

    name: str  # of its folder
    settings: tuple[tuple[str, str], ...]

    def values(self) -> dict[str, Any]:
        """The value of each key, read as `--set` reads it."""
        return {key: read_value(text) for key, text in self.settings}


def parse_over(text: str) -> Axis:
    """`a.b=1,2` or, moving together, `a.b,a.c=1:x,2:y`; commas and colons inside brackets or quotes do not part.

    >>> parse_over("rl.reward_weights=[1.0,0],[1.0,0.1]").values
    (('[1.0,0]',), ('[1.0,0.1]',))
    >>> parse_over("rl.num_generations,rl.prompts_per_step=2:64,8:16")
    Axis(keys=('rl.num_generations', 'rl.prompts_per_step'), values=(('2', '64'), ('8', '16')))

    Raises ConfigError for what names no key or no value.
    """
    name, equals, rest = text.partition("=")
    keys = tuple(key.strip() for key in name.split(","))
    shown, fix = f"--over {text}", "write `--over stage.key=value,value`"
    if not equals or not all(keys):
        raise ConfigError(Fault(f"`{shown}` names no key to sweep", fix=fix))
    if len(set(keys)) < len(keys):
        raise ConfigError(Fault(f"`{shown}` names a key twice", fix=fix))
    values = []
    for value in split_outside(rest, ","):
        parts = tuple(split_outside(value, ":")) if len(keys) > 1 else (value.strip(),)
        if not all(parts):
            raise ConfigError(Fault(f"`{shown}` has an empty value", fix=f'{fix}; an empty text is `""`'))
        if len(parts) != len(keys):
            why = f"{len(keys)} keys move together, so each value has {len(keys)} parts with a colon between them"
            raise ConfigError(Fault(f"`{shown}`: `{value.strip()}` has {len(parts)}", why=why))
        values.append(parts)
    return Axis(keys, tuple(dict.fromkeys(values)))


def split_outside(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators that stand in no brackets and no quotes, trimmed.

    >>> split_outside("[1, 2], 'a,b', {x: 1, y: 2}", ",")
    ['[1, 2]', "'a,b'", '{x: 1, y: 2}']
    """
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in "[{(":
            depth += 1
        elif c in ")}]":
            depth = max(0, depth - 1)
        elif c == separator and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def read_value(text: str) -> Any:
    """The plain value of a YAML text."""
    return plain(read_document(text, "--over", Path.cwd()))


def points_of(axes: Sequence[Axis], seeds: Sequence[int]) -> list[Point]:
    """The product of the axes, the first changing slowest, each with every seed (none given: the recipe's own).

    >>> [p.name for p in points_of([parse_over("rl.learning_rate=1e-4,1e-3")], [0, 1])][:2]
    ['learning_rate=1e-4_seed=0', 'learning_rate=1e-4_seed=1']

    Raises ConfigError if two axes name the same key.
    """
    axes = [*axes, Axis(("seed",), tuple((str(seed),) for seed in seeds))] if seeds else list(axes)
    keys = [key for axis in axes for key in axis.keys]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(Fault(f"`{key}` is swept twice", fix="name every key once") for key in twice)
    lasts = [key.rpartition(".")[2] for key in keys]
    short = {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}
    found = []
    for combination in product(*(axis.values for axis in axes)):
        settings = tuple(zip(keys, (text for texts in combination for text in texts), strict=True))
        found.append(Point(_folder("_".join(f"{short[key]}={text}" for key, text in settings)), settings))
    return found


def _folder(text: str) -> str:
    """A file name that tells the values, with a hash of them where it cannot tell all."""
    name = re.sub(r"[^A-Za-z0-9._=+-]+", "-", text)[:LONGEST_NAME].strip("-")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def default_sweep_folder(recipe: Recipe, axes: Sequence[Axis]) -> Path:
    """`runs/<recipe>-sweep-<hash>`: one for each recipe and set of keys, so that more values and seeds join in."""
    identity = json.dumps([recipe.source.identity, sorted(key for axis in axes for key in axis.keys)])
    return Path("runs") / f"{recipe.name}-sweep-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def swept_stage(recipe: Recipe, axes: Sequence[Axis]) -> str:
    """The stage whose metrics tell the points apart: the last one of which a key is swept, else the last that draws
    completions and is rewarded for them, else the last that makes a model.

    Raises ConfigError for a recipe that makes no model.
    """
    named = {part for axis in axes for key in axis.keys for part in key.removeprefix("stages.").split(".")[:1]}
    models = [stage for stage in recipe.stages if stage.makes == "model"]
    chosen = [stage.name for stage in models if stage.name in named]
    rewarded = [stage.name for stage in models if hasattr(stage.config, "reward_funcs")]
    names = chosen or rewarded or [stage.name for stage in models]
    if not names:
        raise ConfigError(Fault(f"recipe `{recipe.name}` trains nothing", fix="sweep a recipe that makes a model"))
    return names[-1]


def downstream(recipe: Recipe, stage: str) -> list[str]:
    """`stage` and the stages that depend on it, in order."""
    found = [stage]
    for other in recipe.stages:
        if other.name not in found and any(used in found for used in other.uses):
            found.append(other.name)
    return found


def describe(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    return [{"keys": list(axis.keys), "values": [[read_value(v) for v in vs] for vs in axis.values]} for axis in axes]
