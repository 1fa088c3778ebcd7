"""Characters that are hardly ever meant: what breaks text, and what hides in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Tab, line feed and carriage return are ordinary.
_ODD = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069"
_ODD += "\ufeff\ufff9-\ufffb\ufffd-\uffff\ud800-\udfff\U000e0000-\U000e007f"
_JOINERS = "\u200c\u200d"  # ordinary between two characters beyond ASCII: emoji and several scripts are written so
_BEYOND = "[^\x00-\x7f]"
ODD = re.compile(f"[{_ODD}]|(?<!{_BEYOND})[{_JOINERS}]|[{_JOINERS}](?!{_BEYOND})")
MAYBE = re.compile(f"[{_ODD}{_JOINERS}]")
BROKEN = frozenset({"NUL character", "lone surrogate"})  # tokenizers and files cannot carry these
_UNWRITABLE = BROKEN | {"replacement character"}  # of a model's reply: a piece of a character, which no one meant


def kind_of(character: str) -> str:
    r"""The family of an odd character.

    >>> kind_of("\u202e"), kind_of("\x00"), kind_of("\u200b")
    ('bidirectional control', 'NUL character', 'zero-width character')
    """
    code = ord(character)
    if code == 0:
        return "NUL character"
    if 0xD800 <= code <= 0xDFFF:
        return "lone surrogate"
    if code in (0x61C, 0x200E, 0x200F) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069:
        return "bidirectional control"
    if code == 0xFFFD:
        return "replacement character"
    if code < 0xA0:
        return "control character"
    if code in (0xFFFE, 0xFFFF):
        return "noncharacter"
    return "tag character" if code >= 0xE0000 else "zero-width character"


def suspicious(text: str) -> bool:
    """Whether a closer look is worth its time."""
    return MAYBE.search(text) is not None


def odd_characters(text: str) -> Iterator[tuple[str, str]]:
    r"""(kind, code point) of the odd characters, the first of each kind.

    >>> list(odd_characters("ab\u202ec\u202d\x07"))
    [('bidirectional control', 'U+202E'), ('control character', 'U+0007')]
    """
    seen: set[str] = set()
    for match in ODD.finditer(text):
        kind = kind_of(match.group())
        if kind not in seen:
            seen.add(kind)
            yield kind, f"U+{ord(match.group()):04X}"


def is_writable(text: str) -> bool:
    r"""Whether a text that a model wrote can stand in a data file: it says something, no character breaks the row, and
    none is a piece of one (U+FFFD, which tokens of bytes that make no character decode to).

    >>> is_writable("4"), is_writable("4\ufffd"), is_writable("4\x00"), is_writable(" ")
    (True, False, False, False)
    """
    return bool(text.strip()) and _UNWRITABLE.isdisjoint(kind for kind, _ in odd_characters(text))
