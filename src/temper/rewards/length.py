"""How long is the reply?"""

from __future__ import annotations

from collections.abc import Callable

from temper.types import Prompt, Reply

MOST = 1_000  # words that earn the full reward: a long page
LONGEST_WORD = 40  # characters; what is longer (text without spaces, `!!!!…`) counts character by character


def words(text: str) -> int:
    """Words between white space. A reply has no tokens here: a word is about 1.3 of them in English.

    >>> words("First 38+33=71."), words("!" * 50)
    (2, 50)
    """
    return sum(len(word) if len(word) > LONGEST_WORD else 1 for word in text.split())


def length_up_to(most: int) -> Callable[[Prompt, Reply], float]:
    """The reward `length` with another bound, for a file of your own: `brief = length_up_to(50)`."""

    def length(prompt: Prompt, reply: Reply) -> float:
        return min(1.0, words(reply.text) / most)

    return length


def length(prompt: Prompt, reply: Reply) -> float:
    """min(1, words / 1,000) of the whole reply, thinking and tags included. With a negative weight it shortens.

    It counts words, not reasoning: a policy earns it by padding. It is there to show what length alone does.

    >>> length(Prompt("1", "arithmetic", (), gold="5"), Reply("so " * 250, None, None, False))
    0.25
    """
    return _length(prompt, reply)


_length = length_up_to(MOST)
