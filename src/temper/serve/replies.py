"""A reply's tokens to what a client is told of it: its thinking, its content, its log-probs, in pieces or whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from temper.text.streaming import PartStream, TextStream
from temper.types import ReplyForm

Piece = tuple[str, str]  # ("content" or "reasoning_content", text)


class StopCut:
    """Text in pieces up to the one of `strings` that is complete first (of two, the longer), which is left out; what
    may be the beginning of one waits.

    >>> cut = StopCut(["\\nQ:"])
    >>> cut.push("5.\\n"), cut.push("Q"), cut.push("uestion"), cut.push("\\nQ: and"), cut.push("more"), cut.end()
    ('5.', '', '\\nQuestion', '', '', '')
    """

    def __init__(self, strings: Sequence[str]):
        self.strings = tuple(strings)
        self.found = False
        self._held = ""

    def push(self, text: str) -> str:
        if self.found:
            return ""
        text, self._held = self._held + text, ""
        ends = [(place + len(string), place) for string in self.strings if (place := text.find(string)) >= 0]
        if ends:
            self.found = True
            return text[: min(ends)[1]]
        held = max((n for s in self.strings for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> str:
        held, self._held = self._held, ""
        return held


class Trim:
    """Text in pieces without the white space at its two ends."""

    def __init__(self) -> None:
        self._begun, self._held = False, ""

    def push(self, text: str) -> str:
        text = self._held + text if self._begun else text.lstrip()
        settled = text.rstrip()
        self._held = text[len(settled) :]
        self._begun = self._begun or bool(settled)
        return settled


class ReplyPieces:
    """The pieces of one reply, whose tokens come one by one.

    However it is cut, the pieces of a kind joined are the whole: `reasoning_content` is the thinking, `content` all
    else, without tags and without white space at its ends. `form` None takes the text as it is.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], form: ReplyForm | None,
                 thinking_opened: bool = False):  # fmt: skip
        self.decode = decode
        self._stream, self._cut = TextStream(decode), StopCut(stop)
        self._parts = PartStream(thinking_opened, form) if form is not None else None
        self._trims = {"content": Trim(), "reasoning_content": Trim()}
        self._read = ""

    def push(self, tokens: Sequence[int]) -> list[Piece]:
        """What `tokens`, those after the last, add."""
        text = "".join(self._stream.push(token) for token in tokens)
        self._read += text
        return self._sort(self._cut.push(text))

    def end(self) -> list[Piece]:
        """What was still held back."""
        whole = self.decode(self._stream.token_ids)
        rest = whole[len(self._read) :] if whole.startswith(self._read) else ""
        pieces = self._sort(self._cut.push(rest) + self._cut.end())
        return pieces + (self._sorted(self._parts.end()) if self._parts is not None else [])

    def whole(self, tokens: Sequence[int]) -> dict[str, str]:
        """All pieces of each kind of a reply that is finished, joined; of a `ReplyPieces` that was told of no token."""
        pieces = self._sort(self._cut.push(self.decode(tokens)) + self._cut.end())
        pieces += self._sorted(self._parts.end()) if self._parts is not None else []
        return joined(pieces)

    def _sort(self, text: str) -> list[Piece]:
        if self._parts is None:
            return [("content", text)] if text else []
        return self._sorted(self._parts.push(text))

    def _sorted(self, parts: Sequence[tuple[str, str]]) -> list[Piece]:
        found: list[Piece] = []
        for part, text in parts:
            kind = "reasoning_content" if part == "thinking" else "content"
            if shown := self._trims[kind].push(text):
                found.append((kind, shown))
        return found


def joined(pieces: Sequence[Piece]) -> dict[str, str]:
    """The pieces of each kind, joined."""
    return {kind: "".join(text for k, text in pieces if k == kind) for kind in ("content", "reasoning_content")}


def token_texts(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> list[str]:
    """What each token adds to the text; joined they are all of it.

    >>> token_texts(lambda ids: bytes(ids).decode("utf-8", "replace"), "aé".encode())
    ['a', '', 'é']
    """
    stream = TextStream(decode)
    texts = [stream.push(token) for token in tokens]
    whole, joined = decode(tokens), "".join(texts)
    if texts and whole.startswith(joined):
        texts[-1] += whole[len(joined) :]
    return texts


def chat_logprobs(texts: Sequence[str], logprobs: Sequence[float], top: Sequence[Sequence[tuple[str, float]]]) -> dict:
    """`choices[].logprobs` of a chat; `top` are the likeliest of each token, (text, log-prob), or nothing."""
    rows = []
    for i, (text, logprob) in enumerate(zip(texts, logprobs, strict=True)):
        others = [_token(alternative, value) for alternative, value in (top[i] if top else ())]
        rows.append({**_token(text, logprob), "top_logprobs": others})
    return {"content": rows, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode("utf-8", "replace"))}


def text_logprobs(
    texts: Sequence[str], logprobs: Sequence[float | None], top: Sequence[Sequence[Any]], start: int = 0
) -> dict[str, Any]:
    """`choices[].logprobs` of a text; the first token of all has no log-prob (None)."""
    offsets, at = [], start
    for text in texts:
        offsets.append(at)
        at += len(text)
    likeliest = [{text: finite(value) for text, value in reversed(row)} if row else None for row in top]
    return {
        "tokens": list(texts),
        "token_logprobs": [None if value is None else finite(value) for value in logprobs],
        "top_logprobs": likeliest if top else None,
        "text_offset": offsets,
    }


def finite(value: float) -> float:
    """A log-prob as JSON has it: no infinity."""
    return max(value, -9999.0)
