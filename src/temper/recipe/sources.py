"""Where a recipe's text comes from: shipped recipes by name, files, what they extend, and `--set`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import temper
from temper.errors import ConfigError, Fault
from temper.recipe.document import (
    MOST_BYTES,
    Entry,
    Node,
    Place,
    Scalar,
    Table,
    decode,
    leaves,
    plain_shallow,
    read_document,
    type_name,
)
from temper.recipe.words import did_you_mean, nearest

RECIPES = Path(temper.__file__).parent / "recipes"
MOST_BASES = 16
NOT_INHERITED = ("name", "description", "note", "extends")  # they are about one file


@dataclass(frozen=True)
class Source:
    """A recipe's file. `identity` is stable: the shipped name or the absolute path."""

    path: Path
    shown: str
    name: str
    identity: str


@dataclass(frozen=True)
class Tree:
    """The whole text of a recipe, bases merged and `--set` applied."""

    table: Table
    source: Source
    extends: bool  # made of several files: their stages stand in no order anyone wrote


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with temper."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(reference: str, folder: Path | None = None, where: str = "") -> Source:
    """A recipe by shipped name or by path, relative to `folder`, then to the current directory.

    Raises ConfigError that lists the shipped names, or says what the path is instead.
    """
    if reference in shipped_recipes():
        path = RECIPES / f"{reference}.yaml"
        return Source(path, f"{reference}.yaml", reference, f"shipped:{reference}")
    spelled = Path(reference).expanduser()
    candidates = [folder / spelled] if folder is not None else []
    for path in [*candidates, spelled] if reference.strip() else []:
        try:
            if path.is_file():
                return Source(path, _shown(path), path.stem, str(path.resolve()))
            if path.is_dir():
                raise ConfigError(_is_directory(path, where))
        except OSError as error:
            raise ConfigError(Fault(f"cannot read recipe `{reference}`: {error.strerror}", where)) from None
    known = shipped_recipes()
    why = f"it is no file, and the shipped recipes are {', '.join(known)}" if known else "there is no such file"
    raise ConfigError(Fault(f"no recipe `{reference}`", where, why, did_you_mean(reference, known)))


