"""`temper show RUN`: what was said at its end, again."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.record.trust import RunFiles
    from temper.report.ending import ending, has_model, last_evaluation
    from temper.runs import read_run

    folder = read_run(args.run)
    record, evaluation = RunFiles(folder).object(folder / "run.json"), last_evaluation(folder)
    if args.json:
        print(json.dumps({"run": str(folder), **record, "evaluation": evaluation}, ensure_ascii=False))
    else:
        print(ending(folder, record, evaluation, has_model(folder)))
    return 0
