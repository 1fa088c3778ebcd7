"""A page over many completions: how long a view, a filter and a search take, and what the server holds in memory.

    python bench/page_index.py [--completions 1000000] [--words 60]

Makes a run directory of GRPO rollouts (2,048 a step, groups of 16), builds its index, and asks what the page asks.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from temper.report.find import sources
from temper.sealed import seal, seal_text
from temper.ui.index import Index, connect
from temper.ui.search import Filter, Reader

A_STEP, GROUP = 2048, 16


def make_run(run: Path, completions: int, words: int) -> None:
    """A run of one stage with `completions` kept rollouts, their thinking `words` words drawn from 5,000."""
    draw = random.Random(0)
    known = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    folder = run / "stages" / "01-rl" / "rollouts"
    folder.mkdir(parents=True)
    steps = -(-completions // A_STEP)
    for step in range(1, steps + 1):
        rows = (completion(draw, known, step, steps, i, words) for i in range(A_STEP))
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (folder / f"step-{step:06d}.jsonl.gz").write_bytes(gzip.compress(text, 1, mtime=0))
    recipe = f"name: big\nseed: 0\nstages:\n  rl: {{stage: grpo, model: base, max_steps: {steps}}}\n"
    (run / "recipe.resolved.yaml").write_bytes(seal_text("recipe.resolved.yaml", recipe))
    entry = {"number": 1, "kind": "grpo", "makes": "model", "fingerprint": "ab" * 16, "state": "done", "steps": steps}
    (run / "run.json").write_bytes(seal("run.json", {"recipe": "big", "state": "done", "stages": {"rl": entry}}))


def completion(draw: random.Random, known: list[str], step: int, steps: int, i: int, words: int) -> dict[str, Any]:
    right = draw.random() < 0.3 + 0.6 * step / steps
    prompt = (step * A_STEP + i) // GROUP % 20_000
    reply = f"<think>{' '.join(draw.choices(known, k=words))}</think><answer>{prompt + (not right)}</answer>"
    return {
        "step": step, "prompt_id": f"sums:{prompt}", "task": "sums", "prompt": f"What is {prompt}+0?",
        "gold": str(prompt), "reply": reply, "total": right + 0.1, "finish_reason": "stop", "tokens": len(reply) // 4,
        "rewards": {"accuracy": float(right), "format": 1.0, "length": draw.random()}, "sample": i % GROUP,
        "advantage": draw.gauss(0, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "big"
        make_run(run, args.completions, args.words)
        index = Index(run)
        tell("index", lambda: index.update(sources(run)))
        size = index.path.stat().st_size
        print(f"{index.progress.rows:,} completions, index {size / 1e6:.0f} MB")
        asks: dict[str, Callable[[Reader], Any]] = {
            "first view: what can be filtered by": Reader.facets,
            "first view: a page": lambda reader: reader.page(Filter(), 0),
            "a page far back": lambda reader: reader.page(Filter(), args.completions * 9 // 10),
            "wrong answers": lambda reader: reader.page(Filter(verdict="wrong"), 0),
            "a range of a reward, sorted": lambda reader: reader.page(
                Filter(by="length", low=0.5, high=0.6, sort="tokens"), 0
            ),
            "all, sorted": lambda reader: reader.page(Filter(sort="advantage", down=True), 0),
            "a rare word": lambda reader: reader.page(Filter(text="19997"), 0),
            "a word that all have": lambda reader: reader.page(Filter(text="what"), 0),
            "how a reward is spread": lambda reader: reader.histogram(Filter(), "length"),
            "a group": lambda reader: reader.group(args.completions // 2),
        }
        for name, ask in asks.items():
            with closing(connect(index.path)) as connection:
                tell(name, lambda ask=ask, connection=connection: ask(Reader(connection)))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def tell(name: str, work: Callable[[], Any]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{name:38} {time.process_time() - cpu:7.2f} CPU-s {time.perf_counter() - began:8.2f} s", flush=True)


if __name__ == "__main__":
    main()
