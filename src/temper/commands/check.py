"""`temper check FILE…`: data files row by row, rewards on what they must and must not reward, recipes as a whole.

The report goes to standard output, what is wrong to standard error. Exit code 0, or that of the first thing wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from temper.commands.sampling import add_reply_argument
from temper.errors import tell

if TYPE_CHECKING:
    from temper.commands.lint import FileReport, Options
    from temper.errors import Fault


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="data files, recipes (.yaml), rewards (my.py:function)"
    )
    parser.add_argument("--tasks", default="", metavar="NAMES", help="built-in tasks to check, comma-separated")
    parser.add_argument("--shape", default=None, help="what the rows are, where columns leave a choice")
    parser.add_argument(
        "--columns", default="", metavar="ROLE=COLUMN,…", help="for example prompt=frage,answer=antwort"
    )
    parser.add_argument(
        "--answer", choices=("math", "text"), default="math", help="how answers compare (default: math)"
    )
    parser.add_argument("--language", default="en", help="language of the thinking (default: en)")
    add_reply_argument(parser)
    parser.add_argument("--rewards", default="accuracy,format", help="default: accuracy,format; also my.py:function")
    parser.add_argument("--model", default=None, metavar="MODEL", help="measure rows in the tokens of this model")
    drop = "error (the default) or drop, as in a task: rows whose answer cannot be verified are left out"
    parser.add_argument("--unverifiable", choices=("error", "drop"), default="error", help=drop)
    parser.add_argument("--skip-bad", action="store_true", help="go on without bad rows, and say which")
    parser.add_argument("--write", default=None, metavar="FILE", help="write the good rows of one data file, as .jsonl")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.commands import lint
    from temper.errors import TemperError

    options = read_options(args)
    named = {file: lint.lint(file, options) for file in args.files if not lint.is_reward(file)}
    builtin = [lint.lint_builtin(name, options) for name in split(args.tasks)]
    prompts = [prompt for report in (*named.values(), *builtin) for prompt in report.prompts]
    reports = [named[file] if file in named else lint.lint(file, options, prompts) for file in args.files] + builtin
    notes = lint.compare(reports)
    if args.write:
        lint.write_good(reports, args.write)
    if args.json:
        print(json.dumps(as_json(reports, notes), indent=1))
    else:
        print("\n".join(line for report in reports for line in render(report)))
    sys.stdout.flush()
    for note in [note for report in reports for note in report.notes] + notes:
        tell(note.render())
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        raise TemperError(faults, next(report.code for report in reports if report.faults))
    return 0


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_options(args: argparse.Namespace) -> Options:
    """The options with what can be wrong about them told. Raises `ConfigError` with every fault."""
    from temper.commands.lint import Options
    from temper.data.rows import nearest
    from temper.data.shapes import SHAPES
    from temper.errors import ConfigError, Fault
    from temper.rewards.names import our_names

    faults = []
    if not args.files and not split(args.tasks):
        faults.append(Fault("nothing to check", fix="name a file: `temper check train.jsonl`"))
    if args.shape is not None and args.shape not in SHAPES:
        close = nearest(args.shape, SHAPES)
        fix = f"did you mean `{close}`?" if close else ""
        faults.append(Fault(f"no shape `{args.shape}`", why=f"shapes: {', '.join(SHAPES)}", fix=fix))
    columns, wrong = read_columns(args.columns)
    faults += wrong
    if args.write and len(args.files) + len(split(args.tasks)) != 1:
        faults.append(Fault("--write takes the good rows of one file", fix="check the files one by one"))
    if faults:
        raise ConfigError(faults)
    rewards = tuple(our_names(split(args.rewards), lambda text: tell(f"note: {text}")))
    form = args.reply or "tags"
    how = {"unverifiable": args.unverifiable, "reply": form}
    return Options(args.shape, columns, args.answer, args.language, rewards, args.model, args.skip_bad, **how)


def read_columns(text: str) -> tuple[dict[str, str], list[Fault]]:
    """What `--columns` says, by role, and what is wrong with it.

    >>> read_columns("prompt=frage,answer=antwort")
    ({'prompt': 'frage', 'answer': 'antwort'}, [])
    """
    from temper.errors import Fault

    pairs = [part.partition("=") for part in split(text)]
    wrong = any(not role or not column for role, _, column in pairs)
    faults = [Fault(f"--columns {text}", why="expected role=column", fix="--columns prompt=frage")] if wrong else []
    return {role.strip(): column.strip() for role, _, column in pairs}, faults


def render(report: FileReport) -> list[str]:
    """What is known about one file, as lines of text."""
    from temper.errors import escape

    head = f"{report.name}: {report.what}"
    if report.rows is not None:
        head += f", {report.rows:,} row{'s' * (report.rows != 1)}"
        head += f", {report.bad_rows:,} bad" if report.bad_rows else ""
    lines = [escape(head)]
    if report.rewards:
        means = ", ".join(f"{name} {mean:g}" for name, mean in report.rewards.items())
        lines.append(f"  mean reward of the gold answers: {means}")
    if report.tokens:
        lines.append("  tokens: " + ", ".join(f"{name} {count:,}" for name, count in report.tokens.items()))
    return [*lines, "  not ok" if report.faults else "  ok"]


def as_json(reports: list[FileReport], notes: list) -> dict[str, Any]:
    return {
        "ok": not any(report.faults for report in reports),
        "files": [
            {
                "file": report.name,
                "what": report.what,
                "shape": report.shape,
                "columns": dict(report.columns),
                "rows": report.rows,
                "bad_rows": report.bad_rows,
                "rewards": dict(report.rewards),
                "tokens": dict(report.tokens),
                "errors": [_fault_json(fault) for fault in report.faults],
                **_notes_json(report.notes),
            }
            for report in reports
        ],
        **_notes_json(notes),
    }


def _fault_json(fault: Any) -> dict[str, str]:
    return {"what": fault.what, "where": fault.where, "why": fault.why, "fix": fault.fix}


def _notes_json(notes: Any) -> dict[str, list]:
    return {
        f"{level}s": [_fault_json(note.fault) for note in notes if note.level == level] for level in ("warning", "note")
    }
