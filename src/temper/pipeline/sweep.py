"""A sweep: one recipe run once for each of its points, what the runs have in common made once.

SWEEP/   sweep.json sweep.csv sweep.html   lock   artifacts/ (of all points)
         num_generations=8_seed=0/   a run directory like any other; its `artifacts` is a link to the shared folder

A fingerprint names an artifact by everything it depends on, so a stage that two points agree on is one artifact.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from temper.artifacts import MARK, begin
from temper.errors import Exit, TemperError
from temper.pipeline.points import Point
from temper.planning.plan import Plan
from temper.planning.preflight import prepare
from temper.record.rundir import writing
from temper.sealed import trusted

PROGRAM = (sys.executable, "-m", "temper")  # a point is a process of its own: its memory and its crash are its own


def check_points(reference: str, common: Sequence[str], points: Sequence[Point], folder: Path) -> list[Plan]:
    """The plan of every point. Raises TemperError with every fault of all of them, each once, before anything runs."""
    plans, faults = [], []
    for point in points:
        try:
            plans.append(prepare(reference, settings_of(common, point), folder / point.name)[0])
        except TemperError as error:
            swept = {f"--set {key}": f"--over {key}" for key, _ in point.settings}
            faults += [replace(fault, where=swept.get(fault.where, fault.where)) for fault in error.faults]
    if faults:
        raise TemperError(dict.fromkeys(faults), min(fault.code or Exit.CONFIG for fault in faults))
    return plans


def settings_of(common: Sequence[str], point: Point) -> list[str]:
    """What `--set` would be given for a point; its own values come last."""
    return [*common, *(f"{key}={text}" for key, text in point.settings)]


def is_done(plan: Plan) -> bool:
    return not plan.running and plan.folder.record().get("state") == "done"


def link_artifacts(point: Path) -> None:
    """Make the point's run directory, its artifacts those of the sweep. Raises ResourceError if it cannot."""
    with writing(point):
        (point.parent / "artifacts").mkdir(parents=True, exist_ok=True)
        point.mkdir(exist_ok=True)
        if not (point / "artifacts").exists():
            (point / "artifacts").symlink_to(Path("..") / "artifacts", target_is_directory=True)


def share(plan: Plan) -> None:
    """Give a point the metrics and rollouts of the stages that another point has run for it, so that it is whole."""
    root = plan.folder.root
    works = plan.folder.work_folders()
    for planned in plan.stages:
        made = None if planned.runs or planned.stage.name in works else work_of(root.parent, planned.fingerprint)
        if made is not None:
            target = root / "stages" / planned.stage.folder
            with writing(root):
                aside = begin(target)
                shutil.copytree(made, aside, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
                (aside / MARK).unlink()
                aside.rename(target)


def work_of(folder: Path, fingerprint: str) -> Path | None:
    """The directory of the stage of any point that made this artifact and kept metrics of it."""
    for about in sorted(folder.glob("*/stages/*/stage.json")):
        if trusted(about).get("fingerprint") == fingerprint and (about.parent / "metrics.jsonl").exists():
            return about.parent
    return None


class Runner:
    """Runs points one after the other, each in a process that ends when this one does. Signals are handed on: `code` is
    the exit code of the first that came, None before."""

    def __init__(self) -> None:
        self.code: Exit | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.code is None:
            self.code = Exit.PREEMPTED if number == signal.SIGTERM else Exit.INTERRUPTED
        if self._child is not None:
            self._child.send_signal(number)

    def run(self, reference: str, settings: Sequence[str], out: Path, changed: bool) -> int:
        """The exit code of `temper run` for one point; a process that was killed counts as out of resources."""
        chosen = [part for setting in settings for part in ("--set", setting)]
        command = [*PROGRAM, "run", reference, *chosen, "--out", str(out), "--json", "--tied"]
        # its standard input is never written to: that it ends tells the child that we did
        self._child = subprocess.Popen(
            [*command, "--changed"] if changed else command,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = self._child.wait()
        finally:
            assert self._child.stdin is not None
            self._child.stdin.close()
            self._child = None
        return code if code >= 0 else int(Exit.RESOURCES)


def end_with_parent() -> None:
    """End this process, as a kill would, as soon as its standard input ends: whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(int(Exit.PREEMPTED))

    threading.Thread(target=wait, daemon=True).start()
