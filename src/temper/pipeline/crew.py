"""The ranks beside the first: it runs the recipe; the others take part in the stages that can be shared.

`temper run R --ranks N` starts them here; under torchrun they are there already. Rank 0 alone writes: the others work
in a scratch directory that begins as a copy of the stage's own, and all go on from the same checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.distributed.ranks import Ranks, given, join, leave, ranks
from temper.environment import go_offline, settle_torch, wait_passively
from temper.errors import ConfigError, Exit, Fault, Preempted, ResourceError, TemperError
from temper.kernels import choice
from temper.masking import mask
from temper.planning.given import inputs, tasks
from temper.planning.plan import StagePlan, differences, make_plan
from temper.planning.preflight import CheckLog
from temper.recipe.reader import load_recipe
from temper.record.rundir import RunDir
from temper.stages.context import StageContext

SHARED = frozenset({"pretrain", "sft", "distill", "grpo", "ppo", "reward_model", "sample", "step_labels", "preferences",
                    "evaluate"})  # fmt: skip
UNSHARED_FILES = shutil.ignore_patterns("rollouts", "metrics.jsonl", "log.txt", "weights", "checkpoints", "ranks")


@dataclass(frozen=True)
class Assignment:
    """A stage that all ranks run now."""

    reference: str
    settings: tuple[str, ...]
    root: Path
    work: Path
    stage: str
    fingerprint: str
    material: Mapping[str, Any]


@contextlib.contextmanager
def crew(size: int) -> Iterator[None]:
    """Within it this process is rank 0 of `size`; the others, which it starts, end with it, however it ends."""
    if (told := given()) is not None:
        join("env://", *told)
        try:
            yield
            ranks().send(None)
        finally:
            leave()
        return
    if size == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="temper-ranks-") as folder:
        place = f"file://{folder}/meet"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
        started = [_start(place, rank, size) for rank in range(1, size)]
        try:
            joined = join(place, 0, size)
            joined.lost = lambda: _ended(started)
            yield
            ranks().send(None)
            for process in started:
                process.wait()
        finally:
            for process in started:
                process.kill()
                process.wait()
            leave()


def _start(place: str, rank: int, size: int) -> subprocess.Popen[bytes]:
    """A rank whose standard input ends when this process does."""
    command = [sys.executable, "-m", "temper.pipeline.crew", place, str(rank), str(size)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def _ended(started: Sequence[subprocess.Popen[bytes]]) -> str:
    for rank, process in enumerate(started, 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return f"rank {rank} ended with code {process.wait(0.5)}"
    return ""


def assign(planned: StagePlan, reference: str, settings: Sequence[str], root: Path, work: Path) -> None:
    """Rank 0: have the others take part in the stage that is run next, once they have found the same recipe, model,
    data and version. Raises ConfigError that names a rank which has not."""
    if ranks().size == 1 or planned.stage.kind not in SHARED:
        return
    about = (planned.stage.name, planned.fingerprint, planned.material)
    ranks().send(Assignment(reference, tuple(settings), root.resolve(), work.resolve(), *about))
    ranks().together(lambda: [None])


def take_part(joined: Ranks) -> None:
    """Every other rank: stage after stage, until rank 0 has no more."""
    while (assignment := joined.send(None)) is not None:
        with tempfile.TemporaryDirectory(prefix="temper-rank-") as scratch:
            _run(assignment, Path(scratch))


def _run(assignment: Assignment, scratch: Path) -> None:
    ready: list[tuple[StagePlan, StageContext]] = []

    def prepare() -> list[None]:
        ready.append(_prepared(assignment, scratch))
        return [None]

    ranks().together(prepare)
    [(planned, ctx)] = ready
    planned.stage.module.run(planned.stage.config, ctx)


def _prepared(assignment: Assignment, scratch: Path) -> tuple[StagePlan, StageContext]:
    """The stage as this rank finds it, if it is what rank 0 has found. Raises TemperError."""
    recipe, faults = load_recipe(assignment.reference, assignment.settings)
    if recipe is None or faults:
        raise ConfigError(faults)
    folder = RunDir(assignment.root)
    plan = make_plan(recipe, folder)
    mine = next((planned for planned in plan.stages if planned.stage.name == assignment.stage), None)
    if mine is None or mine.fingerprint != assignment.fingerprint:
        raise ConfigError(_other(assignment, mine))
    settle_torch(threads_of(recipe.threads))
    choice.pin(recipe.matmul, folder.record().get("matmul"))
    shutil.copytree(assignment.work, scratch / "work", ignore=UNSHARED_FILES)
    (scratch / "work" / "checkpoints").symlink_to(assignment.work / "checkpoints")
    (scratch / "out").mkdir()
    artifacts = {planned.stage.name: folder.artifact(planned.fingerprint) for planned in plan.stages}
    return mine, StageContext(
        name=mine.stage.name,
        seed=recipe.seed,
        out=scratch / "out",
        work=scratch / "work",
        inputs=inputs(mine.stage, artifacts),
        tasks=tasks(mine.stage, plan.recipe, artifacts),
        log=RankLog(assignment.work),  # type: ignore[arg-type]
        stopping=lambda: False,  # rank 0 says when, and the others end with it
        meant=mine.stage.meant,
    )


class RankLog(CheckLog):
    """What a rank other than the first has to say, with the time, in a file of its own beside the stage's log."""

    def __init__(self, work: Path):
        super().__init__()
        self._path = work / "ranks" / f"{ranks().rank}.txt"
        with contextlib.suppress(OSError):  # a directory that this rank may only read
            self._path.parent.mkdir(exist_ok=True)
        self.info(f"rank {ranks().rank} of {ranks().size} on {platform.node()}, process {os.getpid()}")

    def info(self, text: str) -> None:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {mask(text)}\n")

    def warn(self, text: str, key: str = "") -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.info(f"warning: {text}")

    def step(self, step: int, total: int, metrics: Mapping[str, object]) -> None:
        self.info(f"step {step}/{total}")


def _other(assignment: Assignment, mine: StagePlan | None) -> Fault:
    what = f"rank {ranks().rank} has another stage `{assignment.stage}` than rank 0"
    found = differences(dict(assignment.material), mine.material) if mine is not None else ["it has no such stage"]
    fix = "give every rank the same recipe, files, models and version of temper, in one directory that all can read"
    return Fault(what, why="; ".join(found) or "another version of temper", fix=fix)


def threads_of(threads: int) -> int:
    """The threads of this rank, of those that the recipe has for all ranks on this machine."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "") or ranks().size)
    return max(1, threads // here)


def main() -> None:
    """Rank `sys.argv[2]` of `sys.argv[3]`, which meet at `sys.argv[1]`."""
    from temper.pipeline.sweep import end_with_parent

    place, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    end_with_parent()
    serve_rank(place, rank, size, rank)


def serve_rank(place: str, rank: int, size: int, local: int) -> None:
    """The life of a rank that is not the first. What goes wrong here alone ends it, and so the others."""
    go_offline()
    wait_passively()
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all, they are rank 0's to handle
        signal.signal(number, signal.SIG_IGN)
    try:
        take_part(join(place, rank, size, local))
    except Preempted:
        os._exit(0)  # rank 0 has saved, and ends
    except TemperError as error:
        if isinstance(error, ResourceError):  # of others rank 0 was told, and tells
            print(f"rank {rank}: {error.render()}", file=sys.stderr, flush=True)
        os._exit(int(error.code))
    except Exception:
        print(f"rank {rank} of {size} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(int(Exit.BUG))
    leave()


if __name__ == "__main__":
    main()
