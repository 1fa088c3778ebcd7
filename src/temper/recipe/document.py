"""A YAML 1.2 document as a tree whose every key and value knows its file, line and column.

Only the safe half of YAML is read: the scalars of the 1.2 core schema (`1e-5` is a number, `no` a string), no tags, no
duplicate keys, aliases within bounds. Size and depth are bounded, and nothing here recurses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from temper.errors import ConfigError, Fault

MOST_BYTES = 256 * 1024
MOST_DEPTH = 32
MOST_NODES = 20_000  # with aliases written out
MOST_DIGITS = 400


@dataclass(frozen=True)
class Place:
    """Where something was written: `my.yaml:14:3`, or `--set seed=3` for a place without lines."""

    source: str
    line: int = 0
    column: int = 0
    folder: Path = Path()  # what relative paths written here are relative to

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, eq=False)
class Scalar:
    value: str | int | float | bool | None
    place: Place
    plain: bool = True  # written without quotes


@dataclass(frozen=True, eq=False)
class Items:
    items: list[Node]
    place: Place


@dataclass(frozen=True, eq=False)
class Table:
    entries: dict[str, Entry]
    place: Place

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return entry.node if entry else None


@dataclass(frozen=True, eq=False)
class Entry:
    key: Place
    node: Node


Node = Scalar | Items | Table


def plain(node: Node) -> Any:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key: plain(entry.node) for key, entry in node.entries.items()}


def type_name(value: Any) -> str:
    """What a value is, in words.

    >>> type_name(True), type_name(1), type_name(0.5), type_name([]), type_name(None)
    ('a boolean', 'an integer', 'a number', 'a list', 'nothing')
    """
    for kind, name in ((bool, "a boolean"), (int, "an integer"), (float, "a number"), (str, "a string")):
        if isinstance(value, kind):
            return name
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a table of keys"


# -- scalars ----------------------------------------------------------------------------------------------------------

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")


def read_scalar(text: str) -> str | int | float | bool | None:
    """A plain (unquoted) scalar by the YAML 1.2 core schema. Raises ValueError for an integer beyond all use.

    >>> [read_scalar(t) for t in ("1e-5", "no", "0x1F", "0o17", "1_000", "true", "~", "-.inf", "1:30", ".5")]
    [1e-05, 'no', 31, 15, '1_000', True, None, -inf, '1:30', 0.5]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MOST_DIGITS:
            raise ValueError(f"an integer of {len(text)} digits")
        return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return -math.inf if match[1] == "-" else math.inf
    return math.nan if text in (".nan", ".NaN", ".NAN") else text


# -- text -------------------------------------------------------------------------------------------------------------

_SIGNATURES = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"PAR1", "a parquet file"),
    (b"GGUF", "a GGUF model"),
)


