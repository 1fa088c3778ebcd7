"""How fast programs are run and graded: `python -m bench.code [--hostile N]`. Wall seconds, and CPU seconds of this
process, of the zygotes and of the programs together: on a machine shared with others those count."""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from temper.code import Limits, Sandbox, Stdin, Tests, grade_all

ADD = "print(sum(map(int, input().split())))"
FORKS = """import os
while True:
    try:
        os.fork()
    except OSError:
        pass"""
DEAF = """import signal
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass"""
THREADS = """import threading
def fill():
    while True:
        kept.append(bytearray(1 << 20))
kept = []
for _ in range(50):
    threading.Thread(target=fill).start()"""
HOSTILE = [
    "while True: pass",
    "while True: print('x' * 1000)",
    "x = []\nwhile 1: x.append(bytearray(1 << 20))",
    FORKS,
    DEAF,
    THREADS,
]


def used() -> float:
    """CPU seconds of this process and of all that it started and that ended."""
    every = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in every)


def timed(work: Callable[[Sandbox], object]) -> tuple[float, float]:
    """Wall seconds of the work in a sandbox that was warm, and CPU seconds without those of making the sandbox."""
    before = used()
    with Sandbox() as sandbox:
        sandbox.map(lambda _: sandbox.run(ADD, b"1 2"), range(sandbox.workers))
    making, before = used() - before, used()
    with Sandbox() as sandbox:
        sandbox.map(lambda _: sandbox.run(ADD, b"1 2"), range(sandbox.workers))
        began = time.perf_counter()
        work(sandbox)
        wall = time.perf_counter() - began
    return wall, used() - before - making


def forks(count: int) -> tuple[float, float]:
    began, before = time.perf_counter(), used()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return time.perf_counter() - began, used() - before


def descendants() -> list[str]:
    """Processes below this one, by /proc."""
    below, found = {os.getpid()}, []
    stats = [file.read_text().rpartition(")") for file in Path("/proc").glob("[0-9]*/stat") if file.exists()]
    for head, _, tail in sorted(stats, key=lambda parts: int(parts[0].split(" ", 1)[0])):
        pid, parent = int(head.split(" ", 1)[0]), int(tail.split()[1])
        if parent in below:
            below.add(pid)
            found.append(f"{pid} {head.partition('(')[2]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostile", type=int, default=48, help="programs without end in the hostile step")
    hostile = parser.parse_args().hostile
    count = 200
    bare, bare_cpu = forks(count)
    one, cpu = timed(lambda sandbox: [sandbox.run(ADD, b"1 2") for _ in range(count)])
    print(f"one after another   {1000 * one / count:.2f} ms a program ({1000 * cpu / count:.2f} ms of CPU),")
    print(f"                    {1000 * bare / count:.2f} ms a bare fork ({1000 * bare_cpu / count:.2f} ms of CPU)")
    many, cpu = timed(lambda sandbox: sandbox.map(lambda _: sandbox.run(ADD, b"1 2"), range(2 * count)))
    print(f"all at a time       {2 * count / many:.0f} programs a second, {2 * count / cpu:.0f} a CPU second")
    tests = Tests(tuple(Stdin(f"{n} {n}", str(2 * n)) for n in range(10)))
    replies = [(f"```python\n{ADD}\n```", tests)] * 16
    group, cpu = timed(lambda sandbox: grade_all(replies, sandbox=sandbox))
    print(f"16 programs x 10 tests  {group:.2f} s, {cpu:.2f} s of CPU")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spin = Tests(tests.cases, Limits(1))
    bad = [(f"```python\n{HOSTILE[n % len(HOSTILE)]}\n```", spin) for n in range(hostile)]
    step, cpu = timed(lambda sandbox: grade_all(bad, sandbox=sandbox))
    print(f"{hostile} hostile programs, 1 s of CPU each at most  {step:.1f} s, {cpu:.1f} s of CPU")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(f"left behind         {len(descendants())} processes")
    print(f"most memory here    {memory / 1024:.0f} MB, {grown / 1024:.0f} MB more after the hostile step")


if __name__ == "__main__":
    main()
