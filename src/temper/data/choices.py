"""Questions with options to choose from: the options laid into the prompt, and the letter of the right one.

Options stand in one column (a list, an object, a text with letters), or each in a column of its own; the right one is
told by letter, number or text. What comes out is one form: lettered lines after the question, and a letter as the gold.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from temper.data.columns import Table, opened, value_at
from temper.data.names import OPTION_SETS, OPTIONS, RIGHT_ONE, RIGHT_OPTION, WRONG_ONES
from temper.data.rows import Number

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEMPLATE = "{question}\n\n{options}\n\nAnswer with the letter of the right option."
SEEN = 2000  # rows that are looked at to find out how the right option is told


@dataclass(frozen=True)
class Options:
    """The options of one question in their order, with the label that the file gives each (its letter where none)."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Choices:
    """Where a file keeps its options: in one column, in one for each, or the right one first and the wrong ones after
    it. `right` is the column that tells the right one; `base` is what its numbers count from."""

    columns: tuple[str, ...]
    right: str
    base: int = 0
    right_first: bool = False

    def __str__(self) -> str:
        return ", ".join(f"`{column}`" for column in self.columns)

    def options(self, values: Mapping[str, Any]) -> Options | None:
        """The options of a row, None where it has none."""
        if len(self.columns) == 1 and not self.right_first:
            return read_options(value_at(values, self.columns[0]))
        texts = [text for column in self.columns for text in _texts(value_at(values, column))]
        return Options(tuple(texts), tuple(LETTERS[: len(texts)])) if 1 < len(texts) <= len(LETTERS) else None

    def read(self, values: Mapping[str, Any], question: str) -> tuple[Options, int | None] | None:
        """The options of a row and the place of the right one, None for a place that cannot be told. Where the file
        names the right option first, they are shuffled, always the same for one question."""
        options = self.options(values)
        if options is None:
            return None
        if not self.right_first:
            return options, place_of(value_at(values, self.right), options, self.base)
        order = list(range(len(options.texts)))
        random.Random(hashlib.sha256(question.encode()).digest()).shuffle(order)
        return Options(tuple(options.texts[i] for i in order), options.labels), order.index(0)


def laid_out(question: str, options: Options, template: str) -> str:
    """The question with its options as lettered lines.

    >>> print(laid_out("2+2?", Options(("3", "4"), ("A", "B")), "{question}\\n{options}"))
    2+2?
    A) 3
    B) 4
    """
    lines = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, options.texts, strict=False))
    parts = re.split(r"(\{question\}|\{options\})", template)
    return "".join({"{question}": question, "{options}": lines}.get(part, part) for part in parts)


def stand_in(question: str, options: Options) -> bool:
    """Whether a question already shows its options, each with its letter.

    >>> stand_in("2+2?\\nA. 3\\nB. 4", Options(("3", "4"), ("A", "B")))
    True
    """
    at = 0
    for letter, text in zip(LETTERS, options.texts, strict=False):
        found = re.compile(rf"(?<![A-Za-z]){letter}\s*[).:、．\]]\s*{re.escape(text)}").search(question, at)
        if found is None:
            return False
        at = found.end()
    return True


# -- how a row writes its options -------------------------------------------------------------------------------------

_LABEL = re.compile(r"\s*[(\[]?\s*([A-Za-z])\s*[).:、．\]]\s*")


def read_options(value: Any) -> Options | None:
    """The options in a value: a list, an object of letters, lists of `text` and `label`, or a text "A) 3 B) 4".

    >>> read_options(["A)3", "B)4"])
    Options(texts=('3', '4'), labels=('A', 'B'))
    >>> read_options({"text": ["3", "4"], "label": ["1", "2"]}).labels
    ('1', '2')
    >>> read_options("a ) 3 , b ) 4").texts
    ('3', '4')
    """
    if isinstance(value, str):
        value = as_python(value)
    if isinstance(value, str):
        return _labelled_text(value)
    if isinstance(value, dict):
        return _from_object(value)
    if not isinstance(value, list) or not 1 < len(value) <= len(LETTERS):
        return None
    value = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in value]
    if all(isinstance(item, dict) for item in value):
        return _from_objects(value)
    texts = [text for item in value for text in _texts(item)]
    return _unlabelled(texts) if len(texts) == len(value) else None


