"""Is the answer right?"""

from __future__ import annotations

from collections.abc import Hashable

from temper.rewards.answers import answer_of, read_gold
from temper.types import Prompt, Reply


def accuracy(prompt: Prompt, reply: Reply) -> float:
    r"""1.0 if the reply's answer is the gold answer, else 0.0. "math" compares exactly, by the kind of the gold answer
    (`rewards/answers/`): numbers, expressions, intervals, sets, matrices, units, choices, a few words. "text" compares
    the words up to case and white space.

    Raises ValueError where there is no gold answer, or a "math" one cannot be verified; data files are checked for that
    when they are read.

    >>> from temper.text.reply import parse_reply
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "arithmetic", (Message("user", "What is 0.25 + 0.25?"),), gold="0.5")
    >>> [accuracy(prompt, parse_reply(f"<think>Add.</think><answer>{answer}</answer>"))
    ...  for answer in (r"\boxed{\frac{1}{2}}", "0.25 + 0.25", "0.5 or 0.4")]
    [1.0, 0.0, 0.0]
    """
    if prompt.gold is None:
        raise ValueError("the prompt has no gold answer")
    if reply.answer is None:
        return 0.0
    if prompt.answer_type == "text":
        return float(_words(reply.answer) == _words(prompt.gold) != "")
    answer = answer_of(read_gold(prompt.gold), reply.answer, prompt.text)
    return float(answer is not None and answer.right)


def vote(prompt: Prompt, reply: Reply) -> Hashable | None:
    r"""What a majority over replies counts: replies with equal votes gave the same answer, whatever their order; None
    for a reply without one. In the light of the gold answer, so that `x = 5` and `5` are one where it is `x = 5`.

    >>> from temper.text.reply import parse_reply
    >>> prompt = Prompt("1", "t", (), gold="x = 5")
    >>> x, plain, y = (vote(prompt, parse_reply(f"<think>so</think><answer>{a}</answer>")) for a in ("x=5", "5", "y=5"))
    >>> x == plain, x == y
    (True, False)
    """
    if reply.answer is None:
        return None
    if prompt.answer_type == "text":
        return _words(reply.answer) or None
    return answer_of(read_gold(prompt.gold), reply.answer, prompt.text if prompt.messages else "")


def _words(text: str) -> str:
    return " ".join(text.casefold().split())
