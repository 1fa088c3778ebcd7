"""References: `"@stage"` from stage to stage, paths to files and models, names of tasks; each found or told about."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

import temper
from temper.config import Reference, ReferenceKind
from temper.data.sources import is_data_set
from temper.errors import Exit, Fault, TemperError
from temper.hub.names import is_hub_data, is_hub_model
from temper.hub.resolve import Resolved, resolve_data, resolve_model
from temper.recipe.document import Items, Node, Place, Table
from temper.recipe.words import did_you_mean
from temper.stages import Makes

ASSETS = Path(temper.__file__).parent / "assets"


@dataclass(frozen=True)
class Ref:
    """A string in a config that names something else. Once found: a stage (and a file it makes), or a path."""

    text: str
    kind: ReferenceKind
    key: str  # dotted, from the top of the recipe
    place: Place
    stage: str | None = None
    file: str | None = None
    path: Path | None = None
    or_reward_model: bool = False
    commit: str = ""  # of what comes from the Hub
    last_of: str = ""  # a stage of a block, where what its last round makes is meant, whichever that will be


def references(config: BaseModel, table: Table, path: Sequence[str]) -> list[Ref]:
    """Every reference in a config; `table` is what was written, `path` where it stands in the recipe.

    >>> from temper.config import TaskConfig
    >>> table = Table({}, Place("my.yaml"))
    >>> [(ref.key, ref.text) for ref in references(TaskConfig(train="@made/a.jsonl"), table, ["tasks", "sums"])]
    [('tasks.sums.train', '@made/a.jsonl')]
    """
    found = []
    for loc, text, mark in _walk(config, type(config), ()):
        key = ".".join(str(part) for part in (*path, *loc))
        ref = Ref(text, mark.kind, key, _place(table, loc), or_reward_model=mark.or_reward_model)
        if mark.kind != "task" and text.startswith("@"):
            stage, _, file = text[1:].partition("/")
            ref = replace(ref, stage=stage, file=file or None)
        found.append(ref)
    return found


_Found = tuple[tuple[str | int, ...], str, Reference]


def _walk(value: Any, annotation: Any, loc: tuple[str | int, ...]) -> Iterator[_Found]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        marks = [mark for mark in args[1:] if isinstance(mark, Reference)]
        if marks and isinstance(value, str):
            yield loc, value, marks[0]
        else:
            yield from _walk(value, args[0], loc)
    elif origin in (Union, types.UnionType):
        for arm in args:
            found = list(_walk(value, arm, loc))
            if found:
                yield from found
                return
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            yield from _walk(getattr(value, name, None), inner, (*loc, name))  # None: a required key not written
    elif isinstance(value, Mapping) and len(args) == 2:
        for key, inner in value.items():
            yield from _walk(key, args[0], (*loc, key))
            yield from _walk(inner, args[1], (*loc, key))
    elif isinstance(value, (list, tuple)) and args:
        for index, inner in enumerate(value):
            is_fixed = origin is tuple and args[-1] is not Ellipsis and index < len(args)
            yield from _walk(inner, args[index if is_fixed else 0], (*loc, index))


def _place(table: Table, loc: Sequence[str | int]) -> Place:
    """Where the value at `loc` was written; the table's own place for a default."""
    node: Node | None = table
    for part in loc:
        if isinstance(node, Table):
            node = node.get(str(part))
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return table.place
    return node.place if node is not None else table.place


# -- stages -----------------------------------------------------------------------------------------------------------


