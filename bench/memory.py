"""Whether memory grows, or anything is compiled again, over many GRPO steps of ever other lengths.

    python bench/memory.py [--steps 500] [--compile] [--json]

One process takes the steps of temper's side of `bench/run.py`; after each it is read what the process holds that is no
file's, and what its sampler processes hold alone: figures that no other process of the machine can change. The last
line of standard output is one JSON object; the exit code is 1 if memory grew by more than a hundredth from the second
tenth of the steps to the last, or if a graph was compiled after the first.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from child import Job
from processes import cpu_seconds
from random_model import write_model
from session import check_machine, cores, main_of, say
from workloads import add_fields, chosen, names

from temper.record.cost import children_bytes

WINDOWS = 10
ALLOWED = 0.01  # growth that an allocator's rounding may show
SMALL = ["--prompts", "8", "--group", "8", "--layers", "2"]  # 64 completions: the fewest that two processes share


@dataclass
class Watched(Job):
    """A job that keeps the memory in use and the graphs compiled after each step."""

    memory: list[int] = field(default_factory=list)
    graphs: list[int] = field(default_factory=list)

    def end_step(self, number: int, tokens: int) -> None:
        self.memory.append(held_bytes())
        self.graphs.append(compiled_graphs())
        if (number + 1) % max(1, self.steps // WINDOWS) == 0:
            say(f"  step {number + 1}: {self.memory[-1] / 1e6:.1f} MB, {self.graphs[-1]} graphs")


def held_bytes() -> int:
    """Anonymous memory of this process, and the private memory of its children."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) + children_bytes()


def compiled_graphs() -> int:
    """Graphs that torch.compile has made so far in this process, again for other shapes included."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])


def windows_of(values: Sequence[int], count: int = WINDOWS) -> list[int]:
    """The least of each of `count` equal parts: what one step's lengths took is gone in another, what leaks is not.

    >>> windows_of([1, 2, 9, 4, 5, 4], 2)
    [1, 4]
    """
    size = len(values) // count
    return [min(values[start : start + size]) for start in range(0, count * size, size)]


def judge(memories: Sequence[int], graphs: Sequence[int]) -> dict[str, Any]:
    """The verdict; the first window warms up and is only shown."""
    windows = windows_of(memories)
    warm = len(graphs) // WINDOWS
    growth = windows[-1] - windows[1]
    recompiled = graphs[-1] - graphs[warm - 1]
    return {
        "windows_bytes": windows,
        "growth_bytes": growth,
        "growth_share": growth / windows[1],
        "graphs": graphs[-1],
        "graphs_after_first_window": recompiled,
        "steady": growth <= ALLOWED * windows[1] and recompiled == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="memory and compilations over many GRPO steps")
    parser.add_argument("--workload", choices=names(), default="cpu-ragged", metavar="NAME", help="(cpu-ragged)")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help=f"at least {2 * WINDOWS} (500)")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N", help=f"({cores()})")
    parser.add_argument("--json", action="store_true", help="the JSON line alone on standard output")
    add_fields(parser)
    given = parser.parse_args([*SMALL, *sys.argv[1:]])
    if given.steps < 2 * WINDOWS:
        parser.error(f"--steps must be at least {2 * WINDOWS}")
    given.rounds = 1
    work = chosen(given.workload, given)
    check_machine(work, [], given)
    import temper_step
    import torch

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        model = Path(folder) / "model"
        write_model(work, model)
        job = Watched(work, model, given.steps - 1, False, False, "", io.StringIO())
        temper_step.run_steps(job)
    found = judge(job.memory, job.graphs)
    if not given.json:
        print("least MB of each tenth:  " + "  ".join(f"{value / 1e6:.1f}" for value in found["windows_bytes"]))
        print(f"growth {found['growth_bytes'] / 1e6:+.1f} MB ({found['growth_share']:+.2%}), {found['graphs']} graphs, "
              f"{found['graphs_after_first_window']} of them after the first window")  # fmt: skip
    line = {"workload": given.workload, "steps": given.steps, **found, "cpu_seconds": cpu_seconds(os.getpid())}
    print(json.dumps({**line, "config": asdict(work)}))
    sys.exit(0 if found["steady"] else 1)


if __name__ == "__main__":
    main_of(main)
