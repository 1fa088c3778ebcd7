"""Is a right answer short, and a wrong one at least thought about?"""

from __future__ import annotations

import math
from collections.abc import Callable

from temper.rewards.accuracy import accuracy
from temper.rewards.length import MOST, words
from temper.types import Prompt, Reply

# Open-R1's values; the paper scales by the same form with others. A reply of `MOST` words or more fares as the worst.
RIGHT = (1.0, 0.5)  # of a right reply of no length, of one as long as may be
WRONG = (-1.0, -0.5)
TOO_LONG = -1.0


def cosine_length_up_to(
    most: int, right: tuple[float, float] = RIGHT, wrong: tuple[float, float] = WRONG, too_long: float = TOO_LONG
) -> Callable[[Prompt, Reply], float]:
    """The reward `cosine_length` with other values, for a file of your own: `scaled = cosine_length_up_to(200)`."""

    def cosine_length(prompt: Prompt, reply: Reply) -> float:
        share = words(reply.text) / most
        if share >= 1:
            return too_long
        begin, end = right if accuracy(prompt, reply) == 1.0 else wrong
        return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2

    return cosine_length


def cosine_length(prompt: Prompt, reply: Reply) -> float:
    """Right: from 1.0 (short) down to 0.5 (1,000 words); wrong: from −1.0 (short) up to −0.5; −1.0 from 1,000 words on;
    between them half a cosine (Demystifying Long Chain-of-Thought 2502.03373, "cosine reward").

    The length is that of the whole reply in words, where the paper counts tokens. Raises ValueError as `accuracy` does.

    >>> from temper.text.reply import parse_reply
    >>> prompt = Prompt("1", "arithmetic", (), gold="5", answer_type="text")
    >>> def reply(words, answer):
    ...     return parse_reply(f"<think>{'so ' * (words - 1)}</think><answer>{answer}</answer>")
    >>> [round(cosine_length(prompt, reply(500, answer)), 9) for answer in ("5", "6")]
    [0.75, -0.75]
    >>> cosine_length(prompt, reply(1000, "5"))
    -1.0
    """
    return _cosine_length(prompt, reply)


_cosine_length = cosine_length_up_to(MOST)