def check_stage_reference(ref: Ref, makes: Mapping[str, Makes | None], here: str) -> list[Fault]:
    """Faults of `"@stage"` seen alone: does the stage exist, and make what is wanted? `makes` is by stage, in order,
    None for one whose kind is not known."""
    name, where = ref.stage or "", str(ref.place)
    if name not in makes:
        why = f"the stages are {', '.join(makes)}"
        close = did_you_mean("@" + name, ["@" + known for known in makes])
        return [Fault(f"`{ref.key}` refers to an unknown stage `{ref.text}`", where, why, close)]
    made = makes[name]
    if name == here or made is None:
        return []  # a circle is reported once, for the whole graph
    wanted = _WANTS[ref.kind]
    others = [f"@{other}" for other, what in makes.items() if what == wanted and other != here]
    fix = f"refer to one of {', '.join(others)}" if others else ""
    fits = made == wanted or (ref.or_reward_model and made == "reward_model")
    if wanted in ("model", "reward_model") and (not fits or ref.file):
        found = f"a file that `{name}` makes" if ref.file else _A[made]
        return [Fault(f"`{ref.key}` needs {_A[wanted]}, but `{ref.text}` is {found}", where, "", fix)]
    if ref.kind == "data" and made in ("model", "reward_model"):
        return [Fault(f"`{ref.key}` needs a data set, but `{ref.text}` is {_A[made]}", where, "", fix)]
    if ref.kind == "data" and made == "evaluation" and not ref.file:
        why = "an evaluation makes no data set"
        return [Fault(f"`{ref.key}` needs a data set, but `{ref.text}` is an evaluation", where, why, fix)]
    if ref.file and (".." in PurePosixPath(ref.file).parts or ref.file.startswith("/")):
        return [Fault(f"`{ref.text}` leaves what `{name}` makes", where, fix=f"write `@{name}/file.jsonl`")]
    return []


_WANTS: dict[ReferenceKind, Makes] = {"model": "model", "data": "dataset", "reward": "reward_model"}
_A: dict[Makes, str] = {
    "model": "a model",
    "reward_model": "a reward model",
    "dataset": "a data set",
    "evaluation": "an evaluation",
}


def find_circle(uses: Mapping[str, Sequence[str]]) -> list[str]:
    """The stages of one circle, its first repeated at the end; [] if there is none.

    >>> find_circle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ['b', 'c', 'b']
    """
    state: dict[str, int] = {}
    for start in uses:
        path = [start]
        branches = [iter(uses[start])] if start not in state else []
        state.setdefault(start, 1)
        while branches:
            step = next(branches[-1], None)
            if step is None:
                branches.pop()
                state[path.pop()] = 2
            elif state.get(step) == 1:
                return [*path[path.index(step) :], step]
            elif step in uses and step not in state:
                state[step] = 1
                path.append(step)
                branches.append(iter(uses[step]))
    return []


def sort_stages(uses: Mapping[str, Sequence[str]]) -> list[str]:
    """The stages with each after those it uses, otherwise in their order. There must be no circle.

    >>> sort_stages({"report": ["extra"], "base": [], "extra": ["base"]})
    ['base', 'extra', 'report']
    """
    waiting, done = list(uses), []
    while waiting:
        name = next(name for name in waiting if all(used in done or used not in uses for used in uses[name]))
        waiting.remove(name)
        done.append(name)
    return done


def order_of(
    names: Sequence[str], uses: Mapping[str, Sequence[tuple[str, Ref]]], sort: bool
) -> tuple[list[str], list[Fault]]:
    """The stages in the order they run in; faults for circles and for stages that stand before what they use. `uses`
    is what each stage needs, and the reference that says so."""
    needed = {name: [used for used, _ in uses.get(name, [])] for name in names}
    if circle := find_circle(needed):
        ref = next(ref for used, ref in uses[circle[0]] if used == circle[1])
        what = f"`{ref.key}` refers to the stage itself" if len(circle) == 2 else "stages use one another in a circle"
        why = f"{' needs '.join(circle)}: none of them can be first"
        return list(names), [Fault(what, str(ref.place), why, "let one of them start from something that exists")]
    if sort:
        return sort_stages(needed), []
    faults = []
    for name in names:
        for used, ref in uses.get(name, []):
            if used in names and names.index(used) > names.index(name):
                why = f"stages run in the order they are written in, and `{name}` needs what `{used}` makes"
                what = f"`{name}` stands before `{used}`, which it uses"
                faults.append(Fault(what, str(ref.place), why, f"move `{name}` below `{used}`"))
    return list(names), faults


# -- files ------------------------------------------------------------------------------------------------------------


