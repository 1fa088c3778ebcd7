"""Does the reply keep clear of words that its row forbids?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from temper.types import Prompt, Reply

COLUMN = "forbidden_words"


def forbidden_words(prompt: Prompt, reply: Reply) -> float | None:
    """1.0 if none of the words in the row's column `forbidden_words` stands in the reply, thinking included, else 0.0;
    None where the row forbids none. Case does not count, and a word in another word is not that word (IFEval's
    instruction of this name, 2311.07911).

    >>> from temper.text.reply import parse_reply
    >>> prompt = Prompt("1", "talk", (), gold=None, row={"forbidden_words": ["fool", "dummy"]})
    >>> forbidden_words(prompt, parse_reply("Only a Fool asks.")), forbidden_words(prompt, parse_reply("Foolproof."))
    (0.0, 1.0)
    """
    words = forbidden_in(prompt.row.get(COLUMN))
    if not words:
        return None
    text = reply.text.casefold()
    return float(not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in words))


def forbidden_in(column: Any) -> Sequence[str]:
    """The words of a column: a list of texts, or one text. Raises ValueError for anything else.

    >>> forbidden_in(["Fool", " "]), forbidden_in("dummy"), forbidden_in(None)
    (['fool'], ['dummy'], [])
    """
    given = [column] if isinstance(column, str) else [] if column is None else column
    if not isinstance(given, Sequence) or not all(isinstance(word, str) for word in given):
        raise ValueError(f"`{COLUMN}` is no list of words")
    return [word.strip().casefold() for word in given if word.strip()]
