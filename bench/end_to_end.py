"""A GRPO run to a fixed training accuracy, temper against TRL: same model, prompts in their order, rewards, optimiser.

    python bench/end_to_end.py [--target 0.85] [--rounds 1] [--set KEY=VALUE] [--json]

The stages before the named one are run once by `temper run`. Then each side trains from the model they made: temper as
`temper run` does it, checkpoints, logs and all; TRL in a script (`trl_train.py`) that asks temper's rewards. The last
line of standard output is one JSON object (docs/bench.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from children import ENVIRONMENT, HERE, THREADS, ChildError
from processes import MemoryWatch
from session import check_machine, cores, main_of, say, warn_if_busy
from workloads import Workload

from temper.errors import Exit, Fault, TemperError
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe

WINDOW = 5  # steps whose mean accuracy is compared with the target


@dataclass(frozen=True)
class Step:
    """One training step; `accuracy` is the mean over its completions, before the update."""

    seconds: float
    cpu_seconds: float
    accuracy: float


@dataclass(frozen=True)
class Training:
    """A whole training; the process's own times hold what is around the steps, starting Python included."""

    steps: list[Step]
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def reached(steps: Sequence[Step], target: float) -> int | None:
    """After how many steps the mean accuracy of the last `WINDOW` was `target`; None: it never was.

    >>> steps = [Step(1, 1, accuracy) for accuracy in (0.0, 0.8, 0.9, 0.9, 0.9, 1.0, 1.0)]
    >>> reached(steps, 0.85), reached(steps, 0.99)
    (6, None)
    """
    for count in range(WINDOW, len(steps) + 1):
        if mean(step.accuracy for step in steps[count - WINDOW : count]) >= target:
            return count
    return None


def figures(training: Training, target: float) -> dict[str, Any]:
    """What is shown of one training. `to_target` is None where the target was not reached."""
    count = reached(training.steps, target)
    done = training.steps[:count]
    to_target = {
        "steps": count,
        "seconds": sum(step.seconds for step in done),
        "cpu_seconds": sum(step.cpu_seconds for step in done),
    }
    return {
        "to_target": None if count is None else to_target,
        "step_seconds": median(step.seconds for step in training.steps[1:]),
        "step_cpu_seconds": median(step.cpu_seconds for step in training.steps[1:]),
        "steps": len(training.steps),
        "last_accuracy": mean(step.accuracy for step in training.steps[-WINDOW:]),
        "seconds": training.seconds,
        "cpu_seconds": training.cpu_seconds,
        "peak_memory_bytes": training.peak_memory_bytes,
        "accuracies": [round(step.accuracy, 4) for step in training.steps],
    }


def ancestors(recipe: Recipe, name: str) -> list[str]:
    """The stage `name` and all that it needs, in order."""
    wanted, left = {name}, [name]
    while left:
        new = [used for used in recipe.by_name[left.pop()].uses if used not in wanted]
        wanted.update(new)
        left += new
    return [stage.name for stage in recipe.stages if stage.name in wanted]


def write_recipe(recipe: Recipe, stages: Sequence[str], path: Path) -> Path:
    """The recipe with these stages alone; data files it names are looked for in the current directory."""
    text = yaml.safe_load(recipe.source.path.read_text(encoding="utf-8"))
    text["stages"] = {name: text["stages"][name] for name in stages}
    text["name"] = "end_to_end"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Session:
    """What both sides share."""

    folder: Path
    settings: list[str]
    threads: int
    timeout: float

    def run(self, *arguments: str) -> tuple[float, float, int]:
        """Run Python with `arguments`; wall seconds, CPU seconds of it and all its children, and the peak of the memory
        they held together. Raises ChildError."""
        log = self.folder / "child.log"
        environment = {**os.environ, **ENVIRONMENT, **dict.fromkeys(THREADS, str(self.threads))}
        before, began = os.times(), os.times().elapsed
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=errors, stderr=errors, env=environment, start_new_session=True
            )
            watch = MemoryWatch(process.pid, interval=1.0)
            watch.start()
            try:
                code = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise ChildError(f"not done within {self.timeout:.0f} s", "late") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                peak = watch.stop()
        after = os.times()
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ChildError(f"{' '.join(arguments[:3])} ended with code {code}:\n" + "\n".join(lines[-12:]))
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return after.elapsed - began, cpu, peak

    def temper(self, recipe: Path, out: Path, settings: Sequence[str]) -> tuple[float, float, int]:
        """`temper run`."""
        options = [part for setting in settings for part in ("--set", setting)]
        return self.run("-m", "temper", "run", str(recipe), "--out", str(out), *options)


def train_temper(session: Session, recipe: Path, stage: str, prepared: Path, number: int) -> Training:
    """The stage as `temper run` takes it, in a copy of the run in which all before it is done."""
    out = session.folder / f"temper-{number}"
    shutil.copytree(prepared, out)
    seconds, cpu, peak = session.temper(recipe, out, session.settings)
    work = next((out / "stages").glob(f"*-{stage}"))
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [Step(row["seconds"], row["cpu_seconds"], row["reward/accuracy"]) for row in rows]
    return Training(steps, seconds, cpu, peak)