def as_python(text: str) -> Any:
    """The list or object that a text holds, as JSON or as Python prints it; else the text.

    >>> as_python("['a', 'b']"), as_python('["a"]'), as_python("[1, 2)")
    (['a', 'b'], ['a'], '[1, 2)')
    """
    value = opened(text)
    if value is text and text.lstrip()[:1] in ("[", "{") and len(text) < 20_000:
        try:
            return ast.literal_eval(text.strip())  # a list as Python prints it, in a CSV file
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    text = value.text if isinstance(value, Number) else str(value) if isinstance(value, (int, float)) else value
    return [text.strip()] if isinstance(text, str) and text.strip() else []


def _unlabelled(texts: Sequence[str]) -> Options:
    """Options without the letters that some files write before each."""
    found = [_LABEL.match(text) for text in texts]
    letters = [match.group(1).upper() if match else "" for match in found]
    if letters == list(LETTERS[: len(texts)]):
        texts = [text[match.end() :].strip() for text, match in zip(texts, found, strict=True) if match]
    return Options(tuple(texts), tuple(LETTERS[: len(texts)]))


def _from_object(value: Mapping[str, Any]) -> Options | None:
    keys = {key.casefold(): key for key in value}
    label, text = (next((keys[name] for name in names if name in keys), None) for names in (_LABELS, _TEXTS))
    if label and text and isinstance(value[label], list) and isinstance(value[text], list):
        return _pairs(value[label], value[text])
    return _pairs(list(value), list(value.values())) if all(len(key.strip()) == 1 for key in value) else None


_LABELS = ("label", "labels", "key", "letter", "id", "aoVal")
_TEXTS = ("text", "texts", "content", "value", "option", "answer")


def _from_objects(items: Sequence[Mapping[str, Any]]) -> Options | None:
    label, text = (next((name for name in names if all(name in item for item in items)), None)
                   for names in (_LABELS, _TEXTS))  # fmt: skip
    if text is None:
        return None
    labels = [item[label] for item in items] if label else list(LETTERS[: len(items)])
    return _pairs(labels, [item[text] for item in items])


def _pairs(labels: Sequence[Any], texts: Sequence[Any]) -> Options | None:
    """Options with what the file calls them, those without a text left out."""
    both = [(_texts(label), _texts(text)) for label, text in zip(labels, texts, strict=False)]
    kept = [(label[0], text[0]) for label, text in both if label and text]
    if not 1 < len(kept) <= len(LETTERS):
        return None
    return Options(tuple(text for _, text in kept), tuple(label for label, _ in kept))


def _labelled_text(text: str) -> Options | None:
    starts = []
    at = 0
    for letter in LETTERS:
        pattern = rf"(?:^|(?<=[\s,;]))[(\[]?({letter}|{letter.lower()})\s*[).:、．\]]"
        found = re.compile(pattern).search(text, at)
        if found is None:
            break
        starts.append((found.start(), found.end()))
        at = found.end()
    if len(starts) < 2 or text[: starts[0][0]].strip():
        return None
    ends = [start for start, _ in starts[1:]] + [len(text)]
    texts = [text[begin:end].strip().rstrip(",;").strip() for (_, begin), end in zip(starts, ends, strict=True)]
    return Options(tuple(texts), tuple(LETTERS[: len(texts)])) if all(texts) else None


# -- which one is right -----------------------------------------------------------------------------------------------

_ONE_LETTER = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:]?\s*[)\]]?")


