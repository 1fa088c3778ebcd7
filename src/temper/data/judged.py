"""Rows that say which replies are good, for reward models: pairs, rankings, rated replies, and labels of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from temper.data.columns import number_of, share_of, value_at
from temper.data.conversations import prompt_of
from temper.data.files import read_rows
from temper.data.findings import Findings, Tell, clip, tell_all
from temper.data.messages import Conversation, is_message, messages_of, well_ordered, written_turns
from temper.data.rows import NOTHING, Number, Row, type_name
from temper.data.shapes import Shape, shape_of_rows, text_of


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt, the first the better one. `margin` is how much better its score should be at least."""

    prompt: Conversation
    chosen: str
    rejected: str
    margin: float = 0.0


@dataclass(frozen=True)
class Rated:
    """A reply with how right it is: 1 good, 0 bad, or anything between."""

    prompt: Conversation
    completion: str
    label: float


@dataclass(frozen=True)
class LabelledSteps:
    """A reply in steps, in order, each with how right it is: 1, 0, or the share of continuations that end well."""

    prompt: Conversation
    steps: tuple[str, ...]
    labels: tuple[float, ...]


Judged = Pair | Rated | LabelledSteps
MOST_RANKED = 64  # replies of one ranking: 2,016 pairs; InstructGPT's labelers had 4 to 9 (2203.02155, section 3.5)


def load_judged(
    path: Path | str,
    shape: str,
    columns: Mapping[str, str] | None = None,
    *,
    skip_bad: bool = False,
    tell: Tell | None = None,
) -> list[Judged]:
    """The rows of a file of `shape`: "preference" (of a ranking every pair that it says), "rated" or "steps". Raises
    `DataError` with every fault of the file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "pairs.jsonl")
    >>> _ = path.write_text('{"prompt": "Hi", "chosen": "Hello.", "rejected": "What?", "margin": 0.5}')
    >>> pair, = load_judged(path, "preference", tell=lambda note: None)
    >>> pair.chosen, pair.rejected, pair.margin
    ('Hello.', 'What?', 0.5)
    """
    found = Findings(str(path), skip_bad)
    rows = list(read_rows(path, found))
    known = shape_of_rows(rows, found, columns, ("preference", "ranked") if shape == "preference" else (shape,))
    judged = judged_of(rows, known, found)
    tell_all(found.close(), tell)
    return judged


def judged_of(rows: Sequence[Row], shape: Shape, found: Findings) -> list[Judged]:
    """The good rows; the others are bad rows in `found`."""
    made = [one for row in rows for one in BUILDERS[shape.name](row, shape, found)]
    _note_lengths(made, found)
    return made


def _pair(row: Row, shape: Shape, found: Findings) -> list[Judged]:
    prompt = prompt_of(row, shape, found) if "prompt" in shape.columns else _shared_prompt(row, shape, found)
    chosen, rejected = (_reply(row, shape, role, prompt, found) for role in ("chosen", "rejected"))
    margin = 0.0
    if (column := shape.columns.get("margin")) is not None and value_at(row.values, column) not in (None, "", NOTHING):
        margin = _number(row, column, found, highest=math.inf)
    if prompt is None or chosen is None or rejected is None or margin is None:
        return []
    if chosen == rejected:
        found.bad(row.number, row.place(found.path), "`chosen` and `rejected` are the same", "no preference")
        return []
    return [Pair(prompt, chosen, rejected, margin)]


def _shared_prompt(row: Row, shape: Shape, found: Findings) -> Conversation | None:
    """What both replies of a row answer, where they come as whole conversations."""
    whole = [_whole(row, shape.columns[role], found) for role in ("chosen", "rejected")]
    if whole[0] is None or whole[1] is None:
        return None
    if whole[0][:-1] != whole[1][:-1] or len(whole[0]) < 2:
        what = f"`{clip(shape.columns['chosen'])}` and `{clip(shape.columns['rejected'])}` do not answer one prompt"
        fix = "begin both with the same turns, and end each with its reply"
        found.bad(row.number, row.place(found.path), what, "", fix)
        return None
    return whole[0][:-1] if well_ordered(whole[0][:-1], "user", row, found) else None