def decode(data: bytes, source: str) -> str:
    """The text of a recipe file. Raises ConfigError that says what the file is instead."""
    for bom, name in ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if data.startswith(bom):
            raise ConfigError(_not_text(source, f"{name} text", f"{source}:1:1"))
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            raise ConfigError(_not_text(source, name, source))
    data = data.removeprefix(b"\xef\xbb\xbf")
    head = data[:4096]
    if b"\0" in head:
        utf16 = len(head) >= 4 and max(head[::2].count(0), head[1::2].count(0)) > len(head) * 0.3
        raise ConfigError(_not_text(source, "UTF-16 text without a mark" if utf16 else "binary data", f"{source}:1:1"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        what = f"byte 0x{data[error.start]:02X} at byte offset {error.start}, which is not UTF-8"
        raise ConfigError(_not_text(source, what, f"{source}:{line}:{column}")) from None


def _not_text(source: str, found: str, where: str) -> Fault:
    return Fault(
        f"`{source}` is not a recipe: found {found}", where, "a recipe is YAML in UTF-8", "save it as UTF-8 text"
    )


_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def odd_characters(text: str, place: Place) -> list[Fault]:
    r"""A fault for the first control or bidirectional character of `text`; tabs and line ends are fine.

    >>> [fault.what for fault in odd_characters("a\x1b[31m", Place("my.yaml", 3, 7))]
    ['control character U+001B in `a\x1b[31m`']
    """
    match = _ODD.search(text)
    if match is None:
        return []
    shown = text if len(text) <= 60 else text[max(0, match.start() - 30) : match.start() + 30]
    why = "it is invisible, and can make a terminal show something else than what is written"
    return [Fault(f"control character U+{ord(match.group()):04X} in `{shown}`", str(place), why, "remove it")]


# -- documents --------------------------------------------------------------------------------------------------------


def read_document(
    text: str, source: str, folder: Path = Path(), repeated: list[tuple[str, Node]] | None = None
) -> Node:
    """The tree of the one document in `text`. Raises ConfigError with every fault found. With a list for keys that are
    `repeated` the last of them counts, as elsewhere, and the list gets the others.

    >>> table = read_document("seed: 3\\nstages: {a: {lr: 1e-5}}", "my.yaml")
    >>> plain(table), str(table.entries["stages"].key)
    ({'seed': 3, 'stages': {'a': {'lr': 1e-05}}}, 'my.yaml:2:1')
    """
    for number, line in enumerate(text.split("\n"), 1):
        if match := _ODD.search(line):
            raise ConfigError(odd_characters(line, Place(source, number, match.start() + 1)))
    builder = _Builder(source, folder, repeated)
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            builder.take(loader.get_event())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = str(Place(source, mark.line + 1, mark.column + 1)) if mark else source
        builder.faults.append(_syntax(error, where, text))
    except (yaml.YAMLError, RecursionError) as error:
        builder.faults.append(Fault(f"not valid YAML: {error}", source))
    finally:
        loader.dispose()
    if builder.faults:
        raise ConfigError(builder.faults)
    return builder.root if builder.root is not None else Scalar(None, Place(source, 1, 1, folder))


def _syntax(error: yaml.MarkedYAMLError, where: str, text: str) -> Fault:
    problem, context = error.problem or "", error.context or ""
    fix = ""
    if "'\\t'" in problem:
        fix = "indent with spaces: YAML allows no tab there"
    elif "mapping values are not allowed" in problem:
        fix = "put a value that holds `: ` in quotes, and check the indentation"
    elif "expected <block end>" in problem:
        fix = "check the indentation of this line"
    elif "'%'" in problem or "'@'" in problem or "'`'" in problem:
        fix = 'put the value in quotes: a reference is written "@stage"'
    return Fault(f"not valid YAML: {problem}", where, context and f"{context}, which started before", fix)


@dataclass
class _Open:
    """A list or table under construction; for a table, the key whose value comes next."""

    node: Items | Table
    anchor: str | None
    count: int = 1
    key: tuple[str, Place] | None = None


@dataclass
class _Builder:
    """Puts parser events together, with a stack instead of recursion."""

    source: str
    folder: Path
    repeated: list[tuple[str, Node]] | None = None
    root: Node | None = None
    faults: list[Fault] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)  # node, and how many nodes it stands for
    documents: int = 0

    def take(self, event: yaml.Event) -> None:
        place = self._place(event)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents == 2:
                why = "a recipe is one document; another starts here"
                raise ConfigError([*self.faults, Fault("more than one YAML document", str(place), why, "keep one")])
        elif isinstance(event, yaml.ScalarEvent):
            self._tag(event, place)
            self._add(self._scalar(event, place), event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event, place)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._tag(event, place)
            if len(self.stack) >= MOST_DEPTH:
                why = f"lists and tables stand at most {MOST_DEPTH} deep in one another"
                raise ConfigError([*self.faults, Fault("nested too deep", str(place), why)])
            node = Items([], place) if isinstance(event, yaml.SequenceStartEvent) else Table({}, place)
            self.stack.append(_Open(node, event.anchor))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done = self.stack.pop()
            self._add(done.node, done.anchor, done.count)

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self.source, mark.line + 1, mark.column + 1, self.folder)

    def _tag(self, event: Any, place: Place) -> None:
        if event.tag is not None:
            why = "a recipe holds plain values; nothing in it is executed or converted"
            short = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.faults.append(Fault(f"unsupported YAML tag `{short}`", str(place), why, "remove the tag"))

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Scalar:
        is_plain = event.style is None
        try:
            value = read_scalar(event.value) if is_plain else event.value
        except ValueError as error:
            self.faults.append(Fault(f"a number out of range: {error}", str(place)))
            value = 0
        if isinstance(value, str):
            self.faults += odd_characters(value, place)
        return Scalar(value, place, is_plain)

    def _alias(self, event: yaml.AliasEvent, place: Place) -> None:
        if any(opened.anchor == event.anchor for opened in self.stack):
            self.faults.append(Fault(f"`*{event.anchor}` stands inside what it repeats", str(place)))
        elif event.anchor not in self.anchors:
            self.faults.append(
                Fault(f"`*{event.anchor}` repeats nothing", str(place), f"no `&{event.anchor}` before it")
            )
        else:
            node, count = self.anchors[event.anchor]
            self._add(node, None, count)
            return
        self._add(Scalar(None, place), None, 1)

    def _add(self, node: Node, anchor: str | None, count: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, count)
        if not self.stack:
            if self.root is None:
                self.root = node
            return
        opened = self.stack[-1]
        opened.count += count
        if opened.count > MOST_NODES:
            why = f"with aliases written out, a recipe has at most {MOST_NODES:,} values"
            raise ConfigError(
                [*self.faults, Fault("too many values", str(opened.node.place), why, "use fewer aliases")]
            )
        if isinstance(opened.node, Items):
            opened.node.items.append(node)
        elif opened.key is None:
            opened.key = self._key(node)
        else:
            (key, place), opened.key = opened.key, None
            if key in opened.node.entries and self.repeated is not None:
                self.repeated.append((key, opened.node.entries[key].node))
                opened.node.entries[key] = Entry(place, node)
            elif key in opened.node.entries:
                first = opened.node.entries[key].key
                fault = Fault(f"duplicate key `{key}`", str(place), f"it also stands at {first}", "keep one of the two")
                self.faults.append(fault)
            else:
                opened.node.entries[key] = Entry(place, node)

    def _key(self, node: Node) -> tuple[str, Place]:
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value, node.place
        shown = f"`{node.value}`" if isinstance(node, Scalar) else type_name(plain_shallow(node))
        fix = f'write "{node.value}"' if isinstance(node, Scalar) and node.value is not None else ""
        self.faults.append(Fault(f"a key is a name, not {shown}", str(node.place), fix=fix))
        return f"{shown} at {node.place}", node.place


def plain_shallow(node: Node) -> Any:
    """The outermost type of a node, for messages about it."""
    return node.value if isinstance(node, Scalar) else [] if isinstance(node, Items) else {}


def leaves(node: Node, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every key path that holds something else than a table, in order."""
    if isinstance(node, Table) and node.entries:
        for key, entry in node.entries.items():
            yield from leaves(entry.node, (*path, key))
    else:
        yield path, node
