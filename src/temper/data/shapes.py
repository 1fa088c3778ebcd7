"""What the columns of a file mean: its shape, found from their names and what stands in them, or as `columns` says.

A shape is a set of roles; a role is played by one column. Names that are nobody's first choice count only where no
better one is there, a column that no row fills as its name promises means something else, and two columns that say the
same are one. What is left, two columns for one role or two shapes for one file, is an error that says how to choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from temper.data import advice
from temper.data.choices import Choices, find_choices
from temper.data.columns import Table, share_of, value_at
from temper.data.findings import Findings, clip
from temper.data.gold import disagree
from temper.data.messages import ends_answered, is_messages, written_turns
from temper.data.names import AFTER, CONVERSATIONS, NAMES, OPTIONAL, OPTIONAL_OF, SHAPES, folded
from temper.data.rows import NOTHING, Number, Row, nearest, type_name
from temper.errors import ConfigError, DataError, Fault

__all__ = ["CONVERSATIONS", "NAMES", "SHAPES", "Shape", "check_mapping", "detect_shape", "shape_of_rows", "text_of"]


@dataclass(frozen=True)
class Shape:
    """A shape with the column that plays each role; `choices` where rows have options to choose from, `also` another
    shape that the file could be read as.

    >>> print(detect_shape(["question", "answer", "level"]))
    verifiable (prompt = `question`, answer = `answer`)
    """

    name: str
    columns: Mapping[str, str]
    choices: Choices | None = None
    also: str = ""

    def __str__(self) -> str:
        parts = [f"{role} = `{column}`" for role, column in self.columns.items()]
        if self.choices is not None:
            parts.append(f"options = {self.choices}")
        return f"{self.name} ({', '.join(parts)})"

    @property
    def played(self) -> set[str]:
        """The columns of the file that are read."""
        more = self.choices.columns if self.choices is not None else ()
        return {*self.columns.values(), *(path.partition(".")[0] for path in self.columns.values()), *more}


Players = dict[str, list[str]]


def detect_shape(
    columns: Iterable[str],
    mapping: Mapping[str, str] | None = None,
    wanted: Sequence[str] = (),
    where: str = "",
    rows: Sequence[Row] = (),
) -> Shape:
    """The one shape that these columns have, among `wanted` (all shapes but `open` if empty); what stands in `rows`,
    where they are given, decides what names do not.

    `mapping` gives the column of a role (`{"prompt": "frage"}`); a shape must then use every role that it names.
    Raises `DataError` when no shape or more than one fits, `ConfigError` for a role that does not exist.

    >>> detect_shape(["frage", "antwort"], {"prompt": "frage", "answer": "antwort"}).name
    'verifiable'
    """
    every = tuple(name for name in SHAPES if name != "open")
    return _detect(Table(columns, rows), dict(mapping or {}), tuple(wanted) or every, where)


def _detect(table: Table, mapping: dict[str, str], wanted: tuple[str, ...], where: str, advise: bool = True) -> Shape:
    check_mapping(mapping, table, where)
    needed = {role for role in mapping if role not in OPTIONAL}
    for lenient in (False, True):
        players = {role: _players(role, table, mapping, lenient) for role in NAMES}
        choices = find_choices(table, mapping) if players["prompt"] else None
        if choices is not None:
            players["answer"], players["letter"] = [choices.right], []
        if not players["prompt"] and any(folded(column) == "test_list" for column in players["tests"]):
            players["prompt"], players["text"] = players["text"], []  # MBPP
        apart = _ask_apart(players, table, needed, wanted)
        fitting = [name for name in wanted if needed <= set(SHAPES[name]) and _fits(name, players, table)]
        if "code" in fitting:  # beside tests, a solution is a program: no gold answer, no reply to be learned
            others = {"verifiable": "answer", "completion": "completion"}
            fitting = [name for name in fitting if name not in others or others[name] in needed]
        if fitting:
            break
    if not advise and (apart or not fitting):
        raise DataError(())
    offers = advice.Offers(lambda more: _detect(table, {**mapping, **more}, wanted, where, advise=False).name)
    if apart:
        raise DataError(_all_unclear(players, fitting, wanted, where, offers))
    if not fitting:
        raise DataError(advice.no_shape(table, mapping, wanted, where, _whole(table), offers))
    fitting, also = _of_conversations(fitting, players, wanted)
    if fitting == ["completion", "rated"] and _rates(table, players["label"][0]):
        fitting, also = ["rated"], "completion"
    if len(fitting) > 1:
        if not advise:
            raise DataError(())
        raise DataError(advice.many_shapes(fitting, players, where, offers))
    name = fitting[0]
    roles = [role for role in SHAPES[name] if players[role]]
    more = [role for role in OPTIONAL_OF.get(name, ()) if players[role] and _is_apart(role, players, roles)]
    unclear = [role for role in roles if len(players[role]) > 1]
    if unclear:
        if not advise:
            raise DataError(())
        raise DataError([advice.two_players(role, players[role], where, offers) for role in unclear])
    found = {role: players[role][0] for role in (*roles, *more)}
    return Shape(name, found, choices if name == "verifiable" else None, also)


def _players(role: str, table: Table, mapping: Mapping[str, str], lenient: bool) -> list[str]:
    """The columns that could play a role; more than one where they disagree. `lenient` takes one that no row fills as
    it should, so that its rows can be named."""
    if role in mapping:
        return [mapping[role]]
    unfit: list[str] = []
    for names in (NAMES[role], *AFTER.get(role, ())):
        found = [column for name in names for column in table.named(name) if column not in mapping.values()]
        fit = [column for column in dict.fromkeys(found) if table.can(column, role)]
        if fit:
            return _distinct(role, fit, table)
        unfit += found
    return unfit[:1] if lenient and role not in OPTIONAL else []


def _distinct(role: str, columns: Sequence[str], table: Table) -> list[str]:
    """Columns that say the same are one: the fuller of them, else the first."""
    kept: list[str] = []
    for column in columns:
        if any(table.same(role, earlier, column) for earlier in kept):
            continue
        fuller = [earlier for earlier in kept if table.same(role, column, earlier)]
        kept = [earlier for earlier in kept if earlier not in fuller] + [column]
    return kept


def _ask_apart(players: Players, table: Table, needed: set[str], wanted: Sequence[str]) -> bool:
    """What messages are beside a prompt: a conversation that begins with it, or the prompt itself. True where they do
    not hold the prompt, so that one has to be chosen."""
    if not players["messages"] or needed & {"messages", "prompt"}:
        return False
    messages, prompts = players["messages"][0], players["prompt"]
    answered = not table.rows or table.any(messages, ends_answered)
    pair = (messages, prompts[0]) if prompts else ()
    if pair and not (table.same("prompt", *pair) or table.same("prompt", *reversed(pair))):
        return True
    if not answered:
        players["prompt"] = [messages]
        others = any(players[role] for role in ("completion", "answer", "chosen", "tests"))
        players["messages"] = [messages] if "messages" in wanted and not others else []
    elif not prompts:
        players["prompt"] = [messages]
    return False


def _fits(name: str, players: Players, table: Table) -> bool:
    missing = [role for role in SHAPES[name] if not players[role]]
    if name == "preference" and missing == ["prompt"]:
        return all(table.any(players[role][0], _holds_its_prompt) for role in ("chosen", "rejected"))
    return not missing


def _holds_its_prompt(value: object) -> bool:
    if isinstance(value, str):
        return written_turns(value) is not None
    return is_messages(value) and isinstance(value, list) and len(value) > 1


def _of_conversations(fitting: list[str], players: Players, wanted: Sequence[str]) -> tuple[list[str], str]:
    """Messages that hold the prompt are the conversation itself; beside a gold answer or a preference they are left to
    the stages that want conversations. The shapes left, and the one that was set aside."""
    if "messages" not in fitting or len(fitting) == 1:
        return fitting, ""
    own = [name for name in fitting if name not in ("completion", "reasoned", "rated")]
    others = [name for name in own if name != "messages"]
    if players["prompt"] == players["messages"] or not others:
        return ["messages"], others[0] if others else ""
    return others, "messages"


def _rates(table: Table, label: str) -> bool:
    """Whether most labels say how right a reply is: numbers from 0 to 1, true and false."""
    rated = sum(share_of(value) is not None for value in table.values(label))
    return 2 * rated > len(table.rows)


def _is_apart(role: str, players: Players, roles: Sequence[str]) -> bool:
    """Whether an optional role is played by a column that plays no other; an `input` belongs to an `instruction`."""
    if role == "context" and folded(players[role][0]) == "input":
        return "prompt" in roles and folded(players["prompt"][0]) == "instruction"
    return not set(players[role]) & {column for other in roles for column in players[other]}


def _all_unclear(
    players: Players, fitting: Sequence[str], wanted: Sequence[str], where: str, offers: advice.Offers
) -> list[Fault]:
    """Messages that are apart from the prompt, and every role of the shapes that fit which two columns could play."""
    prompts = players["prompt"]
    faults = [advice.messages_and_prompt(players["messages"][0], prompts, wanted, where, offers)]
    roles = dict.fromkeys(role for name in fitting for role in SHAPES[name] if role != "prompt")
    unclear = [role for role in roles if len(players[role]) > 1]
    return faults + [advice.two_players(role, players[role], where, None) for role in unclear]


def _whole(table: Table) -> list[str]:
    """The shapes that the file has, whatever was wanted."""
    players = {role: _players(role, table, {}, False) for role in NAMES}
    return [name for name in SHAPES if name != "open" and _fits(name, players, table)]


def check_mapping(mapping: Mapping[str, str], present: Table | None, where: str) -> None:
    """Roles of a mapping exist, and so do its columns where they are known. Raises ConfigError and DataError."""
    known = [*NAMES, "options"]
    unknown = [role for role in mapping if role not in known]
    if unknown:
        raise ConfigError(advice.no_role(role, known, where) for role in unknown)
    if len(set(mapping.values())) < len(mapping):
        raise ConfigError(Fault("`columns` gives one column to two parts of a row", where, advice.yaml(mapping)))
    missing = [(role, name) for role, name in mapping.items() if present is not None and not present.has(name)]
    if present is not None and missing:
        raise DataError(advice.missing(role, name, present, where) for role, name in missing)


def shape_of_rows(
    rows: Sequence[Row], found: Findings, mapping: Mapping[str, str] | None = None, wanted: Sequence[str] = ()
) -> Shape:
    """The shape of a whole file. Rows of different shapes are an error; a row that lacks a column is found later,
    when its values are asked for. Raises `DataError` (after the bad rows in `found`), `ConfigError`."""
    if not rows:
        found.close()
    kinds = Counter(tuple(row.values) for row in rows)
    every = list(dict.fromkeys(column for kind in kinds for column in kind))
    try:
        shape = detect_shape(every, mapping, wanted, found.path, rows)
    except DataError as error:
        shapes = _shapes_by_kind(kinds, mapping, wanted)
        faults = [_different(shapes, rows, found.path)] if len({str(s) for s in shapes.values()}) > 1 else error.faults
        raise DataError((*found.faults(), *faults)) from None
    if shapes := _of_other_rows(shape, kinds, mapping, wanted):
        raise DataError((*found.faults(), _different(shapes, rows, found.path)))
    if shape.also:
        also = f"`temper check --shape {shape.also}`; stages take the shape that they need"
        found.note(f"read as {shape.name}; the file is also {shape.also}", fix=also)
    if shape.name == "verifiable" and shape.choices is None:
        _compare_solutions(rows, shape, found)
    return replace(shape, also="")


def _compare_solutions(rows: Sequence[Row], shape: Shape, found: Findings) -> None:
    """A note where a worked solution ends in another answer than the one that counts."""
    table = Table(dict.fromkeys(column for row in rows[:100] for column in row.values))
    column, beside = shape.columns["answer"], table.named("solution")
    if not beside or beside[0] == column:
        return
    differ = []
    for row in rows:
        answer, solution = value_at(row.values, column), value_at(row.values, beside[0])
        text = answer.text if isinstance(answer, Number) else answer
        if isinstance(text, str) and isinstance(solution, str) and (other := disagree(text, solution)):
            differ.append((row, f"`{clip(text, 30)}` and `{clip(other, 30)}`"))
    if differ:
        shown = "\n".join(f"row {row.number}: {both}" for row, both in differ[:3])
        what = f"`{clip(column)}` is the answer; `{beside[0]}` ends in another one"
        what += f" in {len(differ):,} of {len(rows):,} rows"
        found.note(what, "\n".join(row.place(found.path) for row, _ in differ[:3]), shown)


def _of_other_rows(
    shape: Shape, kinds: Mapping[tuple[str, ...], int], mapping: Mapping[str, str] | None, wanted: Sequence[str]
) -> dict[tuple[str, ...], Shape]:
    """The shapes of the file's kinds of rows, where some lack a column of its shape and have another; else nothing."""
    needed = {shape.columns[role].partition(".")[0] for role in SHAPES[shape.name] if role in shape.columns}
    if all(needed <= set(kind) for kind in kinds):
        return {}
    shapes = _shapes_by_kind(kinds, mapping, wanted)
    return shapes if len({other.name for other in shapes.values()}) > 1 else {}