def _whole(row: Row, column: str, found: Findings) -> Conversation | None:
    """A reply as messages: a list of them, one, or a dialogue written in one text."""
    value = value_at(row.values, column)
    written = written_turns(value) if isinstance(value, str) else None
    if written is not None:
        return written
    return messages_of(row, [value] if is_message(value) else value, column, found)


def _rated(row: Row, shape: Shape, found: Findings) -> list[Judged]:
    prompt = prompt_of(row, shape, found)
    completion = _reply(row, shape, "completion", prompt, found)
    label = _number(row, shape.columns["label"], found)
    if prompt is None or completion is None or label is None:
        return []
    return [Rated(prompt, completion, label)]


def _labelled_steps(row: Row, shape: Shape, found: Findings) -> list[Judged]:
    prompt = prompt_of(row, shape, found)
    steps, labels = (_list(row, shape.columns[role], found) for role in ("steps", "labels"))
    if prompt is None or steps is None or labels is None:
        return []
    where = row.place(found.path)
    if len(steps) != len(labels):
        found.bad(row.number, where, "not one label a step", f"{len(steps)} steps, {len(labels)} labels")
        return []
    if (odd := next((step for step in steps if not isinstance(step, str) or not step.strip()), None)) is not None:
        found.bad(row.number, where, "a step is not text", "it is empty" if odd == "" else f"found {type_name(odd)}")
        return []
    values = [number for label in labels if (number := share_of(label)) is not None]
    if len(values) < len(labels):
        odd = next(label for label in labels if share_of(label) is None)
        found.bad(row.number, where, "a label is not a number from 0 to 1", f"found {_shown(odd)}")
        return []
    return [LabelledSteps(prompt, tuple(steps), tuple(values))]


def _reply(row: Row, shape: Shape, role: str, prompt: Conversation | None, found: Findings) -> str | None:
    """A reply's text; as messages, it is the assistant's last turn, alone or after the prompt's own messages."""
    column = shape.columns[role]
    value = value_at(row.values, column)
    is_whole = isinstance(value, str) and written_turns(value) is not None
    if not isinstance(value, list) and not is_message(value) and not is_whole:
        return text_of(row, shape, role, found)
    messages = _whole(row, column, found)
    if messages is None:
        return None
    asked = tuple(message for message in prompt or () if message.role != "system")
    before = tuple(message for message in messages[:-1] if message.role != "system")
    if messages[-1].role != "assistant" or before not in ((), asked):
        kind = f"`{clip(column)}` is not one reply to the prompt"
        found.bad(row.number, row.place(found.path), kind, "", "write the assistant's turn alone, or after the prompt")
        return None
    return messages[-1].content


def _list(row: Row, column: str, found: Findings) -> list[Any] | None:
    value = value_at(row.values, column)
    if isinstance(value, list) and value:
        return value
    got = "an empty list" if value == [] else type_name(value)
    found.bad(row.number, row.place(found.path), f"`{clip(column)}` is not a list", f"found {got}")
    return None


def _number(row: Row, column: str, found: Findings, highest: float = 1.0) -> float | None:
    value = value_at(row.values, column)
    number = number_of(value)
    if number is not None and 0 <= number <= highest and math.isfinite(number):
        return number
    kind = f"`{clip(column)}` is not a number " + ("from 0 to 1" if highest == 1 else "of 0 or more")
    got = _shown(value)
    found.bad(row.number, row.place(found.path), kind, f"found {got}")
    return None


def _shown(value: Any) -> str:
    text = value.text if isinstance(value, Number) else value
    return f"`{clip(text, 20)}`" if isinstance(text, str) else type_name(value)


