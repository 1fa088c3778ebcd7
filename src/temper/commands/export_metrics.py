"""`temper export-metrics RUN --to TRACKER`: what a tracker would have got as the run went on; or all of it as CSV."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from temper.errors import DataError, Fault, TemperError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from temper.trackers import TRACKERS

    parser.add_argument("run", metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("--to", choices=["csv", *TRACKERS], default="csv", help="default: csv, on standard output")
    parser.add_argument("--again", action="store_true", help="send all of it to a new run of the tracker")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """0; 3 where the run has no metrics, 9 where the tracker is not installed."""
    from temper.runs import read_run

    folder = read_run(args.run)
    rows = list(all_rows(folder))
    if not rows:
        fix = "run it first: metrics come with the first step of a stage that trains"
        raise DataError(Fault("the run has no metrics", where=str(folder), fix=fix))
    if args.to == "csv":
        write_csv(rows)
        return 0
    steps = send(folder, args.to, args.again)
    print(json.dumps({"run": str(folder), "tracker": args.to, "steps": steps}) if args.json else f"{steps} steps sent")
    return 0


def send(folder: Path, name: str, again: bool) -> int:
    """How many steps the tracker got. Raises TemperError where it is not installed or fails."""
    from temper.errors import Exit
    from temper.record.trust import RunFiles
    from temper.trackers import TRACKERS, missing_trackers
    from temper.trackers.follow import Position, opened, read_positions, send_new, write_positions

    if faults := missing_trackers([kind for kind in TRACKERS if kind == name]):
        raise TemperError(faults, Exit.OPTIONAL_PART)
    position = Position() if again else read_positions(folder, [name])[name]
    before = sum(position.steps.values())
    try:
        with opened(name, folder, position) as tracker:
            send_new(folder, tracker, position, RunFiles(folder).damaged)
    except Exception as error:  # whatever a tracker's library raises
        why = f"{type(error).__name__}: {error}"
        fix = "what was sent so far is remembered: the same command sends the rest"
        raise TemperError(Fault(f"the tracker {name} failed", str(folder), why, fix), Exit.RESOURCES) from error
    finally:
        write_positions(folder, {name: position})
    return sum(position.steps.values()) - before


def all_rows(folder: Path) -> Iterator[dict[str, object]]:
    from temper.record.rundir import RunDir
    from temper.record.trust import RunFiles
    from temper.trackers.follow import numbers

    files = RunFiles(folder)
    for stage, work in RunDir(folder).work_folders().items():
        for row in files.metrics(work):
            yield {"stage": stage, "step": row["step"], **numbers(row)}


def write_csv(rows: list[dict[str, object]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sys.stdout, columns)
    writer.writeheader()
    writer.writerows(rows)