def _shown(path: Path) -> str:
    """The path as a user would write it: relative if it lies below the current directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _is_directory(path: Path, where: str) -> Fault:
    if (path / "run.json").exists():
        fix = f"name the recipe that made it: `temper run RECIPE --out {path}`"
        return Fault(f"`{path}` is a run directory, not a recipe", where, fix=fix)
    inside = sorted(file.name for file in path.glob("*.yaml"))[:5]
    return Fault(f"`{path}` is a directory, not a recipe", where, fix=f"it holds {', '.join(inside)}" if inside else "")


def read_tree(reference: str, settings: Sequence[str] = ()) -> Tree:
    """Read a recipe and everything it extends. Raises ConfigError with the faults of the first file that has any."""
    source = find_recipe(reference)
    files, tables = [source], [_read(source)]
    while (entry := tables[-1].entries.get("extends")) is not None:
        where = str(entry.node.place)
        if not isinstance(entry.node, Scalar) or not isinstance(entry.node.value, str) or not entry.node.value:
            raise ConfigError(Fault("`extends` names one recipe: a shipped name or a path", where))
        try:
            base = find_recipe(entry.node.value, files[-1].path.parent, where)
        except ConfigError as error:
            raise ConfigError(_missing_base(fault, files) for fault in error.faults) from None
        chain = " -> ".join(file.shown for file in [*files, base])
        if base.identity in (file.identity for file in files):
            raise ConfigError(Fault(f"recipes extend one another in a circle: {chain}", where))
        if len(files) > MOST_BASES:
            raise ConfigError(Fault(f"more than {MOST_BASES} recipes extend one another: {chain}", where))
        files.append(base)
        tables.append(_read(base))
    merged = tables.pop()
    while tables:
        own = {key: entry for key, entry in merged.entries.items() if key not in NOT_INHERITED}
        merged = merge(Table(own, merged.place), tables.pop())
    merged = Table({key: entry for key, entry in merged.entries.items() if key != "extends"}, merged.place)
    return Tree(apply_settings(merged, settings), source, len(files) > 1)


def _missing_base(fault: Fault, files: Sequence[Source]) -> Fault:
    chain = " -> ".join(file.shown for file in files)
    return Fault(f"{fault.what}, which {files[-1].shown} extends", f"{fault.where} ({chain})", fault.why, fault.fix)


def _read(source: Source) -> Table:
    try:
        size = source.path.stat().st_size
        data = source.path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise ConfigError(Fault(f"cannot read recipe: {error.strerror}", source.shown)) from None
    if size > MOST_BYTES:
        why = f"it has {size:,} bytes, a recipe at most {MOST_BYTES:,}"
        raise ConfigError(Fault(f"`{source.shown}` is too large for a recipe", source.shown, why))
    root = read_document(decode(data, source.shown), source.shown, source.path.resolve().parent)
    if isinstance(root, Table):
        return root
    found = "nothing: the file is empty" if isinstance(root, Scalar) and root.value is None else ""
    found = found or type_name(plain_shallow(root))
    why = "a recipe is a table of keys, such as `stages:`"
    raise ConfigError(Fault(f"`{source.shown}` is not a recipe: found {found}", str(root.place), why))


def merge(base: Table, over: Table, depth: int = 0) -> Table:
    """`over` on `base`, deeply: tables are merged, everything else is replaced. A stage of another kind is replaced
    whole, and so is a table of a stage's own by `{}`. Keys keep the order of `base`; new ones follow.

    >>> from temper.recipe.document import plain
    >>> base = read_document("{a: {x: 1}, report: {n: 4}}", "base.yaml")
    >>> over = read_document("{a: {y: 2}, extra: {z: 3}, report: {n: 8}}", "my.yaml")
    >>> plain(merge(base, over))
    {'a': {'x': 1, 'y': 2}, 'report': {'n': 8}, 'extra': {'z': 3}}
    """
    order = list(dict.fromkeys((*base.entries, *over.entries)))
    entries = {}
    for key in order:
        below, above = base.entries.get(key), over.entries.get(key)
        if above is None or below is None:
            entries[key] = above or below
        elif (
            isinstance(above.node, Table)
            and isinstance(below.node, Table)
            and _mergeable(below.node, above.node, depth)
        ):
            entries[key] = Entry(above.key, merge(below.node, above.node, depth + 1))
        else:
            entries[key] = above
    return Table(entries, over.place)


def _mergeable(base: Table, over: Table, depth: int) -> bool:
    if depth >= 2 and not over.entries:  # the keys of a stage or a task are at depth 2
        return False
    kinds = [node.value for table in (base, over) if isinstance(node := table.get("stage"), Scalar)]
    is_both = any("stage" in one.entries and "repeat" in other.entries for one, other in ((base, over), (over, base)))
    return len(set(kinds)) < 2 and not is_both


# -- --set ------------------------------------------------------------------------------------------------------------

TOP_KEYS = (
    "name", "description", "note", "seed", "threads", "matmul", "trackers", "output_dir", "tasks", "stages",
)  # fmt: skip


def apply_settings(table: Table, settings: Iterable[str]) -> Table:
    """The tree with each `a.b=value` put in. Raises ConfigError with the faults of them all."""
    faults: list[Fault] = []
    for setting in settings:
        try:
            table = _apply(table, setting)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return table


def _apply(table: Table, setting: str) -> Table:
    key, equals, text = setting.partition("=")
    key = key.strip()
    shown = f"--set {key}"
    if not equals or not key:
        raise ConfigError(Fault(f"`--set {setting}` sets nothing", fix="write `--set key=value`"))
    node = read_document(text, shown, Path.cwd())
    path = _full_path(table, key.split("."), shown)
    return _with_value(table, path, _placed(node, Place(shown, folder=Path.cwd())), shown)


def _placed(node: Node, place: Place) -> Node:
    """The tree of a `--set` value: its places are the option, not lines of it."""
    if isinstance(node, Scalar):
        return Scalar(node.value, place, node.plain)
    if isinstance(node, Table):
        return Table({key: Entry(place, _placed(e.node, place)) for key, e in node.entries.items()}, place)
    return type(node)([_placed(item, place) for item in node.items], place)


def _full_path(table: Table, parts: list[str], shown: str) -> list[str]:
    """The key's path from the top; the first part may be the name of a stage or a task."""
    named = {group: list(node.entries) for group in ("stages", "tasks") if isinstance(node := table.get(group), Table)}
    blocks = _stages_of_blocks(table)
    if parts[0] not in TOP_KEYS:
        group = next((group for group, names in named.items() if parts[0] in names), None)
        if group is None and parts[0] in blocks:
            return _full_path(table, ["stages", *parts], shown)
        if group is None:
            candidates = {name: name for name in (*TOP_KEYS, *named.get("stages", []), *named.get("tasks", []))}
            raise ConfigError(_unknown(".".join(parts), parts[0], _written(table) | candidates, named, shown))
        parts = [group, *parts]
    if parts[0] == "stages" and len(parts) > 1 and parts[1] not in named.get("stages", []) and parts[1] in blocks:
        parts = ["stages", blocks[parts[1]], *parts]
    if parts[0] in ("stages", "tasks") and len(parts) > 1 and parts[1] not in named.get(parts[0], []):
        candidates = {name: name for name in named.get(parts[0], [])}
        raise ConfigError(_unknown(".".join(parts), parts[1], candidates, named, shown))
    if "" in parts:
        raise ConfigError(Fault(f"`{'.'.join(parts)}` is no key", shown, fix="write `--set a.b=value`"))
    return parts


