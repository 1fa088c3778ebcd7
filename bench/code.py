"""How fast programs are run and graded: `python -m bench.code`. Wall seconds, and CPU seconds of all processes."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable

from temper.code import Limits, Sandbox, Stdin, Tests, grade_all

ADD = "print(sum(map(int, input().split())))"


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process; those of the programs are their zygotes'."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


def forks(count: int) -> None:
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def main() -> None:
    with Sandbox() as sandbox:
        sandbox.run(ADD, b"1 2")
        count = 200
        bare, _ = timed(lambda: forks(count))
        one, cpu = timed(lambda: [sandbox.run(ADD, b"1 2") for _ in range(count)])
        print(f"one after another   {1000 * one / count:.2f} ms a program, {1000 * bare / count:.2f} ms a bare fork")
        print(f"  of it here        {1000 * cpu / count:.2f} ms of CPU")
        many, _ = timed(lambda: sandbox.map(lambda _: sandbox.run(ADD, b"1 2"), range(2 * count)))
        print(f"{sandbox.workers} at a time         {2 * count / many:.0f} programs a second")
        tests = Tests(tuple(Stdin(f"{n} {n}", str(2 * n)) for n in range(10)))
        group, _ = timed(lambda: grade_all([(f"```python\n{ADD}\n```", tests)] * 16, sandbox=sandbox))
        print(f"16 programs x 10 tests  {group:.2f} s")
        spin = Tests(tests.cases, Limits(1, 1))
        hostile = ["while True: pass", "while True: print('x' * 1000)", "x = []\nwhile 1: x.append(bytearray(1 << 20))"]
        replies = [(f"```python\n{hostile[n % 3]}\n```", spin) for n in range(48)]
        step, _ = timed(lambda: grade_all(replies, sandbox=sandbox))
        print(f"48 hostile programs, 1 s each at most  {step:.1f} s")
        print(f"most memory here    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
