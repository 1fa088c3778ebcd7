"""What runs in the rewards' process for the reward `math_verify`: Math-Verify's comparison of two final forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temper.types import Prompt, Reply


def equal(prompt: Prompt, reply: Reply) -> float:
    """1.0 where Math-Verify finds the gold answer and the answer equal. It has no clock here: the process is ended."""
    from math_verify import parse, verify

    gold, answer = (_parsed(parse, text or "") for text in (prompt.gold, reply.answer))
    return float(bool(gold) and bool(answer) and verify(gold, answer, timeout_seconds=None))


def _parsed(parse: Callable[..., list[Any]], text: str) -> list[Any]:
    return parse(f"\\boxed{{{text}}}", parsing_timeout=None)
