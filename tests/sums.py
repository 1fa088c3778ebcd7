"""A task and a reward with which an untrained model's replies differ, for runs of a few seconds."""

from __future__ import annotations

import json
from pathlib import Path


def write_recipe(folder: Path, text: str) -> Path:
    """The recipe `text`, beside it `sums.jsonl` and the reward `mine.py:vowels`."""
    rows = [{"question": f"What is {a} + {a + 1}?", "answer": str(2 * a + 1)} for a in range(2, 8)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "mine.py").write_text("def vowels(prompt, reply): return sum(map(reply.text.count, 'aeiou')) / 10")
    (folder / "my.yaml").write_text(text)
    return folder / "my.yaml"


def kept_replies(run: Path) -> list[str]:
    """What a run kept of its rollouts, in order."""
    from temper.record.rollouts import read_rows

    files = sorted(run.glob("stages/*/rollouts/*.gz"))
    return [row["reply"] for file in files for row in read_rows(file)]
