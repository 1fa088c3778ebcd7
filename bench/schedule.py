"""A run's schedule on paper: samplers and trainers, long tails, staleness. Prints the tables of docs/scale.md.

    python bench/schedule.py                                # on paper, from 8 to 512 devices
    python bench/schedule.py --run runs/mine/stages/02-rl   # what one step off would make of a run that took turns

Completions are dealt to samplers, each of which decodes up to `rows` at once: a decode step gives each row a token and
takes `base` seconds, and `row` more for every row. A place that falls free takes the next completion, of the next step
where the bound on staleness allows it: step n is drawn with weights that have seen at least n − k updates. An update
takes `token` seconds a token over the trainers; weights take `transfer` seconds, in which samplers stand still.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Lengths = Callable[[int], Sequence[int]]  # of the completions of a step, in tokens


@dataclass(frozen=True)
class Machines:
    samplers: int
    trainers: int
    rows: int = 256
    base: float = 0.012  # seconds of a decode step, however few its rows: the weights are read
    row: float = 2e-5
    token: float = 1.3e-4  # seconds of one trainer, forward and backward
    transfer: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """Seconds a step; the shares of the time in which samplers and trainers wait; and how many updates the oldest
    weights were behind, of those that a completion was begun with, when it was trained on."""

    seconds: float
    sampler_idle: float
    trainer_idle: float
    staleness: int


@dataclass
class Sampler:
    """Rows that get their tokens together."""

    machines: Machines
    clock: float = 0.0
    ticks: float = 0.0  # decode steps so far
    busy: float = 0.0
    rows: list[tuple[float, int]] = field(default_factory=list)  # (the tick it ends at, its step), a heap

    @property
    def pace(self) -> float:
        return self.machines.base + self.machines.row * len(self.rows)

    @property
    def next_end(self) -> float:
        return self.clock + max(0.0, self.rows[0][0] - self.ticks) * self.pace if self.rows else math.inf

    def move_to(self, now: float) -> None:
        """A clock ahead of `now` stands still until then."""
        if now <= self.clock:
            return
        if self.rows:
            self.ticks += (now - self.clock) / self.pace
            self.busy += now - self.clock
        self.clock = now

    def ended(self) -> list[int]:
        """The steps of the rows that are done."""
        found = []
        while self.rows and self.rows[0][0] <= self.ticks + 1e-6:
            found.append(heapq.heappop(self.rows)[1])
        return found


def simulate(
    lengths: Lengths, steps: int, machines: Machines, staleness: int = 0, training: Sequence[float] | None = None
) -> Outcome:
    """`steps` steps whose completions are as long as `lengths` says; updates may be given as `training`, in seconds.

    Completions of 10 and 30 tokens, a second a token, and an update of 40 tokens in 40 seconds: in turns a step takes
    70 seconds; one step off the longer of the two, and the first draw.

    >>> plain = Machines(1, 1, rows=2, base=1.0, row=0.0, token=1.0, transfer=0.0)
    >>> [simulate(lambda n: [10, 30], 10, plain, k) for k in (0, 1)]  # doctest: +NORMALIZE_WHITESPACE
    [Outcome(seconds=70.0, sampler_idle=0.571, trainer_idle=0.429, staleness=0),
     Outcome(seconds=43.0, sampler_idle=0.326, trainer_idle=0.07, staleness=1)]
    """
    pool = [Sampler(machines) for _ in range(machines.samplers)]
    waiting = deque((n, length) for n in range(steps) for length in lengths(n))
    left, tokens = [0] * steps, [0] * steps
    for n, length in waiting:
        left[n] += 1
        tokens[n] += length
    ends: list[tuple[float, int, float]] = []  # (when its first row is done, the sampler, its ticks when that was said)
    updates, oldest, now, trained, ready = 0, 0, 0.0, 0.0, math.inf
    changed = set(range(len(pool)))
    while updates < steps:
        room = [(len(pool[i].rows), i) for i in changed]
        heapq.heapify(room)
        while waiting and waiting[0][0] <= updates + staleness and room[0][0] < machines.rows:
            n, length = waiting.popleft()
            rows, i = room[0]
            heapq.heappush(pool[i].rows, (pool[i].ticks + length, n))
            heapq.heapreplace(room, (rows + 1, i))
            oldest = max(oldest, n - updates)
        for i in changed:
            heapq.heappush(ends, (pool[i].next_end, i, pool[i].ticks))
        if ready == math.inf and not left[updates]:
            own = tokens[updates] * machines.token / machines.trainers
            seconds = own if training is None else training[updates]
            ready, trained = now + seconds, trained + seconds
        while pool[ends[0][1]].ticks != ends[0][2] or pool[ends[0][1]].next_end != ends[0][0]:
            heapq.heappop(ends)  # said before others joined it
        if ready <= ends[0][0]:
            now, updates, ready = ready + machines.transfer, updates + 1, math.inf
            for sampler in pool:
                sampler.move_to(now - machines.transfer)
                sampler.clock = max(sampler.clock, now)  # it stands still
            changed = set(range(len(pool)))
            continue
        now, i, _ = heapq.heappop(ends)
        pool[i].move_to(now)
        for n in pool[i].ended():
            left[n] -= 1
        changed = {i}
    busy = sum(sampler.busy for sampler in pool) / len(pool)
    return Outcome(round(now / steps, 4), round(1 - busy / now, 3), round(1 - trained / now, 3), oldest)


def long_tailed(prompts: int, samples: int, mean: float, spread: float, most: int, seed: int = 0) -> Lengths:
    """Log-normal lengths, `spread` the standard deviation of their logarithm, cut off at `most`."""

    def of_step(step: int) -> list[int]:
        draw = random.Random(f"{seed} {step}")
        middle = math.log(mean) - spread**2 / 2
        return [max(1, min(most, round(draw.lognormvariate(middle, spread)))) for _ in range(prompts * samples)]

    return of_step


# -- on paper ---------------------------------------------------------------------------------------------------------


def curves(steps: int = 12) -> str:
    """A 7B policy: 64 prompts × 16 completions of 8,000 tokens on average, 32,768 at most. In turns all devices sample,
    then train; apart, the best of some splits."""
    lengths = long_tailed(64, 16, 8000, 0.8, 32768)
    lines = ["| devices | in turns, all for both | one step off | four steps off | gain of one | gain of four |"]
    lines.append("|---|---|---|---|---|---|")
    for devices in (8, 16, 32, 64, 128):
        turns = simulate(lengths, steps, Machines(devices, devices)).seconds
        apart = [_best(lengths, steps, devices, k).seconds for k in (1, 4)]
        cells = [f"{turns:.0f} s", *(f"{seconds:.0f} s" for seconds in apart)]
        cells += [f"{turns / seconds:.2f} ×" for seconds in apart]
        lines.append(f"| {devices} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(lengths: Lengths, steps: int, devices: int, staleness: int) -> Outcome:
    splits = {max(1, round(devices * share)) for share in (0.25, 0.5, 0.625, 0.75, 0.875)} - {devices}
    found = [simulate(lengths, steps, Machines(samplers, devices - samplers), staleness) for samplers in splits]
    return min(found, key=lambda one: one.seconds)


# Published: a step in turns; one step off what sampling took by itself, what training took, and a step (all seconds)
PUBLISHED = (
    ("verl, 7B on 16 H20, FSDP2", 749, 458, 108 + 337, 520),
    ("verl, 7B on 16 H20, Megatron", 699, 501, 120 + 347, 566),
)  # https://verl.readthedocs.io/en/latest/advance/one_step_off.html


def beside_published(steps: int = 100) -> str:
    lines = ["| | in turns | one step off | gain | simulated from its sampling and training times | gain |"]
    lines.append("|---|---|---|---|---|---|")
    for name, turns, sampling, training, published in PUBLISHED:
        _, off = foretold([sampling] * steps, [training] * steps)
        gains = f"{turns / published:.2f} ×", f"{turns / off:.2f} ×"
        lines.append(f"| {name} | {turns} s | {published} s | {gains[0]} | {off:.0f} s | {gains[1]} |")
    return "\n".join(lines)


# -- a run that took turns, one step off ------------------------------------------------------------------------------


def foretold(sampling: Sequence[float], training: Sequence[float]) -> tuple[float, float]:
    """Seconds a step in turns and one step off, of a run whose steps sampled and trained so long on devices of their
    own: the simulator with one completion a step, as long as its sampling.

    >>> foretold([3.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0])
    (4.0, 3.25)
    """
    machines = Machines(1, 1, rows=1, base=0.001, row=0.0, transfer=0.0)
    lengths = [[round(seconds / machines.base)] for seconds in sampling]
    turns, off = (simulate(lambda n: lengths[n], len(lengths), machines, k, training).seconds for k in (0, 1))
    return turns, off


def told(stage: Path) -> str:
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    sampling = [row["seconds/sampling"] for row in rows]
    turns, off = foretold(sampling, [row["seconds"] - row["seconds/sampling"] for row in rows])
    measured = sum(row["seconds"] for row in rows) / len(rows)
    gain = f"{turns / off:.2f} times as fast"
    return f"measured {measured:.2f} s a step; in turns {turns:.2f}, one step off {off:.2f}: {gain}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the directory of a stage that took turns")
    given = parser.parse_args()
    print(told(given.run) if given.run else f"{beside_published()}\n\n{curves()}")
