"""A reply while it is drawn: tokens to text as soon as its characters are complete, text to thinking and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from temper.text.reply import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK
from temper.text.stops import PIECE
from temper.types import ReplyForm

Part = Literal["before", "thinking", "between", "answer", "after"]

_TURNS: dict[ReplyForm, dict[Part, dict[str, Part]]] = {  # the tags looked for in each part, and what they lead to
    "tags": {
        "before": {OPEN_THINK: "thinking", CLOSE_THINK: "between"},
        "thinking": {CLOSE_THINK: "between"},
        "between": {OPEN_ANSWER: "answer"},
        "answer": {CLOSE_ANSWER: "after"},
    },
    "think": {"before": {OPEN_THINK: "thinking", CLOSE_THINK: "answer"}, "thinking": {CLOSE_THINK: "answer"}},
    "plain": {},
}


class TextStream:
    """The text of `token_ids`, which grow by a token a time; a character that is split over tokens comes whole.

    >>> stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"))
    >>> [stream.push(byte) for byte in "aé".encode()]
    ['a', '', 'é']
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self.decode = decode
        self.token_ids: list[int] = []
        self._start = self._read = 0  # the text of the tokens between was given last; it tells how the next begin

    def push(self, token: int) -> str:
        """The text that is complete with `token` and was not before."""
        self.token_ids.append(token)
        known = self.decode(self.token_ids[self._start : self._read])
        text = self.decode(self.token_ids[self._start :])
        if text.endswith(PIECE) or len(text) <= len(known):
            return ""
        fresh = text[len(known) :]
        if fresh.strip():  # white space at the start of a stretch may be dropped: none begins with nothing else
            self._start = self._read
        self._read = len(self.token_ids)
        return fresh


class PartStream:
    """The parts of a reply, from its text in pieces. A tag that is not in its place is text like any other.

    >>> stream = PartStream()
    >>> stream.push("<think>2+3</th"), stream.push("ink>\\n<answer>5"), stream.end()
    ([('thinking', '2+3')], [('between', '\\n'), ('answer', '5')], [])
    """

    def __init__(self, thinking_opened: bool = False, form: ReplyForm = "tags"):
        self.part: Part = "thinking" if thinking_opened and form != "plain" else "before"
        self._turns = _TURNS[form]
        self._waiting = ""

    def push(self, text: str) -> list[tuple[Part, str]]:
        """What is now known to belong to a part; the beginning of a tag waits for its end."""
        self._waiting += text
        found = []
        while (tag := self._next_tag()) is not None:
            before, _, self._waiting = self._waiting.partition(tag)
            found.append((self.part, before))
            self.part = self._turns[self.part][tag]
        held = self._tag_begun()
        done, self._waiting = self._waiting[: len(self._waiting) - held], self._waiting[len(self._waiting) - held :]
        return [(part, text) for part, text in [*found, (self.part, done)] if text]

    def end(self) -> list[tuple[Part, str]]:
        """What was still waiting."""
        waiting, self._waiting = self._waiting, ""
        return [(self.part, waiting)] if waiting else []

    def _next_tag(self) -> str | None:
        present = [tag for tag in self._turns.get(self.part, ()) if tag in self._waiting]
        return min(present, key=self._waiting.index, default=None)

    def _tag_begun(self) -> int:
        """How many of the last characters may be the beginning of a tag."""
        begun = [
            n for tag in self._turns.get(self.part, ()) for n in range(1, len(tag)) if self._waiting.endswith(tag[:n])
        ]
        return max(begun, default=0)
