"""What a reward model is shown: a prompt and a reply, or the part of it that it judges, as tokens to be asked at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from temper.data.conversations import Conversation
from temper.models.reward_card import Reads
from temper.text.chat import ChatFormat
from temper.text.reply import final_text, parse_reply
from temper.train.scores import AskedExample
from temper.types import Reply


def part_read(reply: Reply, reads: Reads) -> str | None:
    """The part of a reply that is judged: all of it, or what it says once it has thought; None where it says nothing.

    >>> part_read(parse_reply("<think>2+3=5</think><answer>5</answer>"), "answer")
    '5'
    """
    return reply.text if reads == "whole" else final_text(reply)


def part_of(text: str, reads: Reads) -> str | None:
    """`part_read` of a reply's text as it stands in a file of training rows."""
    return text if reads == "whole" else part_read(parse_reply(text), reads)


def text_examples(chat: ChatFormat, prompts: Sequence[Conversation], replies: Sequence[str]) -> list[AskedExample]:
    """One number is asked for each reply, at its end token. Raises DataError.

    More exactly at the last token that is not the padding token, where transformers' own classification models look:
    where replies end with the padding token it is the one before.
    """
    examples = []
    for prompt, pieces in chat.replies_ids(prompts, [[reply] for reply in replies]):
        ids = (*prompt, *pieces[0], chat.end_id)
        last = next((i for i in reversed(range(len(ids))) if ids[i] != chat.pad_id), 0)
        examples.append(AskedExample(ids, _mask(len(prompt), len(ids)), (last,)))
    return examples


def step_examples(
    chat: ChatFormat, prompts: Sequence[Conversation], replies: Sequence[Sequence[str]]
) -> list[AskedExample]:
    """One number is asked for each step of each reply, at the step's last token. Raises DataError.

    `replies` are steps as they stand, separators included. A step is encoded by itself, so that no token reaches into
    the next: what is said of it is the same wherever the reply is cut after it.
    """
    examples = []
    for prompt, pieces in chat.replies_ids(prompts, replies):
        ids = (*prompt, *(token for piece in pieces for token in piece), chat.end_id)
        ends = accumulate((len(piece) for piece in pieces), initial=len(prompt) - 1)
        examples.append(AskedExample(ids, _mask(len(prompt), len(ids)), tuple(ends)[1:]))
    return examples


def _mask(prompt: int, length: int) -> tuple[bool, ...]:
    return (False,) * prompt + (True,) * (length - prompt)
