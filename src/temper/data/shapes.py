"""What the columns of a file mean: its shape, found from the column names, or as `columns` says.

A shape is a set of roles; a role is played by one column. Two columns for one role, or two shapes for one file, are an
error that says how to choose: nothing is decided by the order of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from temper.data.findings import Findings, clip
from temper.data.rows import Row, nearest, type_name
from temper.errors import ConfigError, DataError, Fault

# The shapes and the roles each of them needs.
SHAPES: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "reasoned": ("prompt", "thinking", "answer"),
    "preference": ("prompt", "chosen", "rejected"),
    "rated": ("prompt", "completion", "label"),
    "steps": ("prompt", "steps", "labels"),
    "verifiable": ("prompt", "answer"),
    "code": ("prompt", "tests"),
    "text": ("text",),
}
# What a row of a shape may also say: its own name, language and way of comparing; how much better the chosen reply is.
OPTIONAL_OF: dict[str, tuple[str, ...]] = dict.fromkeys(("verifiable", "code"), ("id", "language", "answer_type"))
OPTIONAL_OF["preference"] = ("margin",)
OPTIONAL = tuple(dict.fromkeys(role for roles in OPTIONAL_OF.values() for role in roles))

# The column names that play each role without being told so.
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "problem"),
    "answer": ("answer", "solution", "gold"),
    "thinking": ("thinking", "reasoning"),
} | {role: (role,) for roles in SHAPES.values() for role in roles if role not in ("prompt", "answer", "thinking")}
NAMES |= {role: (role,) for role in OPTIONAL}

# Names that other data sets use: never guessed, offered as a mapping.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "prompt": ("instruction", "query", "input", "user", "source"),
    "completion": ("response", "output", "reply", "assistant", "generation", "answer", "solution"),
    "answer": ("final_answer", "target", "label", "ground_truth", "expected_answer", "reference", "result"),
    "messages": ("conversations", "conversation", "dialog", "dialogue", "chat", "turns"),
    "thinking": ("chain_of_thought", "cot", "rationale", "think", "reasoning_content"),
    "text": ("content", "document", "body"),
    "chosen": ("preferred", "better", "winner"),
    "rejected": ("dispreferred", "worse", "loser"),
    "label": ("rating", "score"),
    "steps": ("completions",),
}
CONVERSATIONS = ("messages", "completion", "reasoned")


@dataclass(frozen=True)
class Shape:
    """A shape with the column that plays each role.

    >>> print(detect_shape(["question", "answer", "level"]))
    verifiable (prompt = `question`, answer = `answer`)
    """

    name: str
    columns: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{role} = `{column}`' for role, column in self.columns.items())})"


def detect_shape(
    columns: Iterable[str],
    mapping: Mapping[str, str] | None = None,
    wanted: Sequence[str] = (),
    where: str = "",
) -> Shape:
    """The one shape that these columns have, among `wanted` (all shapes if empty).

    `mapping` gives the column of a role (`{"prompt": "frage"}`); a shape must then use every role that it names.
    Raises `DataError` when no shape or more than one fits, `ConfigError` for a role that does not exist.

    >>> detect_shape(["frage", "antwort"], {"prompt": "frage", "answer": "antwort"}).name
    'verifiable'
    """
    present, mapping, wanted = list(dict.fromkeys(columns)), dict(mapping or {}), tuple(wanted) or tuple(SHAPES)
    check_mapping(mapping, present, where)
    needed = {role for role in mapping if role not in OPTIONAL}
    players = {role: _players(role, present, mapping) for role in NAMES}
    fitting = [name for name in wanted if needed <= set(SHAPES[name]) and all(players[role] for role in SHAPES[name])]
    if not needed and players["messages"] and players["prompt"]:
        raise DataError(_messages_and_prompt(players["prompt"][0], wanted, where))
    if not fitting:
        raise DataError(_no_shape(present, mapping, wanted, where))
    if len(fitting) > 1:
        raise DataError(_many_shapes(fitting, players, where))
    roles = SHAPES[fitting[0]]
    more = OPTIONAL_OF.get(fitting[0], ())
    unclear = [role for role in (*roles, *more) if len(players[role]) > 1]
    if unclear:
        raise DataError([_two_players(role, players[role], where) for role in unclear])
    optional = [role for role in more if players[role]]
    return Shape(fitting[0], {role: players[role][0] for role in (*roles, *optional)})


def check_mapping(mapping: Mapping[str, str], present: Sequence[str] | None, where: str) -> None:
    """Roles of a mapping exist, and so do its columns where `present` names them. Raises ConfigError and DataError."""
    unknown = [role for role in mapping if role not in NAMES]
    if unknown:
        close = {role: nearest(role, NAMES) for role in unknown}
        raise ConfigError(
            Fault(
                f"`columns` maps `{clip(role)}`, which is no part of a row",
                where,
                f"what a column can be: {', '.join(NAMES)}",
                f"did you mean `{close[role]}`?" if close[role] else "write `columns: {prompt: YOUR_COLUMN}`",
            )
            for role in unknown
        )
    if len(set(mapping.values())) < len(mapping):
        raise ConfigError(Fault("`columns` gives one column to two parts of a row", where, _yaml(mapping)))
    missing = [(role, name) for role, name in mapping.items() if present is not None and name not in present]
    if missing:
        raise DataError(_missing(role, name, present or (), where) for role, name in missing)


def _missing(role: str, name: str, present: Sequence[str], where: str) -> Fault:
    close = nearest(name, present)
    fix = f"did you mean `{clip(close)}`?" if close else ""
    return Fault(f"no column `{clip(name)}`, which `columns` gives for `{role}`", where, _found(present), fix)


def _players(role: str, present: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    if role in mapping:
        return [mapping[role]]
    return [name for name in NAMES[role] if name in present and name not in mapping.values()]


def _found(present: Sequence[str]) -> str:
    shown = ", ".join(f"`{clip(name, 30)}`" for name in present[:12]) + (" …" if len(present) > 12 else "")
    return f"columns found: {shown or 'none'}"


def _yaml(mapping: Mapping[str, str]) -> str:
    return "columns: {" + ", ".join(f"{role}: {clip(name, 30)}" for role, name in mapping.items()) + "}"


def _messages_and_prompt(prompt: str, wanted: Sequence[str], where: str) -> Fault:
    choices = ["`columns: {messages: messages}`"] if "messages" in wanted else []
    if any("prompt" in SHAPES[name] for name in wanted):
        choices.append(f"`columns: {{prompt: {prompt}}}`")
    fix = f"choose with {' or '.join(choices)}"
    return Fault(f"ambiguous: the file has both `messages` and `{prompt}`", where, "each could be the prompt", fix)


def _two_players(role: str, names: Sequence[str], where: str) -> Fault:
    both = " and ".join(f"`{name}`" for name in names)
    fix = "choose with " + " or ".join(f"`{_yaml({role: name})}`" for name in names)
    return Fault(f"ambiguous: {both} could each be the {role}", where, "two columns for one part of a row", fix)


def _many_shapes(fitting: Sequence[str], players: Mapping[str, Sequence[str]], where: str) -> Fault:
    listed = " and ".join(f"{name} ({' + '.join(players[role][0] for role in SHAPES[name])})" for name in fitting)
    fix = "choose with " + " or ".join(f"`--shape {name}`" for name in fitting)
    uses = Counter(role for name in fitting for role in SHAPES[name])
    own = [role for role, count in uses.items() if count == 1]
    if own:
        fix += " (`temper check`), " + " or ".join(f"`{_yaml({role: players[role][0]})}`" for role in own) + " (recipe)"
    return Fault("ambiguous: the columns fit more than one shape", where, listed, fix)


def _no_shape(present: Sequence[str], mapping: Mapping[str, str], wanted: Sequence[str], where: str) -> Fault:
    needs = ", or ".join(" + ".join(SHAPES[name]) for name in wanted)
    roles = {role: NAMES[role][1:] for name in wanted for role in SHAPES[name]}
    other = [f"{role} may be called {' or '.join(names)}" for role, names in roles.items() if names]
    whole = [name for name, roles in SHAPES.items() if all(_players(role, present, {}) for role in roles)]
    others = [] if mapping else [name for name in whole if name not in wanted]
    what = f"these are {others[0]} rows, and {' or '.join(wanted)} rows are needed" if others else "no known shape"
    why = "\n".join([_found(present), f"needed: {needs}", "; ".join(other)]).rstrip("\n")
    return Fault(what, where, why, _guess(present, mapping, wanted))


def _guess(present: Sequence[str], mapping: Mapping[str, str], wanted: Sequence[str]) -> str:
    """The mapping that would make the first shape fit, from names that are near or used elsewhere."""
    best: dict[str, str] = {}
    for name in wanted:
        guess: dict[str, str] = {}
        for role in SHAPES[name]:
            left = [column for column in present if column not in guess.values()]
            guess |= {role: column} if (column := _candidate(role, left, mapping)) else {}
        renamed = {role: column for role, column in guess.items() if column not in NAMES[role]}
        if len(guess) == len(SHAPES[name]):
            return f"if that is what they are: `{_yaml({**mapping, **renamed})}`"
        best = best or renamed
    if best:
        return f"perhaps `{_yaml(best)}`, and the other columns likewise"
    return "map the columns: `columns: {prompt: YOUR_COLUMN, …}`"


def _candidate(role: str, present: Sequence[str], mapping: Mapping[str, str]) -> str | None:
    players = _players(role, present, mapping)
    if players:
        return players[0]
    folded = {name.casefold().strip(): name for name in reversed(present)}
    known = next((folded[name] for name in (*NAMES[role], *ELSEWHERE.get(role, ())) if name in folded), None)
    return known or next((close for name in NAMES[role] if (close := nearest(name, present))), None)


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
        return detect_shape(every, mapping, wanted, found.path)
    except DataError as error:
        shapes = _shapes_by_kind(kinds, mapping, wanted)
        faults = [_different(shapes, rows, found.path)] if len({str(s) for s in shapes.values()}) > 1 else error.faults
        raise DataError((*found.faults(), *faults)) from None


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
    return f"did you mean `{clip(close)}`?" if close else _found(present)


def text_of(row: Row, shape: Shape, role: str, found: Findings) -> str | None:
    """The text that plays a role in a row, None (and a bad row) where it is missing, empty or not text."""
    column = shape.columns[role]
    where = row.place(found.path)
    if column not in row.values:
        found.bad(row.number, where, f"no `{clip(column)}`", lambda: _instead(column, list(row.values)))
        return None
    value = row.values[column]
    if not isinstance(value, str):
        found.bad(row.number, where, f"`{clip(column)}` is not text", f"found {type_name(value)}")
        return None
    if not value.strip():
        found.bad(row.number, where, f"`{clip(column)}` is empty", "nothing but white space" if value else "")
        return None
    return value
