"""Is the thinking laid out in steps?"""

from __future__ import annotations

import re
from itertools import pairwise

from temper.types import Prompt, Reply

ENOUGH = 3  # steps that earn the full reward (Open-R1)
MAX_CHARACTERS = 16_384  # of the thinking, from its start: steps show early, and the time is bounded

_WORDS = (
    "first|firstly|second|secondly|third|thirdly|next|then|after that|afterwards|finally|lastly|"
    "zuerst|zunächst|erstens|zweitens|drittens|dann|danach|anschließend|als nächstes|schließlich|zuletzt"
)
# A step begins a line ("Step 2:", "2.", "- ", "## ") or a sentence ("Next, …"). Every repeat is bounded: linear time.
_MARKER = re.compile(
    r"^[ \t]{0,8}(?:(?:\*\*)?(?:step|schritt)[ \t]{0,4}[0-9]{1,3}\b|[0-9]{1,3}[.)](?![0-9])|[-*•+][ \t]|#{1,6}[ \t])"
    rf"|(?:^|(?<=[.!?:;]))[ \t]{{0,8}}(?:{_WORDS})\b",
    re.IGNORECASE | re.MULTILINE,
)
_CONTENT = re.compile(r"[^\W_]")


def reasoning_steps(prompt: Prompt, reply: Reply) -> float:
    """min(1, steps / 3) of the thinking: steps begin with "Step n", a number, a bullet or a heading at the start of a
    line, or with a word such as First, Next, Then, Finally (zuerst, dann, schließlich) at the start of a sentence.

    A marker counts when something is said before the next one; no thinking, no steps. Of a plain reply, all is looked
    at.

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "38+33-49"),), gold="22")
    >>> thinking = "First 38+33=71. Then 71-49=22. Finally, the result is 22."
    >>> reasoning_steps(prompt, parse_reply(f"<think>{thinking}</think><answer>22</answer>"))
    1.0
    >>> reasoning_steps(prompt, parse_reply("<think>First. Then. Finally.</think><answer>22</answer>"))
    0.0
    """
    thinking = (reply.reasoning or "")[:MAX_CHARACTERS]
    steps = 0
    for begin, end in pairwise(_ends(thinking)):
        steps += _CONTENT.search(thinking, begin[1], end[0]) is not None
        if steps == ENOUGH:
            break
    return steps / ENOUGH


def _ends(thinking: str) -> list[tuple[int, int]]:
    """(start, end) of each marker, and of the text's end."""
    return [*(found.span() for found in _MARKER.finditer(thinking)), (len(thinking), len(thinking))]
