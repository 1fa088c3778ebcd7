"""Math-Verify as a second judge (extra `math-verify`), for whoever must compare with it: the reward `math_verify`.

What the answer of a reply is, and whether it is a final form, temper says (docs/data.md); only whether it equals
the gold answer is Math-Verify's word. It runs in the rewards' process, which is ended where it hangs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Fault
from temper.rewards.answers import final_form, read_gold
from temper.rewards.files import find_source
from temper.rewards.worker import WORKER, Limits
from temper.types import Prompt, Reply

TIMEOUT = 10.0  # seconds for one answer: symbolic engines can go on for ever
WRITTEN = 4_000  # characters of a gold answer and an answer that are handed on


class SecondJudge:
    """1.0 where Math-Verify takes a reply's answer for the gold answer, else 0.0; 0.0 without asking where temper finds
    no answer or no final form. Raises ConfigError where the extra is not installed."""

    needs_gold = True

    def __init__(self, limits: Limits | None = None):
        if importlib.util.find_spec("math_verify") is None:
            fix = "pip install 'temper-rl[math-verify]'"
            raise ConfigError(Fault("the reward `math_verify` needs the package math-verify", fix=fix))
        given = limits or Limits()
        self.limits = replace(given, timeout=min(given.timeout, TIMEOUT))
        self.source = find_source(f"{Path(__file__).with_name('math_verify_call.py')}:equal")

    def __call__(self, prompt: Prompt, reply: Reply) -> float:
        """The verdict on one reply. Raises RewardFailure where Math-Verify fails or hangs."""
        (verdict,) = self.batch([(prompt, reply)])
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def batch(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[Any]:
        """The verdict on each reply, or the exception by which it failed."""
        found: list[Any] = [0.0] * len(pairs)
        asked = {i: item for i, pair in enumerate(pairs) if (item := _question(*pair)) is not None}
        answers = WORKER.ask(self.source, list(asked.values()), False, self.limits) if asked else []
        for i, answer in zip(asked, answers, strict=True):
            found[i] = answer if isinstance(answer, Exception) else float(answer)
        return found


def _question(prompt: Prompt, reply: Reply) -> tuple[Prompt, Reply] | None:
    """What is handed on: the gold answer and the answer alone; None where there is none."""
    if reply.answer is None or prompt.gold is None or prompt.answer_type != "math":
        return None
    answer = final_form(read_gold(prompt.gold), reply.answer, prompt.text)
    if answer is None or len(answer) + len(prompt.gold) > WRITTEN:
        return None
    bare = Prompt(prompt.id, prompt.task, (), prompt.gold)
    return bare, Reply(answer, None, answer, False)