def train_trl(session: Session, recipe: Path, stage: str, prepared: Path, number: int, micro_batch: int) -> Training:
    result = session.folder / f"trl-{number}.json"
    spec = {
        "recipe": str(recipe),
        "settings": session.settings,
        "stage": stage,
        "run": str(prepared),
        "micro_batch": micro_batch,
        "output": str(session.folder / f"trl-{number}"),
        "result": str(result),
    }
    file = session.folder / "spec.json"
    file.write_text(json.dumps(spec), encoding="utf-8")
    seconds, cpu, peak = session.run(str(HERE / "trl_train.py"), str(file))
    rows = json.loads(result.read_text(encoding="utf-8"))
    return Training([Step(**row) for row in rows], seconds, cpu, peak)


def best(trainings: Sequence[Training], target: float) -> dict[str, Any]:
    """The figures of the round whose steps were the fastest: other work on the machine only ever adds time."""
    return min((figures(training, target) for training in trainings), key=lambda one: one["step_seconds"])


def table(sides: dict[str, dict[str, Any]], target: float) -> str:
    lines = [f"{'':12}{'to ' + format(target, '.2f'):>16}{'CPU s':>8}{'a step':>9}{'CPU s':>8}{'all':>9}{'CPU s':>8}"
             f"{'memory':>10}{'accuracy':>10}"]  # fmt: skip
    for name, one in sides.items():
        goal = one["to_target"]
        first = f"{'not reached':>16}{'':8}"
        if goal is not None:
            first = f"{goal['steps']:5} st {goal['seconds']:6.1f} s{goal['cpu_seconds']:8.1f}"
        lines.append(
            f"{name:12}{first}{one['step_seconds']:7.2f} s{one['step_cpu_seconds']:8.2f}{one['seconds']:7.1f} s"
            f"{one['cpu_seconds']:8.1f}{one['peak_memory_bytes'] / 1e9:7.2f} GB{one['last_accuracy']:10.3f}"
        )
    return "\n".join(lines)


def ratios(temper: dict[str, Any], other: dict[str, Any]) -> dict[str, float | None]:
    """The other's figure over temper's: above 1, temper is faster."""
    found: dict[str, float | None] = {key: other[key] / temper[key] for key in ("step_seconds", "step_cpu_seconds")}
    for key in ("seconds", "cpu_seconds"):
        ours, theirs = temper["to_target"], other["to_target"]
        found[f"to_target_{key}"] = theirs[key] / ours[key] if ours and theirs else None
    return found


def compare(session: Session, recipe: Recipe, given: argparse.Namespace) -> dict[str, Any]:
    """The JSON line."""
    stage, stages = given.stage, ancestors(recipe, given.stage)
    whole = write_recipe(recipe, stages, session.folder / "whole.yaml")
    before = write_recipe(recipe, stages[:-1], session.folder / "before.yaml")
    prepared = session.folder / "prepared"
    say(f"before {stage}: {', '.join(stages[:-1])}")
    session.temper(before, prepared, [text for text in session.settings if not text.startswith(f"{stage}.")])
    ours: list[Training] = []
    theirs: list[Training] = []
    for number in range(given.rounds):
        say(f"round {number + 1} of {given.rounds}: temper")
        ours.append(train_temper(session, whole, stage, prepared, number))
        say(f"round {number + 1} of {given.rounds}: trl")
        theirs.append(train_trl(session, whole, stage, prepared, number, given.peer_micro_batch))
    temper, other = best(ours, given.target), best(theirs, given.target)
    return {
        "workload": f"end-to-end-{recipe.name}-{stage}",
        "peer": f"trl {version('trl')}",
        "target": given.target,
        "temper": temper,
        "other": other,
        "ratios": ratios(temper, other),
        "settings": session.settings,
        "rounds": given.rounds,
        "threads": given.threads,
        "cpus": cores(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="a GRPO run to a fixed accuracy, temper against TRL")
    parser.add_argument("--recipe", default="tiny", help="(tiny)")
    parser.add_argument("--stage", default="reasoning_rl", help="a stage of kind grpo (reasoning_rl)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--target", type=float, default=0.85, help=f"mean accuracy of {WINDOW} steps (0.85)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="trainings a side, in turn (1)")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N", help=f"for both ({cores()})")
    parser.add_argument("--peer-micro-batch", type=int, default=64, metavar="N", help="completions (64)")
    parser.add_argument("--timeout", type=float, default=7200, metavar="S", help="for one training (7200)")
    parser.add_argument("--json", action="store_true", help="the JSON line alone on standard output")
    given = parser.parse_args()
    settings = [*given.settings, f"threads={given.threads}"]
    recipe, faults = load_recipe(given.recipe, settings)
    if not faults and (given.stage not in recipe.by_name or recipe.by_name[given.stage].kind != "grpo"):
        faults = [Fault(f"`{given.stage}` is no stage of kind grpo of {given.recipe}")]
    if faults:
        raise TemperError(faults, Exit.CONFIG)
    given.steps = 1
    check_machine(Workload(), ("trl",), given)
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as scratch:
        line = compare(Session(Path(scratch), settings, given.threads, given.timeout), recipe, given)
    sides = {"temper": line["temper"], line["peer"]: line["other"]}
    if not given.json:
        print(table(sides, given.target))
    print(json.dumps(line))


if __name__ == "__main__":
    main_of(main)