def place_of(value: Any, options: Options, base: int = 0) -> int | None:
    """The place of the right option, from 0; None where the value tells none.

    >>> options = Options(("3", "4"), ("A", "B"))
    >>> place_of("b", options), place_of(Number("1"), options), place_of("4", options), place_of("C", options)
    (1, 1, 1, None)
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Number):
        return _counted(value.text, options, base)
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    letter = _ONE_LETTER.fullmatch(text)
    for wanted in (text, letter.group(1) if letter else ""):
        if wanted and [label.casefold() for label in options.labels].count(wanted.casefold()) == 1:
            return [label.casefold() for label in options.labels].index(wanted.casefold())
    if letter and (place := LETTERS.index(letter.group(1).upper())) < len(options.texts):
        return place
    same = _by_text(text, options)
    return _counted(text, options, base) if same is None else same


def _by_text(text: str, options: Options) -> int | None:
    same = [" ".join(option.casefold().split()) for option in options.texts]
    for wanted in (text, _LABEL.sub("", text, count=1)):
        if same.count(flat := " ".join(wanted.casefold().split())) == 1:
            return same.index(flat)
    return None


def _counted(text: str, options: Options, base: int) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    place = int(number) - base if number.is_integer() else -1
    return place if 0 <= place < len(options.texts) else None


# -- where a file keeps them ------------------------------------------------------------------------------------------


def find_choices(table: Table, mapping: Mapping[str, str]) -> Choices | None:
    """Where the rows of a file keep their options and which is right, None for a file of open questions."""
    if not table.rows or "messages" in mapping:
        return None
    wanted = mapping.get("answer")
    for columns in _candidates(table, mapping):
        rights = [wanted] if wanted else [c for name in RIGHT_OPTION for c in table.named(name) if c not in columns]
        found = _best([Choices(columns, right, _base(table, columns, right)) for right in dict.fromkeys(rights)], table)
        if found is not None:
            return found
    return None if wanted else _right_and_wrong(table)


def _candidates(table: Table, mapping: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    if "options" in mapping:
        yield (mapping["options"],)
        return
    for name in OPTIONS:
        yield from ((column,) for column in table.named(name))
    for names in OPTION_SETS:
        present = [table.named(name) for name in names]
        columns = tuple(found[0] for found in present[: _first_gap(present)])
        if len(columns) > 1 and not set(columns) & set(mapping.values()):
            yield columns


def _first_gap(present: Sequence[Sequence[str]]) -> int:
    return next((place for place, found in enumerate(present) if not found), len(present))


def _base(table: Table, columns: tuple[str, ...], right: str) -> int:
    """What a column of numbers counts from: 1 where one of them is as large as its row has options and none is 0, or
    where the names of the options' columns count from 1."""
    seen = Choices(columns, right)
    counted = []
    for row in table.rows[:SEEN]:
        options, value = seen.options(row.values), value_at(row.values, right)
        text = value.text if isinstance(value, Number) else value
        if options is not None and isinstance(text, str) and text.strip().removesuffix(".0").isdigit():
            counted.append((int(float(text)), len(options.texts)))
    if not counted or any(number == 0 for number, _ in counted):
        return 0
    return int(any(number == count for number, count in counted) or columns[0].endswith("1"))


def _best(found: Sequence[Choices], table: Table) -> Choices | None:
    """The first that tells the right option of every row that has options, else of the most, if of half at least."""
    told = {}
    for choices in found:
        read = [both for row in table.rows[:SEEN] if (both := choices.read(row.values, "")) is not None]
        right = sum(place is not None for _, place in read)
        if read and right == len(read):
            return choices
        if read and 2 * right >= len(read):
            told[choices] = right / len(read)
    return max(told, key=lambda choices: told[choices]) if told else None


def _right_and_wrong(table: Table) -> Choices | None:
    right = next((column for name in RIGHT_ONE for column in table.named(name)), None)
    if right is None:
        return None
    wrong = []
    for name in WRONG_ONES:
        numbered = [table.named(f"{name}{number}") for number in range(1, 10)]
        wrong = [found[0] for found in numbered[: _first_gap(numbered)]] or table.named(name)[:1]
        if wrong:
            break
    choices = Choices((right, *wrong), right, right_first=True)
    return choices if wrong and any(choices.options(row.values) for row in table.rows[:SEEN]) else None
