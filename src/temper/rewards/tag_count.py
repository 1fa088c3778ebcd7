"""How many of the four tags are there?"""

from __future__ import annotations

from temper.text.reply import CLOSE_THINK, OPEN_THINK, TAGS
from temper.types import Prompt, Reply


def tag_count(prompt: Prompt, reply: Reply) -> float | None:
    """¼ for each of `<think>`, `</think>`, `<answer>`, `</answer>` that occurs exactly once, wherever it stands.

    It counts tags, not reasoning: partial credit on the way to `format`. Of the reply form `think` there are two, ½
    each; of `plain` none, and the reward does not apply (None).

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "2+3"),), gold="5")
    >>> tag_count(prompt, parse_reply("<think>2+3=5</think> 5")), tag_count(prompt, parse_reply("<think><think>"))
    (0.5, 0.0)
    """
    if reply.form == "plain":
        return None
    tags = TAGS if reply.form == "tags" else (OPEN_THINK, CLOSE_THINK)
    return sum(reply.text.count(tag) == 1 for tag in tags) / len(tags)