def find_external(ref: Ref, stages: Sequence[str]) -> tuple[Ref, list[Fault]]:
    """The reference with its path, relative to where it was written, then to the current directory; or why not.

    A shipped model goes by its name alone; what is on the Hub by `hf://org/name?split=…` or, a model, by `org/name`.
    """
    name, _, function = ref.text.partition(":") if ref.kind == "reward" else (ref.text, "", "")
    if not name.strip():
        return ref, [Fault(f"`{ref.key}` is empty", str(ref.place), code=_CODES[ref.kind])]
    if ref.kind == "model" and name in shipped_models():
        return replace(ref, path=ASSETS / name), []
    if ref.kind == "data" and is_hub_data(name):
        return _from_hub(ref, resolve_data)
    spelled = Path(os.path.expanduser(name))
    for folder in dict.fromkeys((ref.place.folder, Path())):
        path = folder / spelled
        try:
            if _is_what_is_wanted(ref, path):
                path = path.parent.resolve() / path.name if ref.kind == "data" else path.resolve()
                if ref.kind != "data" and path.is_dir() and not any((path / file).is_file() for file in MODEL_FILES):
                    why = f"{path} has no {' and no '.join(MODEL_FILES)}"
                    return ref, [Fault(f"`{ref.key}` names no model", str(ref.place), why, code=Exit.ARTIFACT)]
                return replace(ref, path=path.with_name(f"{path.name}:{function}") if function else path), []
        except OSError as error:
            return ref, [Fault(f"`{ref.key}`: {error.strerror}", str(ref.place), code=_CODES[ref.kind])]
    if ref.kind == "model" and is_hub_model(name) and name not in stages:
        return _from_hub(ref, resolve_model)
    return ref, [_not_found(ref, spelled, stages)]


MODEL_FILES = ("config.json", "adapter_config.json")  # a directory without either is not looked through


def _is_what_is_wanted(ref: Ref, path: Path) -> bool:
    if ref.kind == "model" or is_folder(ref):
        return path.is_dir()
    return path.is_file() or (ref.kind == "data" and path.is_dir() and is_data_set(path))


def _from_hub(ref: Ref, resolve: Callable[[str, str], Resolved]) -> tuple[Ref, list[Fault]]:
    """The reference with the path and the commit of what it names on the Hub; fetched where it is not in the cache."""
    try:
        found = resolve(ref.text, str(ref.place))
    except TemperError as error:
        return ref, list(error.faults)
    return replace(ref, path=found.path, commit=found.commit), []


def is_named(ref: Ref) -> bool:
    """Whether a reward's name is no path: a built-in reward, or an address."""
    return (":" not in ref.text and not is_folder(ref)) or ref.text.startswith(("http://", "https://"))


def is_folder(ref: Ref) -> bool:
    """Whether a reward's name is the path of a directory, a reward model's, and not a built-in reward or a function."""
    return ref.kind == "reward" and ":" not in ref.text and ("/" in ref.text or ref.text.startswith((".", "~")))


_CODES = {"model": Exit.ARTIFACT, "data": Exit.DATA, "reward": Exit.CONFIG, "task": Exit.CONFIG}


def shipped_models() -> list[str]:
    """The names of the models that come with temper."""
    return sorted(path.parent.name for path in ASSETS.glob("*/config.json"))


def _not_found(ref: Ref, spelled: Path, stages: Sequence[str]) -> Fault:
    looked = [str(folder / spelled) for folder in dict.fromkeys((ref.place.folder, Path()))]
    there = [path for path in looked if os.path.exists(path)]
    code, what = _CODES[ref.kind], {"model": "model", "data": "data file", "reward": "reward file"}[ref.kind]
    what = "reward model" if is_folder(ref) else what
    why = f"looked for {' and '.join(dict.fromkeys(os.path.abspath(path) for path in looked))}"
    if there:
        of_file = "a directory" if os.path.isdir(there[0]) else "no regular file"
        found = "a file" if ref.kind == "model" or is_folder(ref) else of_file
        why = f"{there[0]} is {found}"
    fix = ""
    if ref.text in stages:
        fix, code = f'did you mean what the stage makes: "@{ref.text}"?', Exit.CONFIG
    elif ref.kind == "model":
        known = ", ".join(shipped_models())
        fix = did_you_mean(ref.text, shipped_models()) or "name a model directory" + (
            f" or a shipped model: {known}" if known else ""
        )
        run, _, stage = ref.text.rpartition(":")
        if run and stage and os.path.isdir(run):
            fix = f"a recipe names directories: `temper export {ref.text} DIR` and name DIR"
    elif spelled.parent.name or spelled.name:
        folder = ref.place.folder / spelled.parent
        try:
            fix = did_you_mean(spelled.name, sorted(entry.name for entry in folder.iterdir())[:1000])
        except OSError:
            fix = ""
    return Fault(f"{what} `{ref.text}` not found", str(ref.place), why, fix, code=code)
