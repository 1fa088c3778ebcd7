"""Does the reply have the form that was asked for?"""

from __future__ import annotations

from temper.types import Prompt, Reply


def format(prompt: Prompt, reply: Reply) -> float:
    """1.0 if the reply is exactly `<think>…</think>` then `<answer>…</answer>`, both with a word or a number, nothing
    but white space around them and no tag inside another; else 0.0.

    Under the reply form `think`, 1.0 where one `</think>` has a word or a number on either side, and nothing stands
    before a `<think>`; under `plain`, where the reply holds one and no tag (`text/reply.py` reads the form).

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "2+3"),), gold="5")
    >>> format(prompt, parse_reply("<think>2+3=5</think><answer>5</answer>"))
    1.0
    >>> format(prompt, parse_reply("<think>2+3=5</think><answer>5</answer> Done."))
    0.0
    """
    return float(reply.well_formed)
