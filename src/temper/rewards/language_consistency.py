"""Is the thinking in one language?"""

from __future__ import annotations

from temper.text.languages import language_share
from temper.types import Prompt, Reply


def language_consistency(prompt: Prompt, reply: Reply) -> float:
    """The share of words of the prompt's language in the thinking (DeepSeek-R1 2501.12948, section 2.3.2), in 0…1; 0.0
    without thinking, or where no word's language can be told. Of a plain reply, all is looked at.

    Raises ValueError for a language that `text/languages.py` does not know.

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "38+33-49"),), gold="22", language="en")
    >>> language_consistency(prompt, parse_reply("<think>First 38+33=71. Dann 71-49=22.</think><answer>22</answer>"))
    0.5
    """
    return language_share(reply.reasoning, prompt.language) if reply.reasoning else 0.0
