"""`temper run RECIPE`: the whole recipe; the same command again goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.pipeline.run import Result


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `run` and `plan` share."""
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe (tiny, smoke) or a YAML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change a value of the recipe: seed=1, final_rl.learning_rate=1e-4; may be given several times",
    )  # fmt: skip
    parser.add_argument("--out", type=folder, metavar="DIR", help="the run directory (default: runs/NAME-HASH)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def folder(text: str) -> Path:
    """The directory that `--out` names. Raises ArgumentTypeError for what no directory can be called."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"`{text}` names no directory")
    if any(len(os.fsencode(part)) > 255 for part in Path(text).parts) or len(text) > 4000:
        raise argparse.ArgumentTypeError("a name of more than 255 bytes names no directory")
    return Path(text).expanduser()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--changed", action="store_true",
        help="accept that stages which stopped half-way start again, because the recipe was changed",
    )  # fmt: skip
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N",
        help="N processes that share out every step (docs/scale.md); under torchrun they are there already",
    )  # fmt: skip
    # for `temper sweep`: standard input is a pipe from the process that this run must not outlive
    parser.add_argument("--tied", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from temper.distributed.ranks import given
    from temper.errors import ConfigError, Fault
    from temper.pipeline.stopping import Stopper

    if args.ranks < 1:
        raise ConfigError(Fault(f"--ranks {args.ranks}: there is at least one"))
    if (told := given()) is not None and told[0]:
        from temper.pipeline.crew import serve_rank

        serve_rank("env://", *told)
        return 0
    with Stopper(idle="stopped"):  # also while modules are loaded and the report is written
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from temper.pipeline.run import Stopped, run_recipe, say

    if args.tied:
        from temper.pipeline.sweep import end_with_parent

        end_with_parent()
    try:
        command = ["temper", *sys.argv[1:]]
        result = run_recipe(args.recipe, args.settings, args.out, args.changed, command, size=args.ranks)
    except Stopped as stopped:
        say(f"stopped: {stopped}\nrun the same command again to go on")
        return int(stopped.code)
    if not result.ran:
        say("nothing to do: every stage is done already, no step was taken")
    from temper.api.running import write_report

    report = write_report(result)
    print(json.dumps(as_json(result, report), ensure_ascii=False) if args.json else as_text(result))
    return 0


def as_json(result: Result, report: Path | None) -> dict[str, Any]:
    folder = str(result.plan.folder.root)
    own = {"run": folder, "report": str(report) if report else None, "ran": list(result.ran)}
    return {**own, **result.record, "evaluation": result.evaluation}


def as_text(result: Result) -> str:
    """The table of the last evaluation, where the report is, what it cost, and what to type next."""
    from temper.report.ending import ending

    makes = any(planned.stage.makes == "model" for planned in result.plan.stages)
    return ending(result.plan.folder.root, result.record, result.evaluation, makes)
