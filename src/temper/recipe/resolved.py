"""The recipe as it was understood: every key with its value, every value with where it comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from temper.masking import masked
from temper.recipe.recipe import Recipe, Stage


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe as plain values, defaults included."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "note": recipe.note,
        "seed": recipe.seed,
        "threads": recipe.threads,
        "matmul": recipe.matmul,
        "trackers": list(recipe.trackers),
        "tasks": {name: task.model_dump(mode="json") for name, task in recipe.tasks.items()},
        "stages": _stages(recipe),
    }


def _stages(recipe: Recipe) -> dict[str, Any]:
    """The stages by name; of a block what is written of it, each of its stages once."""
    blocks = {block.name: block for block in recipe.blocks}
    found: dict[str, Any] = {}
    for stage in recipe.stages:
        if not stage.block:
            found[stage.name] = stage_values(stage)
            continue
        block = blocks[stage.block]
        until = block.until.model_dump(mode="json") if block.until else None
        told = {"repeat": block.rounds, "until": until, "first": dict(block.first)}
        found.setdefault(stage.block, {**told, "stages": {}})["stages"][stage.base] = stage_values(stage)
    return found


def stage_values(stage: Stage) -> dict[str, Any]:
    return {"stage": stage.kind, **stage.config.model_dump(mode="json")}


def secrets(recipe: Recipe) -> list[str]:
    """Warnings, one for each key whose value looks like an access token or a password."""
    values = flat(resolved(recipe))
    shown = flat(masked(resolved(recipe)))
    why = "looks like an access token or a password: it is masked in everything that is written or shown; take it out"
    return [f"`{key}` holds what {why}" for key, value in values.items() if _json(value) != _json(shown.get(key))]


def _json(value: Any) -> str:
    return json.dumps(value)


def flat(values: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Dotted keys and their values; lists are values.

    >>> flat({"a": {"b": 1, "c": [2]}, "d": {}})
    {'a.b': 1, 'a.c': [2], 'd': {}}
    """
    if not isinstance(values, Mapping) or not values:
        return {".".join(path): values}
    return {key: value for part, inner in values.items() for key, value in flat(inner, (*path, str(part))).items()}


def origins(recipe: Recipe) -> dict[str, str]:
    """The origin of every dotted key of the resolved recipe."""
    return {key: recipe.origin(key) for key in flat(resolved(recipe))}


def render_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, the origin of each value beside it and, for programs, under `origins`."""
    head = f"# {recipe.source.shown} as it was run: every key, and where its value comes from.\n"
    where = origins(recipe)
    body = render(masked(resolved(recipe)), where)
    return head + body + render({"origins": where}, {})


def render_stage(recipe: Recipe, stage: Stage) -> str:
    """One stage of the resolved recipe as YAML."""
    where = {key.removeprefix(f"{stage.path}."): origin for key, origin in origins(recipe).items()}
    return render(masked(stage_values(stage)), where)


def render(values: Mapping[str, Any], where: Mapping[str, str], path: tuple[str, ...] = ()) -> str:
    """YAML that versions 1.1 and 1.2 read alike, one value a line.

    >>> print(render({"a": {"lr": 1e-5, "names": ["no"]}}, {"a.lr": "--set"}), end="")
    a:
      lr: 1.0e-05  # --set
      names: ["no"]
    """
    lines = []
    for key, value in values.items():
        here = (*path, str(key))
        start = "  " * len(path) + scalar(str(key)) + ":"
        if isinstance(value, Mapping) and value:
            lines.append(f"{start}\n{render(value, where, here)}")
        else:
            origin = where.get(".".join(here), "")
            lines.append(f"{start} {scalar(value)}" + (f"  # {origin}" if origin else "") + "\n")
    return "".join(lines)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_RESERVED = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n"])


def _quoted(text: str) -> str:
    """A double-quoted scalar; unlike JSON, YAML writes what cannot be printed by its whole code point."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped)


def scalar(value: Any) -> str:
    """One value on one line. Keys that are plain words need no quotes; values in quotes are always strings."""
    if isinstance(value, str):
        is_word = value and value[0].isalpha() and set(value) <= _PLAIN and value.casefold() not in _RESERVED
        return value if is_word else _quoted(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
        text = repr(value)
        mantissa, e, exponent = text.partition("e")
        return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(key))}: {scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_quoted(v) if isinstance(v, str) else scalar(v) for v in value) + "]"
    return json.dumps(value)
