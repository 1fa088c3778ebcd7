"""`temper show RUN`: what was said at its end, again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.record.runfiles import read_object
    from temper.report.ending import ending, has_model, last_evaluation
    from temper.runs import find_run

    folder = Path(find_run(args.run))
    record, evaluation = read_object(folder / "run.json"), last_evaluation(folder)
    if args.json:
        print(json.dumps({"run": str(folder), **record, "evaluation": evaluation}, ensure_ascii=False))
    else:
        print(ending(folder, record, evaluation, has_model(folder)))
    return 0
