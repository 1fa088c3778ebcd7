"""A reply on the screen while it is drawn: the thinking set apart from the answer, nothing in it taken for control."""

from __future__ import annotations

import os
import re
from typing import Any, TextIO

from temper.errors import escape
from temper.text.streaming import PartStream, TextStream
from temper.types import ReplyForm

LABELS = {"thinking": "  thinking: ", "answer": "  answer:   "}
OTHER = "  reply: "
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
# White space may turn out to be the last of its part, and a word the beginning of an access token: they wait.
_UNSETTLED = re.compile(r"(?:[A-Za-z0-9_-]+|\s+)\Z")
_NO_WORD = re.compile(r"[ \n\t!-,./:-@\[-^`{-~]")  # what follows one of these is escaped without regard to it


class Rendering:
    """Text in pieces to what is printed of it: however it is cut, the same in all."""

    def __init__(self, thinking_opened: bool = False, dim_thinking: bool = False, form: ReplyForm = "tags"):
        self._parts = PartStream(thinking_opened, form)
        self._dim = dim_thinking
        self._part: str | None = None  # the one that is open: it has a character to show
        self._empty = True
        self._text = ""  # of the open part, from its last word on
        self._shown = 0  # characters of the escaped `_text` that were given out

    def push(self, text: str) -> str:
        return "".join(self._add(part, piece) for part, piece in self._parts.push(text))

    def end(self) -> str:
        rest = "".join(self._add(part, piece) for part, piece in self._parts.end()) + self._close()
        return OTHER if self._empty else rest

    def _add(self, part: str, text: str) -> str:
        shown = ""
        if part != self._part:
            text = text.lstrip()
            if not text:
                return ""
            shown = self._close() + self._open(part)
        self._text += text
        unsettled = _UNSETTLED.search(self._text)
        return shown + self._settle(unsettled.start() if unsettled else len(self._text))

    def _open(self, part: str) -> str:
        start = "" if self._empty else "\n"
        self._part, self._empty, self._text, self._shown = part, False, "", 0
        return start + (DIM if self._dim and part == "thinking" else "") + LABELS.get(part, OTHER)

    def _close(self) -> str:
        if self._part is None:
            return ""
        self._text = self._text.rstrip()
        shown = self._settle(len(self._text)) + (PLAIN if self._dim and self._part == "thinking" else "")
        self._part = None
        return shown

    def _settle(self, length: int) -> str:
        """The first `length` characters of the text, escaped, without what was shown of them before."""
        escaped = escape(self._text[:length])
        fresh, self._shown = escaped[self._shown :], len(escaped)
        ends = [found.end() for found in _NO_WORD.finditer(self._text, 0, length)]
        if ends:
            self._text = self._text[ends[-1] :]
            self._shown = len(escape(self._text[: length - ends[-1]]))
        return fresh


def render(text: str, thinking_opened: bool = False, dim_thinking: bool = False, form: ReplyForm = "tags") -> str:
    r"""A whole reply as it is printed.

    >>> render("<think>2+3 is 5</think>\n<answer>5</answer>")
    '  thinking: 2+3 is 5\n  answer:   5'
    >>> render("2+3 is 5</think>It is 5.", True, form="think")
    '  thinking: 2+3 is 5\n  answer:   It is 5.'
    >>> render("Good day.")
    '  reply: Good day.'
    """
    rendering = Rendering(thinking_opened, dim_thinking, form)
    return rendering.push(text) + rendering.end()


class LiveReply:
    """Prints one reply while an engine draws it: `watch` is what the engine is given."""

    def __init__(self, chat: Any, out: TextIO, form: ReplyForm = "tags"):
        self.chat, self.out = chat, out
        self._texts = TextStream(chat.decode)
        self._look = (chat.thinking_opened, out.isatty() and not os.environ.get("NO_COLOR"), form)
        self._rendering = Rendering(*self._look)
        self._printed = ""

    @property
    def token_ids(self) -> list[int]:
        return self._texts.token_ids

    def watch(self, _: int, token: int) -> None:
        self._print(self._rendering.push(self._texts.push(token)))

    def end(self) -> None:
        """Print what is left of it."""
        whole = render(self.chat.decode(self.token_ids), *self._look)
        if not whole.startswith(self._printed):  # broken characters can change what stands before them
            whole, self._printed = (PLAIN if self._look[1] else "") + "\n" + whole, ""
        self._print(whole[len(self._printed) :] + "\n")

    def _print(self, text: str) -> None:
        if text:
            self._printed += text
            self.out.write(text)
            self.out.flush()
