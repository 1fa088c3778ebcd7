"""Instructions that the hot loops in C take, counted by Valgrind: other work on the machine changes nothing of it.

    python bench/instructions.py            # beside what bench/instructions.json holds; code 1 where one grew by 5 %
    python bench/instructions.py --write    # put these there

Compiled for x86-64-v3 (AVX2), which Valgrind can run, whatever the processor. A count depends on the compiler, so
counts are held against those of the same compiler only.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KERNELS = HERE.parent / "src/temper/kernels"
COUNTS = HERE / "instructions.json"
FLAGS = ("-O3", "-march=x86-64-v3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
GROWTH = 1.05
# name: the loop of hot_loops.c, and its rows
LOOPS = {
    "16 decode steps, 1 row": ("STEP", 1),
    "16 decode steps, 4 rows": ("STEP", 4),
    "16 decode steps, 12 rows": ("STEP", 12),
    "attention of a group, forward and backward": ("ATTEND", 17),
    "four layers of a group, forward and backward": ("TRUNK", 17),
    "the head, forward and backward, 512 targets": ("HEAD", 512),
    "a layer between its products, 512 tokens": ("LAYERS", 512),
}


def possible() -> str:
    """Why nothing can be counted here; "" where it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "not an x86-64 machine"
    return next((f"no {tool} here" for tool in ("gcc", "valgrind") if shutil.which(tool) is None), "")


def compiler() -> str:
    said = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return f"gcc {said.stdout.strip()}"


def count_all() -> dict[str, int]:
    """Instructions of one call of each loop."""
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        return {name: _count(Path(folder), *loop) for name, loop in LOOPS.items()}


def _count(folder: Path, loop: str, rows: int) -> int:
    program = folder / loop.lower()
    if not program.exists():
        source = [str(HERE / "hot_loops.c"), f"-I{KERNELS}", f"-D{loop}", "-w"]
        subprocess.run(["gcc", *FLAGS, *source, "-o", str(program), "-lm"], check=True)
    once, twice = (_instructions(program, times, rows) for times in (1, 2))
    return twice - once


def _instructions(program: Path, times: int, rows: int) -> int:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, str(program), str(times), str(rows)], capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def kept() -> dict[str, int]:
    """What is held against; empty for another compiler."""
    held = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    return held.get(compiler(), {})


def grown(counts: dict[str, int], before: dict[str, int]) -> list[str]:
    """The loops that take over 5 % more than before.

    >>> grown({"a": 106, "b": 104, "c": 1}, {"a": 100, "b": 100})
    ['a: 100 → 106']
    """
    more = (name for name in counts if name in before and counts[name] > GROWTH * before[name])
    return [f"{name}: {before[name]:,} → {counts[name]:,}" for name in more]


def main() -> int:
    parser = argparse.ArgumentParser(description="instructions of the hot loops")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if why := possible():
        print(f"nothing is counted: {why}", file=sys.stderr)
        return 9
    counts, before = count_all(), kept()
    for name, count in counts.items():
        told = f", {count / before[name] - 1:+.1%}" if name in before else ""
        print(f"{name:<45} {count:>12,}{told}")
    if given.write:
        held = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
        COUNTS.write_text(json.dumps({**held, compiler(): counts}, indent=1) + "\n")
        return 0
    for line in (worse := grown(counts, before)):
        print(f"grew by over 5 %: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
