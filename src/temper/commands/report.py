"""`temper report RUN`: one self-contained HTML file, or the same data as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, or the name of one under runs/")
    parser.add_argument("--json", action="store_true", help="print the data instead of writing the page")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: RUN/report/index.html)")


def run(args: argparse.Namespace) -> int:
    from temper.runs import read_run

    run_dir = read_run(args.run)
    if args.json:
        return _json(run_dir, args.out)
    from temper.report.html import write

    print(write(run_dir, args.out))
    return 0


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