def _note_lengths(rows: Sequence[Judged], found: Findings) -> None:
    """A preference that length alone would explain is what a reward model learns first."""
    pairs = [row for row in rows if isinstance(row, Pair)]
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in pairs)
    shorter = sum(len(pair.chosen) < len(pair.rejected) for pair in pairs)
    if len(pairs) >= 100 and max(longer, shorter) > 0.75 * len(pairs):
        what = f"the chosen reply is the {'longer' if longer > shorter else 'shorter'} one"
        what += f" in {max(longer, shorter):,} of {len(pairs):,} pairs"
        found.warn(what, why="a reward model would learn length", fix="balance the lengths of chosen and rejected")


# -- rankings ---------------------------------------------------------------------------------------------------------


def _ranked(row: Row, shape: Shape, found: Findings) -> list[Judged]:
    """Every pair of replies that a ranking puts one above the other: K(K − 1)/2 of K replies without ties."""
    prompt = prompt_of(row, shape, found)
    column = shape.columns["ranking"]
    items = _list(row, column, found)
    if prompt is None or items is None:
        return []
    try:
        texts, heights = [_ranked_text(item) for item in items], _heights(row, shape, items)
        if not 2 <= len(items) <= MOST_RANKED:
            raise ValueError(f"{len(items)} replies, where 2 to {MOST_RANKED} can be ranked")
        if len(set(texts)) < len(texts):
            raise ValueError("the same reply stands there twice")
        if len(set(heights)) == 1:
            raise ValueError("all replies have one rank: no preference")
    except ValueError as error:
        fix = "write the replies best first, or each with its `rank` (1 is the best) or `score`"
        found.bad(row.number, row.place(found.path), f"`{clip(column)}` is no ranking", str(error), fix)
        return []
    order = sorted(range(len(items)), key=lambda i: -heights[i])
    return [Pair(prompt, texts[i], texts[j]) for i, j in combinations(order, 2) if heights[i] > heights[j]]


def _ranked_text(item: Any) -> str:
    """A reply of a ranking: a text, a message or messages that end with it, an object that holds it beside its rank."""
    told = item
    for _ in range(4):  # an object with a list of messages, the last of which has the text
        if isinstance(told, list):
            told = told[-1] if told else None
        elif isinstance(told, dict):
            asks = told.get("role", told.get("from")) in ("user", "human", "system")
            told = None if asks else next((told[name] for name in _REPLY if name in told), None)
    if not isinstance(told, str) or not told.strip():
        raise ValueError(f"a reply is not text: found {_shown(item)}")
    return told


_REPLY = ("content", "value", "text", "reply", "response", "completion", "answer", "output")
_SCORES = ("score", "rating", "overall_score", "reward")


def _heights(row: Row, shape: Shape, items: Sequence[Any]) -> list[float]:
    """How high each reply stands: by the ranks beside them, by its own rank or score, else by its place in the list."""
    told = value_at(row.values, shape.columns.get("ranks", ""))
    if told is not NOTHING and told is not None:
        ranks = [number_of(rank) for rank in told] if isinstance(told, list) else []
        if len(ranks) != len(items):
            raise ValueError(f"{len(items)} replies and {len(ranks)} ranks")
        return _all_numbers([None if rank is None else -rank for rank in ranks])
    objects = [item for item in items if isinstance(item, dict)]
    for name, sign in (("rank", -1), *((name, 1) for name in _SCORES)):
        if any(name in item for item in objects):
            numbers = [number_of(item.get(name)) if isinstance(item, dict) else None for item in items]
            return _all_numbers([None if number is None else sign * number for number in numbers])
    return [-float(place) for place in range(len(items))]


def _all_numbers(values: Sequence[float | None]) -> list[float]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < len(values):
        raise ValueError("a rank or score is not a number")
    return known


BUILDERS: dict[str, Callable[[Row, Shape, Findings], list[Judged]]] = {
    "preference": _pair,
    "ranked": _ranked,
    "rated": _rated,
    "steps": _labelled_steps,
}
