"""Stop strings: a completion ends as soon as its text contains one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

PIECE = "\ufffd"  # what a piece of a character decodes to
_SLACK = 8  # characters at the start of a decoded stretch that may read otherwise than in the whole text


class StopStrings:
    """Implements `StopRule` over any tokenizer's `decode`.

    >>> rule = StopStrings(lambda ids: "".join(map(chr, ids)), ["ab", "b\\n"])
    >>> rule.ends([]), rule.ends([97, 97]), rule.ends([97, 97, 98])
    (False, False, True)
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], strings: Sequence[str]):
        """`strings` are not empty."""
        self.decode = decode
        self.strings = tuple(strings)
        self._longest = max(map(len, self.strings), default=0)
        self._can_end: dict[int, bool] = {}
        self._is_whole: dict[int, bool] = {}

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether the text of `token_ids` contains one of the strings, given that it did not before the last token."""
        if not token_ids:
            return False
        last = token_ids[-1]
        if last not in self._can_end:
            self._look_at(last)
        if not self._can_end[last] or not self._found(self._tail(token_ids)):
            return False
        return self._found(self.decode(token_ids))  # the tail alone may read otherwise

    def _found(self, text: str) -> bool:
        return any(string in text for string in self.strings)

    def _tail(self, token_ids: Sequence[int]) -> str:
        """The text of the last tokens, long enough for the longest string and begun at a whole character."""
        wanted = count = self._longest + _SLACK
        while True:
            start = max(0, len(token_ids) - count)
            while start > 0 and not self._whole(token_ids[start]):
                start -= 1
            text = self.decode(token_ids[start:])
            if start == 0 or len(text) >= wanted:
                return text
            count *= 2

    def _whole(self, token: int) -> bool:
        if token not in self._is_whole:
            self._look_at(token)
        return self._is_whole[token]

    def _look_at(self, token: int) -> None:
        """Find out, once for each token, what it adds to a text, and whether a string can end in that."""
        alone = self.decode([token])
        twice = self.decode([token, token])
        self._is_whole[token] = whole = bool(alone) and PIECE not in twice and twice.startswith(alone)
        spellings = {alone, alone.lstrip(), " " + alone, twice[len(alone) :]}
        self._can_end[token] = not whole or any(_overlap(string, text) for string in self.strings for text in spellings)


def _overlap(string: str, added: str) -> bool:
    """Whether `string` can end within `added`, the last piece of a text."""
    return string in added or any(string.endswith(added[:length]) for length in range(1, len(added) + 1))
