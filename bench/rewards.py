"""What the process of a user's rewards costs: a function of a file beside the same function called here.

Usage: python bench/rewards.py [REPLIES] [CHARACTERS]      one JSON object on standard output, times in milliseconds
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temper.rewards import load_rewards
from temper.rewards.score import Scorer
from temper.text.reply import parse_reply
from temper.types import Message, Prompt

CODE = """
def alone(prompt, reply):
    return float(prompt.gold in reply.text)

def columns(prompts, completions, gold, **_):
    return [float(answer in text) for answer, text in zip(gold, completions)]
"""
REPEATS = 15


def measure(replies: int, characters: int) -> dict[str, float]:
    thought = "So we add the numbers once more. " * (characters // 33)
    pairs = [
        (Prompt(f"{i // 16}", "t", (Message("user", "2+3?"),), "5", row={"nums": [2, 3]}), parse_reply(f"{thought}{i}"))
        for i in range(replies)
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mine.py").write_text(CODE, encoding="utf-8")
        began = time.perf_counter()
        loaded = load_rewards(["mine.py:alone", "mine.py:columns"], Path(folder))
        found = {"start": (time.perf_counter() - began) * 1e3}
        here = {"here": lambda prompt, reply: float(prompt.gold in reply.text)}
        for name, reward in {**here, **loaded}.items():
            found[name] = _median(Scorer({name: reward}).score_all, pairs)
    return found


def _median(call: Callable[[Any], object], asked: Any) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call(asked)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[1:3]] or [512, 4000]
    print(json.dumps({name: round(value, 2) for name, value in measure(*sizes).items()}))
