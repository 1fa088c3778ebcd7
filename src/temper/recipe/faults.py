"""From what pydantic finds wrong with a table of a recipe to faults a person can act on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from temper.config import StrictModel
from temper.data.shapes import check_mapping
from temper.errors import ConfigError, Fault
from temper.recipe.document import Entry, Items, Node, Place, Scalar, Table, leaves, plain, read_scalar, type_name
from temper.recipe.meanings import meaning, normal
from temper.recipe.words import ALIASES, did_you_mean, nearest, renamed

Config = TypeVar("Config", bound=StrictModel)
Homes = Callable[[str], str]  # where a key does live, in words; "" for nowhere

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table of keys",
    "model_type": "a table of keys",
    "none_required": "nothing",
}
MOST = 10**9  # of every number that a key sets no limit to: steps, tokens, weights of rewards
_BOUND = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
}


def build(
    cls: type[Config], table: Table, path: Sequence[str], place: Place, homes: Homes = lambda _: ""
) -> tuple[Config | None, list[Fault]]:
    """The config that `table` spells, or every fault of it. `path` is where the table stands in the recipe.

    >>> from temper.config import TaskConfig
    >>> from temper.recipe.document import read_document
    >>> table = read_document("{trian: a.jsonl, answer: maths}", "my.yaml")
    >>> config, faults = build(TaskConfig, table, ["tasks", "sums"], table.place)
    >>> for fault in faults: print(fault.render())
    error: unknown key `tasks.sums.trian`
      where: my.yaml:1:2
      why:   the key would be ignored
      fix:   did you mean `train`?
    error: `tasks.sums.answer` is "maths"
      where: my.yaml:1:26
      why:   it must be "math" or "text"
      fix:   did you mean `math`?
    """
    reader = _Reader(cls, table, tuple(path), place, homes)
    config, found = None, list(_absurd(cls, table))
    try:
        config = cls.model_validate_json(json.dumps(plain(table)))
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)
        found = [e for e in found if not any(e["loc"] == other["loc"][: len(e["loc"])] for other in told)] + told
    if config is not None and not found:
        return config, []
    faults = reader.read(found)
    faults += reader.cross_field({entry["loc"][0] for entry in found if entry["loc"]})
    return None, in_order(faults)


def _absurd(cls: type[BaseModel], table: Table) -> Iterator[dict[str, Any]]:
    """Numbers that nothing here is made for, of keys without a bound of their own, told as pydantic tells a bound."""
    for loc, node in leaves(table):
        field = cls.model_fields.get(loc[0]) if loc else None
        if field is not None and not _has_limit(field.metadata):
            for inner, value in _numbers(node):
                if abs(value) > MOST:
                    key, kind = ("le", "less_than_equal") if value > 0 else ("ge", "greater_than_equal")
                    yield {"type": kind, "loc": (*loc, *inner), "ctx": {key: MOST if value > 0 else -MOST}, "msg": ""}


def _has_limit(metadata: Iterable[Any]) -> bool:
    return any(getattr(mark, "lt", None) is not None or getattr(mark, "le", None) is not None for mark in metadata)


def _numbers(node: Node, loc: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], int | float]]:
    if isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _numbers(item, (*loc, index))
    elif isinstance(node, Table):
        for key, entry in node.entries.items():
            yield from _numbers(entry.node, (*loc, key))
    elif type(node.value) is int or (type(node.value) is float and math.isfinite(node.value)):
        yield loc, node.value


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """The faults in the order of the lines they are about, file by file as the files first come.

    >>> [fault.where for fault in in_order([Fault("b", "a.yaml:10:1"), Fault("a", "a.yaml:9:1")])]
    ['a.yaml:9:1', 'a.yaml:10:1']
    """
    keyed = []
    files: dict[str, int] = {}
    for fault in faults:
        match = re.fullmatch(r"(.*?):(\d+):(\d+)", fault.where)
        file, line, column = (match[1], int(match[2]), int(match[3])) if match else (fault.where, 0, 0)
        keyed.append((files.setdefault(file, len(files)), line, column, fault))
    return [fault for *_, fault in sorted(keyed, key=lambda entry: entry[:3])]


class _Reader:
    def __init__(self, cls: type[StrictModel], table: Table, path: tuple[str, ...], place: Place, homes: Homes):
        self.cls, self.table, self.path, self.place, self.homes = cls, table, path, place, homes

    def read(self, found: Sequence[Any]) -> list[Fault]:
        """One fault for each place; a union's several complaints about one value become one."""
        unknown = {str(e["loc"][-1]) for e in found if e["type"] == "extra_forbidden"}
        by_place: dict[tuple[str | int, ...], list[Any]] = {}
        for error in found:
            loc = error["loc"]
            known = loc if error["type"] in ("missing", "extra_forbidden") else self._written(loc)
            if error["type"] == "missing" and any(_meant(word, str(loc[-1])) for word in unknown):
                continue  # the misspelt key is reported already
            by_place.setdefault(known, []).append(error)
        inside = {loc[:length] for loc in by_place for length in range(len(loc))}  # of a union, the arm that fits best
        return [self._fault(loc, errors) for loc, errors in by_place.items() if loc not in inside or not loc]

    def cross_field(self, broken: set[Any]) -> list[Fault]:
        """Rules between keys, which pydantic checks only once every key is right: tried without the wrong ones."""
        if not broken:
            return []
        rest = Table({key: entry for key, entry in self.table.entries.items() if key not in broken}, self.table.place)
        try:
            self.cls.model_validate_json(json.dumps(plain(rest)))
        except ValidationError as error:
            found = [e for e in error.errors(include_url=False, include_input=False) if e["type"] == "value_error"]
            return self.read([e for e in found if not any(_mentions(e["msg"], str(key)) for key in broken)])
        return []

    def _written(self, loc: Sequence[str | int]) -> tuple[str | int, ...]:
        """What of a location lies in the tree: pydantic puts the arms of unions between."""
        node: Node = self.table
        way: list[str | int] = []
        for part in loc:
            below = _child(node, part)
            if below is not None:
                node = below
                way.append(part)
        return tuple(way)

    def _fault(self, loc: tuple[str | int, ...], errors: Sequence[Any]) -> Fault:
        kind = errors[0]["type"]
        name = ".".join(str(part) for part in (*self.path, *loc))
        if kind == "extra_forbidden":
            return self._unknown(loc, name)
        field = _field_at(self.cls, loc)
        why = (field.description or "") if field else ""
        node = self._node(loc)
        where = str(node.place if loc and node is not None else self.place)
        if kind == "missing":
            fix = f"add `{loc[-1]}: …`" + (f" ({why})" if why else "")
            return Fault(f"`{name}` is missing", str(self._node_place(loc[:-1])), "it has no default", fix)
        if kind in ("value_error", "assertion_error"):
            return self._rule(loc, errors[0], name, where)
        what = f"`{name}` is {_show(node)}"
        expected = " or ".join(dict.fromkeys(_expected(error) for error in errors))
        return Fault(what, where, f"it must be {expected}" + (f": {why}" if why else ""), _mend(node, errors))

    def _unknown(self, loc: tuple[str | int, ...], name: str) -> Fault:
        key = str(loc[-1])
        cls = _model_at(self.cls, loc[:-1])
        entry = _entry(self._node(loc[:-1]), key)
        home = self.homes(key) if len(loc) == 1 else ""
        why = f"`{key}` {home}" if home else "the key would be ignored"
        fix = self._advice(key, cls, home, self._beside(loc))
        return Fault(f"unknown key `{name}`", str(entry.key if entry else self.place), why, fix)

    def _advice(self, key: str, cls: type[BaseModel], home: str, beside: dict[str, object]) -> str:
        """What to write instead: by what the key means, then by how it is spelled, then the keys of its group."""
        fields = list(cls.model_fields)
        ours, meant = renamed(normal(key), fields), meaning(key, beside)
        if ours in fields and not (meant.startswith("`ratio_cap`") and "ratio_cap" in fields):
            return f"renamed: {key} -> {ours}"
        if ours.startswith("--"):
            return f"move it there, or use the option `{ours}`" if home else f"renamed: {key} -> the option `{ours}`"
        if meant:
            return meant + self._of_others(meant, fields)
        if home:
            return "move or remove it"
        elsewhere = self.homes(ours) if ours else ""
        if elsewhere:
            return f"renamed: {key} -> {ours}, which {elsewhere}"
        return _did_you_mean_key(key, fields) or ("move or remove it" if not fields else _group(key, cls))

    def _of_others(self, meant: str, fields: Sequence[str]) -> str:
        """Where the key lives that a meaning names, if it is no key here and the meaning does not say so."""
        named = re.findall(r"`(\w+)[`:]", meant)
        if not named or "stage `" in meant or any(name in fields for name in named):
            return ""
        home = self.homes(named[0])
        return f"; `{named[0]}` {home}" if home.startswith("belongs to stages") else ""

    def _beside(self, loc: Sequence[str | int]) -> dict[str, object]:
        node = self._node(loc[:-1])
        entries = node.entries if isinstance(node, Table) else {}
        return {key: entry.node.value for key, entry in entries.items() if isinstance(entry.node, Scalar)}

    def _rule(self, loc: tuple[str | int, ...], error: Any, name: str, where: str) -> Fault:
        """A validator's own words, at the first key they mention."""
        text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if not loc:
            at = {_mentioned(text, key): entry.node for key, entry in self.table.entries.items()}
            first = min((place for place in at if place >= 0), default=None)
            where = where if first is None else str(at[first].place)
        return Fault(f"`{name}`: {text}" if name else text, where)

    def _node(self, loc: Sequence[str | int]) -> Node | None:
        node: Node | None = self.table
        for part in loc:
            node = _child(node, part)
        return node

    def _node_place(self, loc: tuple[str | int, ...]) -> Place:
        node = self._node(loc) if loc else None
        return node.place if node is not None else self.place


