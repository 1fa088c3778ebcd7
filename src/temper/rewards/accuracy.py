"""Is the answer right?"""

from __future__ import annotations

from functools import lru_cache

from temper.rewards.values import Value, parse_answer, parse_gold, same_value
from temper.types import Prompt, Reply


def accuracy(prompt: Prompt, reply: Reply) -> float:
    r"""1.0 if the reply's answer is the gold answer, else 0.0: exact values for "math", for "text" the same words up to
    case and white space.

    Raises ValueError where a "math" gold is no final form; data files are checked for that when they are read.

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "What is 0.25 + 0.25?"),), gold="0.5")
    >>> [accuracy(prompt, parse_reply(f"<think>Add.</think><answer>{answer}</answer>"))
    ...  for answer in (r"\boxed{\frac{1}{2}}", "0.25 + 0.25", "0.5 or 0.4")]
    [1.0, 0.0, 0.0]
    """
    if reply.answer is None:
        return 0.0
    if prompt.answer_type == "text":
        return float(_words(reply.answer) == _words(prompt.gold) != "")
    gold = _gold(prompt.gold)
    answer = parse_answer(reply.answer, prompt.text)
    return float(answer is not None and same_value(gold, answer))


@lru_cache(maxsize=4096)
def _gold(text: str) -> Value:
    return parse_gold(text)  # the same for every sample of a prompt


def _words(text: str) -> str:
    return " ".join(text.casefold().split())
