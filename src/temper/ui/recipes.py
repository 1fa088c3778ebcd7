"""The recipes that the page may start, by a number that is no path, and what may be changed of them there.

What a page sends names a recipe that was there before and sets numbers, switches, choices and names that the recipe or
temper has. It brings in no text of its own: no path, no address, no name of a file, a model or a variable.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.masking import masked
from temper.recipe.graph import Ref, shipped_models
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe
from temper.recipe.resolved import stage_values
from temper.recipe.sources import RECIPES, shipped_recipes
from temper.rewards import REWARDS
from temper.text.languages import LANGUAGES
from temper.ui.library import Unknown

MOST_RECIPES = 200
MOST_BYTES = 256 * 1024  # of a file that is looked at
MOST_SETTINGS = 100
MOST_LETTERS = 2000  # of one setting
CLOSED = ("output_dir", "extends", "description", "note", "origins")  # at the top of a recipe: not set from the page
STATED = ("stages:", "extends:")  # a line of a recipe begins with one of them
MADE = re.compile(r"@\w[\w-]*(/\w[\w.-]*)?")  # what another stage makes

Json = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """A recipe that may be started. `reference` is what `temper run` is given, `shown` what the page says."""

    number: str
    reference: str
    name: str
    shown: str
    path: Path


class Recipes:
    """Those that are shipped, the files named when the page was started, and those that lie in the folders it shows."""

    def __init__(self, files: Sequence[Path] = (), folders: Sequence[Path] = ()):
        self.files = [path.absolute() for path in files]
        self.folders = [path.absolute() for path in folders]

    def all(self) -> list[Known]:
        """Files first, each once."""
        found = [_of_file(path) for path in (*self.files, *(path for f in self.folders for path in _recipes_in(f)))]
        shipped = [Known(_number(f"shipped:{name}"), name, name, "shipped with temper", RECIPES / f"{name}.yaml")
                   for name in shipped_recipes()]  # fmt: skip
        return list({known.number: known for known in (*found, *shipped)}.values())[:MOST_RECIPES]

    def known(self, number: str) -> Known:
        """Raises Unknown."""
        found = next((known for known in self.all() if known.number == number), None)
        if found is None:
            raise Unknown("no such recipe: name its file when you start `temper ui`")
        return found


def _number(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _of_file(path: Path) -> Known:
    return Known(_number(str(path)), str(path), path.stem, path.name, path)


def _recipes_in(folder: Path) -> Iterator[Path]:
    """YAML files that look like recipes."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
        for path in paths[:MOST_RECIPES]:
            if path.is_file() and path.stat().st_size <= MOST_BYTES:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                if any(line.startswith(STATED) for line in lines):
                    yield path
    except OSError:
        return


def describe(known: Known) -> Json:
    """What a recipe sets, each value with where it comes from; its faults, where it has any."""
    recipe, faults = read(known, ())
    stages = [
        {"name": stage.name, "kind": stage.kind, "config": [
            {"key": key, "value": masked(value, key), "origin": recipe.origin(f"stages.{stage.name}.{key}")}
            for key, value in stage_values(stage).items() if key != "stage"]}
        for stage in recipe.stages
    ]  # fmt: skip
    top = [{"key": key, "value": getattr(recipe, key), "origin": recipe.origin(key)} for key in ("seed", "threads")]
    return {"id": known.number, "name": recipe.name, "from": known.shown, "description": recipe.description,
            "top": top, "stages": stages, "faults": [told(fault) for fault in faults]}  # fmt: skip


def read(known: Known, settings: Sequence[str]) -> tuple[Recipe, list[Fault]]:
    """The recipe with `settings`, and its faults; no file or model that it names is looked for. Raises ConfigError."""

    def leave(ref: Ref, _: Sequence[str]) -> tuple[Ref, list[Fault]]:
        return ref, []

    return load_recipe(known.reference, settings, leave)


def told(fault: Fault) -> Json:
    return {"what": fault.what, "where": fault.where, "why": fault.why, "fix": fault.fix}


def check_settings(known: Known, settings: Any) -> Recipe:
    """The recipe with what the page sets of it. Raises TemperError with every fault of the recipe and of the settings;
    one of a text that the page may not bring in."""
    if not isinstance(settings, list) or not all(isinstance(setting, str) for setting in settings):
        raise ConfigError(Fault("`settings` is a list of texts, each `key=value`"))
    if len(settings) > MOST_SETTINGS or any(len(setting) > MOST_LETTERS for setting in settings):
        raise ConfigError(Fault(f"at most {MOST_SETTINGS} settings of {MOST_LETTERS} letters each"))
    closed = [key for setting in settings if (key := setting.partition("=")[0].strip()).partition(".")[0] in CLOSED]
    if closed:
        raise ConfigError(_refused(f"`{key}` is not set from here", f"--set {key}") for key in dict.fromkeys(closed))
    plain, _ = read(known, ())
    recipe, faults = read(known, settings)
    allowed = set(free_texts(plain)) | words_of(recipe)
    brought = [text for text in dict.fromkeys(free_texts(recipe)) if text not in allowed and not MADE.fullmatch(text)]
    faults = [_refused(f"`{text[:100]}` is text that the recipe does not hold", _where(text, settings))
              for text in brought] or faults  # fmt: skip
    if faults:
        raise TemperError(dict.fromkeys(faults), faults[0].code or Exit.CONFIG)
    return recipe


def _refused(what: str, where: str) -> Fault:
    why = "from the page come numbers, switches, choices and names that the recipe has; no paths, addresses or texts"
    return Fault(what, where, why, "write it into a recipe's file, or use `temper run` in a terminal")


def _where(text: str, settings: Sequence[str]) -> str:
    keys = [setting.partition("=")[0].strip() for setting in settings if text in setting]
    return f"--set {keys[0]}" if keys else ""


def words_of(recipe: Recipe) -> set[str]:
    """Names that a setting may use: of stages and tasks, of temper's rewards, models and languages."""
    return {*(stage.name for stage in recipe.stages), *recipe.tasks, *REWARDS, *shipped_models(), *LANGUAGES}


def free_texts(recipe: Recipe) -> Iterator[str]:
    """Every text in the stages and tasks of a recipe that is no choice which its key offers."""
    for config in (*(stage.config for stage in recipe.stages), *recipe.tasks.values()):
        yield from texts(config, type(config))


def texts(value: Any, annotation: Any) -> Iterator[str]:
    """The texts in a value that its annotation does not list, defaults left out.

    >>> list(texts({"a": ["on", "my.py:f", 3]}, dict[str, list[Literal["on", "off"]]]))
    ['a', 'my.py:f']
    """
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            if (inner := getattr(value, name, None)) != field.get_default(call_default_factory=True):
                yield from texts(inner, field.annotation)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(key, annotation)
            yield from texts(inner, annotation)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from texts(inner, annotation)
    elif isinstance(value, (str, Path)) and str(value) not in _choices(annotation):
        yield str(value)


def _choices(annotation: Any) -> set[Any]:
    """All that the `Literal`s in an annotation list."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return {choice for inner in get_args(annotation) for choice in _choices(inner)}
