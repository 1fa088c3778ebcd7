"""The gold answer of a row: in its answer column, one of its options, or a letter; what cannot be verified is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from temper.data.choices import LETTERS, TEMPLATE, as_python, laid_out, stand_in
from temper.data.columns import value_at
from temper.data.findings import Findings, clip
from temper.data.gold import gold_of, number_in_words
from temper.data.rows import Number, Row, type_name
from temper.data.shapes import Shape, text_of
from temper.types import AnswerType, Message

Conversation = tuple[Message, ...]


@dataclass(frozen=True)
class Asked:
    """What a row asks and the answer it wants."""

    messages: Conversation
    gold: str | None
    answer_type: AnswerType


def asked_of(
    row: Row,
    shape: Shape,
    messages: Conversation,
    answer_type: AnswerType,
    drop: bool,
    found: Findings,
    prompt_template: str | None = None,
    choice_template: str | None = None,
) -> Asked | None:
    """The question with its options laid out, and its gold answer; None (and a bad row, or with `drop` one left out)
    where that cannot be verified."""
    refuse = found.drop if drop else found.bad
    question = messages[-1].content
    both = shape.choices.read(row.values, question) if shape.choices is not None else None
    if both is not None:
        options, place = both
        if place is None:
            return _no_option(row, shape, refuse, found)
        shown = question if stand_in(question, options) else laid_out(question, options, choice_template or TEMPLATE)
        return Asked((*messages[:-1], Message("user", shown)), LETTERS[place], "math")
    messages = put(messages, prompt_template)
    letter = value_at(row.values, shape.columns.get("letter", ""))
    if isinstance(letter, str) and letter.strip() and _is_lettered(question, letter.strip()):
        return Asked(messages, letter.strip(), "math")
    gold = _gold(row, shape, answer_type, refuse, found)
    return None if gold is None else Asked(messages, gold, answer_type)


def put(messages: Conversation, template: str | None) -> Conversation:
    """The messages with their question put as a template says."""
    if template is None:
        return messages
    return (*messages[:-1], Message("user", template.replace("{question}", messages[-1].content)))


def _no_option(row: Row, shape: Shape, refuse: Callable[..., None], found: Findings) -> None:
    assert shape.choices is not None
    column = shape.choices.right
    value = value_at(row.values, column)
    shown = f"`{clip(value.text if isinstance(value, Number) else value, 30)}`"
    detail = f"found {shown if isinstance(value, (str, Number)) else type_name(value)} in `{clip(column)}`"
    refuse(row.number, row.place(found.path), "the gold answer is none of the options", detail,
           "give the letter, the number or the text of one option")  # fmt: skip


def _is_lettered(question: str, letter: str) -> bool:
    """Whether the options stand in the question's text: `A. 3 B. 4`."""
    at = -1
    for mark in LETTERS[: max(2, LETTERS.find(letter) + 1)]:
        at = next((i for i in (question.find(mark + end, at + 1) for end in (".", ")", "．", ":", "、")) if i >= 0), -1)
        if at < 0:
            return False
    return True


def _gold(row: Row, shape: Shape, answer_type: AnswerType, refuse: Callable[..., None], found: Findings) -> str | None:
    column = shape.columns["answer"]
    value = value_at(row.values, column)
    try:
        text = one_answer(value, value_at(row.values, "is_multiple_answer") is True)
    except ValueError as error:
        fix = "keep one of them, or join them into one text"
        refuse(row.number, row.place(found.path), f"`{clip(column)}` lists several answers", str(error), fix)
        return None
    if text is None:
        if refuse == found.drop and (value is None or value == ""):
            refuse(row.number, row.place(found.path), f"`{clip(column)}` is empty")
            return None
        return text_of(row, shape, "answer", found)
    try:
        gold = gold_of(text, answer_type)
        if answer_type == "math" and (said := number_in_words(gold)):
            kind, fix = "the gold answer is words with a number among them", "write the number in digits"
            detail = f"only the same words are right: `{clip(said, 40)}`"
            found.odd(row.number, row.place(found.path), kind, detail, f"{fix}; `answer: text` if words are meant")
        return gold
    except ValueError as error:
        fix = "give one final answer: `#### 42`, `\\boxed{42}` or the answer alone"
        if answer_type == "math":
            fix += "; if answers are words, set `answer: text`"
        fix += "; `unverifiable: drop` in the task leaves such rows out, and counts them"
        detail = f"{error} (`{clip(text[-200:], 40)}`)" if clip(text, 40) not in str(error) else str(error)
        refuse(row.number, row.place(found.path), "the gold answer cannot be verified", detail, fix)
        return None


def one_answer(value: Any, together: bool = False) -> str | None:
    """The one answer in a value: a text, a number, a list of one, or of several that belong `together`. None where it
    is no answer at all; raises ValueError for a list of several, any of which could be meant.

    >>> one_answer(["5"]), one_answer('["7"]'), one_answer("['8']"), one_answer(["1", "2"], together=True)
    ('5', '7', '8', '1, 2')
    """
    if isinstance(value, str):
        inside = as_python(value)
        value = inside if isinstance(inside, list) and all(isinstance(item, str) for item in inside) else value
    if not isinstance(value, list):
        return value.text if isinstance(value, Number) else value if _says(value) else None
    texts = [text for item in value if (text := item.text if isinstance(item, Number) else item) is not None]
    if not texts or not all(map(_says, texts)):
        return None
    distinct = list(dict.fromkeys(texts))
    if len(distinct) > 1 and not together:
        raise ValueError(", ".join(f"`{clip(text, 20)}`" for text in distinct[:5]))
    return ", ".join(distinct)


def _says(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
