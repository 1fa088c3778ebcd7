"""Does the reply go round in circles?"""

from __future__ import annotations

from temper.types import Prompt, Reply

NGRAM = 3  # words; Open-R1's setting
MAX_CHARACTERS = 16_384  # loops stand at the end of a reply: so much of it is looked at, which bounds the time
LONGEST_WORD = 40  # characters; what is longer (text without spaces, `!!!!…`) is read character by character


def repetition_penalty(prompt: Prompt, reply: Reply) -> float:
    """0.0 where no three words in a row occur twice, falling to −1.0 with the share of those that do
    (unique 3-grams / 3-grams − 1; Open-R1, after 2502.03373).

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "2+3"),), gold="5")
    >>> repetition_penalty(prompt, parse_reply("<think>2+3 is 5</think><answer>5</answer>"))
    0.0
    >>> repetition_penalty(prompt, parse_reply("wait wait wait wait wait"))
    -0.6666666666666667
    """
    words: list[str] = []
    for word in reply.text[-MAX_CHARACTERS:].casefold().split():
        words.extend(word if len(word) > LONGEST_WORD else (word,))
    grams = list(zip(*(words[i:] for i in range(NGRAM)), strict=False))
    return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