def _shapes_by_kind(
    kinds: Mapping[tuple[str, ...], int], mapping: Mapping[str, str] | None, wanted: Sequence[str]
) -> dict[tuple[str, ...], Shape]:
    shapes = {}
    for kind in list(kinds)[:50]:
        try:
            shapes[kind] = detect_shape(kind, mapping, wanted)
        except DataError:
            continue
    return shapes


def _different(shapes: Mapping[tuple[str, ...], Shape], rows: Sequence[Row], path: str) -> Fault:
    first: dict[str, Row] = {}
    for row in rows:
        if (shape := shapes.get(tuple(row.values))) is not None:
            first.setdefault(str(shape), row)
    why = "\n".join(f"row {row.number}: {shape}" for shape, row in list(first.items())[:3])
    where = "\n".join(row.place(path) for row in list(first.values())[:3])
    return Fault("rows of one file have different shapes", where, why, "put each shape in a file of its own")


def _instead(column: str, present: Sequence[str]) -> str:
    close = nearest(column, present)
    return f"did you mean `{clip(close)}`?" if close else advice.listed(present)


def text_of(row: Row, shape: Shape, role: str, found: Findings) -> str | None:
    """The text that plays a role in a row, None (and a bad row) where it is missing, empty or not text."""
    column = shape.columns[role]
    where, value = row.place(found.path), value_at(row.values, column)
    if value is NOTHING:
        found.bad(row.number, where, f"no `{clip(column)}`", lambda: _instead(column, list(row.values)))
        return None
    if not isinstance(value, str):
        found.bad(row.number, where, f"`{clip(column)}` is not text", f"found {type_name(value)}")
        return None
    if not value.strip():
        found.bad(row.number, where, f"`{clip(column)}` is empty", "nothing but white space" if value else "")
        return None
    return value
