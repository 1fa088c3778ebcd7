"""The same question twice: in one file, or in training and in test."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from temper.data.findings import SHOWN, Findings, Note, clip
from temper.errors import Fault
from temper.rewards.answers import same_gold
from temper.types import Prompt

_LOOSE = re.compile(r" (?=[^\w ])|(?<=[^\w ]) ")  # a space beside a mark


def normalised(text: str) -> str:
    """What two ways of writing one question share: case, width, white space and closing marks aside.

    >>> normalised("What is 38 + 33 ?") == normalised("what is 38+33")
    True
    """
    wide = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _LOOSE.sub("", " ".join(wide.casefold().split())).rstrip(".?:")


def _key(prompt: Prompt) -> str:
    return " ".join(" ".join(message.content for message in prompt.messages).split())


def same_questions(prompts: Sequence[Prompt], found: Findings) -> None:
    """Warn about questions that stand in the file more than once, and more loudly about those with two answers."""
    first: dict[str, Prompt] = {}
    again: list[Prompt] = []
    disagree: list[tuple[Prompt, Prompt]] = []
    for prompt in prompts:
        earlier = first.setdefault(_key(prompt), prompt)
        if earlier is not prompt:
            again.append(prompt)
            if earlier.gold != prompt.gold and not _same_answer(earlier, prompt):
                disagree.append((earlier, prompt))
    if disagree:
        pairs = [f"{a.id}: `{clip(a.gold or '', 20)}`, {b.id}: `{clip(b.gold or '', 20)}`" for a, b in disagree[:SHOWN]]
        what = f"{len(disagree):,} questions occur again with another answer"
        found.warn(what, why="\n".join(pairs), fix="at least one of the two answers is wrong: mend or remove it")
    if len(again) > len(disagree):
        listed = ", ".join(prompt.id for prompt in again[:SHOWN])
        what = f"{len(again):,} of {len(prompts):,} questions occur more than once"
        found.warn(what, why=f"for example {listed}", fix="remove the copies, unless they are meant to count more")


def _same_answer(one: Prompt, other: Prompt) -> bool:
    if one.gold is None or other.gold is None or not one.answer_type == other.answer_type == "math":
        return False
    return same_gold(one.gold, other.gold)


@dataclass(frozen=True)
class Overlap:
    """Test prompts that are also in the training set, by id: word for word, or written a little differently."""

    exact: tuple[str, ...]
    near: tuple[str, ...]
    of: int

    def note(self, where: str = "") -> Note | None:
        """The warning, None where the two sets do not meet."""
        ids = (*self.exact, *self.near)
        if not ids:
            return None
        what = f"{len(ids):,} of {self.of:,} test prompts are also in the training set"
        more = f" and {len(ids) - 10:,} more" if len(ids) > 10 else ""
        why = f"{len(self.exact):,} word for word, {len(self.near):,} after normalising: {', '.join(ids[:10])}{more}"
        return Note("warning", Fault(what, where, why, "remove them from one of the two: scores on them show memory"))


def overlap(train: Iterable[Prompt], test: Sequence[Prompt]) -> Overlap:
    """Where evaluation meets training.

    >>> from temper.types import Message
    >>> ask = lambda name, text: Prompt(name, "t", (Message("user", text),), "4")
    >>> overlap([ask("a", "What is 2+2?")], [ask("b", "what is 2 + 2"), ask("c", "3+3?")])
    Overlap(exact=(), near=('b',), of=2)
    """
    texts, keys = set(), set()
    for prompt in train:
        texts.add(prompt.text)
        keys.add(normalised(prompt.text))
    exact = tuple(prompt.id for prompt in test if prompt.text in texts)
    near = tuple(p.id for p in test if p.text not in texts and normalised(p.text) in keys)
    return Overlap(exact, near, len(test))
