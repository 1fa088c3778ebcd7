"""`temper report RUN`: one self-contained HTML file, or the same data as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from pathlib import Path

from temper.errors import tell

WATCH_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, or the name of one under runs/")
    parser.add_argument("--json", action="store_true", help="print the data instead of writing the page")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: RUN/report/index.html)")
    text = "while the run goes on, write it anew as it changes; the open page follows"
    parser.add_argument("--watch", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    from temper.errors import ConfigError, Fault
    from temper.runs import read_run

    if args.json and args.watch:
        raise ConfigError(Fault("--json and --watch do not go together", fix="give one of them"))
    run_dir = read_run(args.run)
    if args.watch:
        watch(run_dir, args.out)
    if args.json:
        return _json(run_dir, args.out)
    from temper.report.html import write

    print(write(run_dir, args.out))
    return 0


def watch(run_dir: Path, out: Path | None, seconds: float = WATCH_SECONDS) -> None:
    """Write the page whenever the run has written something, until no process is at it."""
    from temper.record.rundir import holder
    from temper.report.html import write

    seen: list[int] | None = None
    while holder(run_dir / "lock") is not None:
        began, now = time.monotonic(), _changes(run_dir)
        if now != seen:
            path = write(run_dir, out, math.ceil(seconds))
            if seen is None:
                tell(f"{path} follows the run; Ctrl-C ends that, and not the run")
            seen = now
        time.sleep(max(seconds, 20 * (time.monotonic() - began)))  # little of the machine is taken from the run


def _changes(run_dir: Path) -> list[int]:
    """When the run last wrote what the page shows."""
    found = []
    for path in (run_dir / "run.json", *sorted(run_dir.glob("stages/*/metrics.jsonl"))):
        with contextlib.suppress(OSError):
            found.append(path.stat().st_mtime_ns)
    return found


def _json(run_dir: Path, out: Path | None) -> int:
    from temper.errors import Fault, ResourceError
    from temper.report.gather import gather

    text = json.dumps(gather(run_dir), ensure_ascii=False, allow_nan=False, indent=1, default=str)
    if out is None:
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        return 0
    try:
        out.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ResourceError(Fault(f"cannot write {out}: {error.strerror or error}")) from error
    print(out)
    return 0