def _stages_of_blocks(table: Table) -> dict[str, str]:
    """The block that each stage of one stands in."""
    node = table.get("stages")
    found: dict[str, str] = {}
    for name, entry in node.entries.items() if isinstance(node, Table) else ():
        is_block = isinstance(entry.node, Table) and "stage" not in entry.node.entries
        inner = entry.node.get("stages") if is_block and isinstance(entry.node, Table) else None
        found |= dict.fromkeys(inner.entries if isinstance(inner, Table) else (), name)
    return found


def _written(table: Table) -> dict[str, str]:
    """The keys that stages and tasks have, each with how `--set` would name the last of them."""
    found = {}
    for group in ("tasks", "stages"):
        for path, _ in leaves(table.get(group) or Table({}, table.place)):
            if len(path) > 1:
                found[path[-1]] = ".".join(path)
    return found


def _unknown(key: str, part: str, candidates: dict[str, str], named: dict[str, list[str]], shown: str) -> Fault:
    """`candidates` are what could have been meant, each with how it is to be written."""
    stages = ", ".join(named.get("stages", [])) or "none"
    why = f"the stages are {stages}; what belongs to a stage is written `--set STAGE.key=value`"
    found = nearest(part, candidates)
    return Fault(f"unknown key `{key}`", shown, why, f"did you mean `{candidates[found]}`?" if found else "")


def _with_value(table: Table, path: list[str], node: Node, shown: str) -> Table:
    """A copy of `table` with one value changed: aliases elsewhere to the same table stay as they are."""
    key, *rest = path
    if rest:
        inner = table.get(key)
        if inner is None or (isinstance(inner, Scalar) and inner.value is None):
            inner = Table({}, node.place)
        if not isinstance(inner, Table):
            what = type_name(plain_shallow(inner))
            fix = f"set all of it: `--set {key}=…`"
            raise ConfigError(Fault(f"`{key}` is {what}: it has no key `{rest[0]}`", shown, f"see {inner.place}", fix))
        node = _with_value(inner, rest, node, shown)
        entry = Entry(table.entries[key].key if key in table.entries else node.place, node)
    else:
        entry = Entry(node.place, node)
    return Table(table.entries | {key: entry}, table.place)