def _meant(word: str, key: str) -> bool:
    return renamed(normal(word), [key]) == key or nearest(word, [key]) is not None


def _did_you_mean_key(word: str, fields: Sequence[str]) -> str:
    """The nearest key, looked for also among what other tools call the keys: `lrr` is near to `lr`."""
    others = {alias: name for alias, name in ALIASES.items() if name in fields and len(alias) > 1}
    found = nearest(word, fields) or others.get(nearest(word, others) or "")
    return f"did you mean `{found}`?" if found else ""


MOST_LISTED = 24  # keys in one message


def _group(key: str, cls: type[BaseModel]) -> str:
    """The keys that stand together with what `key` looks like, where there are too many to list them all."""
    fields = list(cls.model_fields)
    if len(fields) <= MOST_LISTED:
        return f"the keys here are {', '.join(fields)}"
    own = [[name for name in vars(base).get("__annotations__", {}) if name in fields] for base in cls.__mro__]
    groups = [names for names in own if names]
    words = {word for word in normal(key).split("_") if len(word) > 2}
    alike = max(groups, key=lambda names: len(words & {word for name in names for word in name.split("_")}))
    found = [name for name in alike if words & set(name.split("_"))] if len(alike) > MOST_LISTED else alike
    return f"keys near it are {', '.join(found or alike[:MOST_LISTED])}; docs/recipes.md has all"


