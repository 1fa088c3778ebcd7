"""Rows and replies that the tests of the rewards share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import settings

from temper.rewards.accuracy import accuracy
from temper.text.reply import parse_reply
from temper.types import AnswerType, Message, Prompt

QUICK = settings(deadline=None)  # a busy machine is no failure
DATA = Path(__file__).parent / "data"
THINKING = "<think>We work it out step by step and check the result.</think>"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def prompt(
    gold: str, text: str = "What is the value?", answer_type: AnswerType = "math", language: str = "en"
) -> Prompt:
    return Prompt("1", "test", (Message("user", text),), gold, answer_type, language)


def answered(answer: str) -> str:
    return f"{THINKING}<answer>{answer}</answer>"


def right(gold: str, answer: str) -> bool:
    """Whether an answer in a well-formed reply is the gold answer."""
    return accuracy(prompt(gold), parse_reply(answered(answer))) == 1.0
