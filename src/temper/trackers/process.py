"""A tracker's own process: `python -m temper.trackers.process RUN NAME` follows a run until its standard input ends.

The run holds the other end of that pipe and nothing else: whatever the tracker does, hang, refuse or die, the run goes
on, and however the run ends, the pipe does too. What the tracker prints goes to `trackers.log`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from temper.record.rundir import RunDir
from temper.trackers import LOG
from temper.trackers.follow import Position, Tracker, opened, read_positions, send_new, write_positions

LOOK_SECONDS = 2.0  # between two looks at the run directory
LAST_SECONDS = float(os.environ.get("TEMPER_TRACKER_SECONDS", "60"))  # for what is left once the run is over
PATIENCE = 5.0  # how long a run that is over waits for its trackers


@contextlib.contextmanager
def following(run: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Trackers follow the run inside this context. The list gets a line about each that did not get to the end."""
    told: list[str] = []
    children: dict[str, subprocess.Popen] = {}
    for name in names:
        try:
            children[name] = start(run, name)
        except OSError as error:
            told.append(f"the tracker {name} could not be started: {error}")
    try:
        yield told
    finally:
        for child in children.values():
            with contextlib.suppress(OSError):
                child.stdin.close()  # type: ignore[union-attr]
        until = time.monotonic() + PATIENCE
        for name, child in children.items():
            again = f"`temper export-metrics {run} --to {name}` sends what it did not get"
            try:
                code = child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                told.append(f"the tracker {name} is still sending, for {LAST_SECONDS:g} seconds at most; {again}")
                continue
            if code:
                told.append(f"the tracker {name} failed, see {run / LOG}; {again}")


def start(run: Path, name: str) -> subprocess.Popen:
    """The process of one tracker, in a session of its own: an interrupt of the run is not one of it."""
    with (run / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "temper.trackers.process", str(run), name],
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def main(run: Path, name: str) -> None:
    """Follow until standard input ends, then send the rest."""
    over = threading.Event()
    threading.Thread(target=wait_for_the_end, args=(over,), daemon=True).start()
    position = read_positions(run, [name])[name]
    write_positions(run, {name: position})
    with opened(name, run, position) as tracker:
        seen: object = None
        last = False
        while not last:
            last = over.wait(LOOK_SECONDS)
            now = state(run)
            if now != seen:
                send(run, name, tracker, position)
                seen = now


def wait_for_the_end(over: threading.Event) -> None:
    """Say that the run is over, and end this process if the tracker has not let go of it some time later."""
    while os.read(0, 1024):
        pass
    over.set()
    time.sleep(LAST_SECONDS)
    os._exit(1)


def send(run: Path, name: str, tracker: Tracker, position: Position) -> None:
    if send_new(run, tracker, position):
        write_positions(run, {name: position})


def state(run: Path) -> tuple:
    """What changes when there may be something new."""
    found = []
    for folder in RunDir(run).work_folders().values():
        for path in (folder / "metrics.jsonl", folder / "rollouts", folder / "stage.json"):
            with contextlib.suppress(OSError):
                about = os.stat(path)
                found.append((str(path), about.st_size, about.st_mtime_ns))
    return tuple(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
