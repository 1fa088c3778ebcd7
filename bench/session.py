"""What both scripts share: the command line, the checks before anything runs, the model, the floor, the notes."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from children import ChildError, Runner
from draws import Draws, draw_step
from floor import Rates
from workloads import SAMPLE, Workload, add_fields, chosen

from temper.errors import Exit, Fault, TemperError


def parser_of(description: str, names: Sequence[str], default: str) -> argparse.ArgumentParser:
    """The options of both scripts."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--workload", choices=names, default=default, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", action="store_true", help="the JSON line alone on standard output")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes a library (3)")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="timed steps a process, after one more (3)")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N", help=f"for every library ({cores()})")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="for one process (3600)")
    add_fields(parser)
    return parser


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_machine(work: Workload, peers: Sequence[str], given: argparse.Namespace) -> None:
    """Raise TemperError if this machine cannot run what is asked for."""
    if min(given.rounds, given.steps, given.threads) < 1:
        raise TemperError(Fault("`--rounds`, `--steps` and `--threads` must be at least 1"), Exit.CONFIG)
    for name in peers:
        if importlib.util.find_spec(name) is None:
            fault = Fault(f"`{name}`, to compare with, is not installed", fix='pip install -e ".[bench]"')
            raise TemperError(fault, Exit.OPTIONAL_PART)
    if not Path("/proc/self/smaps_rollup").exists():
        raise TemperError(Fault("CPU time and memory are read from /proc, which only Linux has"), Exit.RESOURCES)
    if work.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            fix = "a machine with one, or one of the cpu- workloads"
            fault = Fault("this workload needs a CUDA device, and PyTorch finds none", fix=fix)
            raise TemperError(fault, Exit.RESOURCES)


@contextmanager
def open_runner(given: argparse.Namespace, sample_only: bool, peers: Sequence[str]) -> Iterator[Runner]:
    """Checks done, scratch made; it is removed at the end."""
    work = chosen(given.workload, given)
    check_machine(work, peers, given)
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        yield Runner(work, Path(folder), given.steps, given.threads, sample_only, given.timeout)


def warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > 0.25 * cores():
        say(f"warning: the load average is {load:.2f} on {cores()} cores: something else is running")


def prepare(runner: Runner) -> tuple[dict[str, Any], Rates]:
    """The model written once, with the device's name; and the machine's rates."""
    say("writing the model")
    model = runner.run("random_model.py")
    say("measuring the machine")
    machine = runner.run("floor.py")
    return {**model, "device": machine["device"]}, Rates(**machine["rates"])


def check_same_model(model: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """Raise ChildError if a side read other weights than those that were written."""
    if any(result["sha256"] != model["sha256"] for result in results):
        raise ChildError("the sides did not load the same weights")


def timed_draws(runner: Runner) -> list[Draws]:
    """The draws of the timed steps, the same in every round."""
    return [draw_step(runner.work, number) for number in range(1, 1 + runner.steps)]


def notes(runner: Runner, model: dict[str, Any], load: Sequence[float], rounds: int) -> dict[str, Any]:
    """What one must know to repeat the measurement."""
    draws = timed_draws(runner)
    lengths = [length for one in draws for group in one.lengths for length in group]
    return {
        "config": asdict(runner.work),
        "rounds": rounds,
        "steps": runner.steps,
        "threads": runner.threads,
        "cpus": cores(),
        "load_average": [round(value, 2) for value in load],
        "device": model["device"],
        "python": platform.python_version(),
        "parameters": model["parameters"],
        "model_sha256": model["sha256"],
        "completion_tokens": sum(one.tokens for one in draws) / len(draws),
        "lengths": {"min": min(lengths), "mean": sum(lengths) / len(lengths), "max": max(lengths)},
        "groups_alive": sum(sum(one.alive) for one in draws) / len(draws),
    }


def main_of(run: Callable[[], None]) -> None:
    """Run a script; what goes wrong becomes one message and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit ends the measured process too, a signal does not
    try:
        run()
    except TemperError as error:
        print("\n".join(fault.render() for fault in error.faults), file=sys.stderr)
        sys.exit(error.code)
    except ChildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def is_sample(name: str) -> bool:
    return name.startswith(SAMPLE)