def _mentions(text: str, key: str) -> bool:
    return _mentioned(text, key) >= 0


def _mentioned(text: str, key: str) -> int:
    """Where a key is mentioned first, -1 if nowhere."""
    found = re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text)
    return -1 if found is None else found.start()


def _entry(node: Node | None, key: str) -> Entry | None:
    return node.entries.get(key) if isinstance(node, Table) else None


def _child(node: Node | None, part: str | int) -> Node | None:
    if isinstance(node, Table):
        return node.get(str(part))
    if isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
        return node.items[part]
    return None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models_in(arg)]


def _field_at(cls: type[BaseModel], loc: Sequence[str | int]) -> FieldInfo | None:
    """The field of the innermost config class on the way to `loc`."""
    field = None
    for part in loc:
        if isinstance(part, str) and part in cls.model_fields:
            field = cls.model_fields[part]
            cls = (_models_in(field.annotation) or [cls])[0]
    return field


def _model_at(cls: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    field = _field_at(cls, loc)
    return (_models_in(field.annotation) or [cls])[0] if field else cls


def _show(node: Node | None) -> str:
    if not isinstance(node, Scalar):
        return type_name([] if isinstance(node, Items) else {})
    if node.value is None:
        return "empty"
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    text = json.dumps(node.value, ensure_ascii=False) if isinstance(node.value, str) else str(node.value)
    return text if len(text) <= 80 else f"{text[:76]}…{text[-1]}"


def _expected(error: Any) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUND:
        key, text = _BOUND[kind]
        limit = context[key]
        whole = int(limit) if isinstance(limit, float) and limit.is_integer() else limit
        return text.format(f"{whole:,}" if isinstance(whole, int) else whole)
    if kind == "literal_error":
        return context["expected"].replace("'", '"')
    if kind in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} long"
    if kind in ("too_long", "string_too_long"):
        return f"at most {context['max_length']} long"
    if kind == "string_pattern_mismatch":
        return f"of the form {context['pattern']}"
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _mend(node: Node | None, errors: Sequence[Any]) -> str:
    """What the writer probably meant, where that can be told."""
    kinds = {error["type"] for error in errors}
    if not isinstance(node, Scalar):
        return "write it without brackets" if isinstance(node, Items) and len(node.items) == 1 else ""
    value = node.value
    if "literal_error" in kinds and isinstance(value, str):
        choices = re.findall(r"'([^']*)'", errors[0]["ctx"]["expected"])
        return did_you_mean(value, choices)
    if isinstance(value, str) and kinds & {"int_type", "float_type", "bool_type"}:
        if "bool_type" in kinds and value.casefold() in _TRUTH:
            return f"write {_TRUTH[value.casefold()]}: in YAML 1.2 `{value}` is a string"
        if not node.plain and type_name(read_scalar(value[:40])) in ("an integer", "a number", "a boolean"):
            return "remove the quotes"
        bare = re.sub(r"[_, ]", "", value[:40])
        if bare != value and type_name(read_scalar(bare)) in ("an integer", "a number"):
            return f"write {bare}"
    if "int_type" in kinds and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if "string_type" in kinds and value is not None:
        return 'write it in quotes: "' + ("true" if value is True else "false" if value is False else str(value)) + '"'
    if kinds & {"list_type", "tuple_type"} and value is not None:
        return f"write [{value}]"
    if value is None:
        return "give a value, or remove the key to use the default"
    return ""


def column_faults(table: Table) -> list[Fault]:
    """What is wrong with the `columns` of a task or a stage, whatever its files have; each fault at its own line."""
    columns = table.get("columns")
    if not isinstance(columns, Table):
        return []
    try:
        check_mapping(plain(columns), None, "")
        return []
    except ConfigError as error:
        found = []
        for fault in error.faults:
            words = re.findall("`([^`]*)`", fault.what)
            named = [columns.entries[word].key for word in words if word in columns.entries]
            found.append(replace(fault, where=str(named[0] if named else columns.place)))
        return found
