"""`temper samples RUN`: completions with every reward beside them, filtered and sorted."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from temper.errors import tell

if TYPE_CHECKING:
    from temper.report.find import Query


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, or the name of one under runs/")
    parser.add_argument("--stage", help="only this stage's (default: all that have some)")
    parser.add_argument("--task", help="only this task's")
    parser.add_argument(
        "--step", type=int, help="rollouts of this training step, or of the nearest kept (default: held-out samples)"
    )
    for side, word in (("below", "less"), ("above", "more")):
        text = f"only rewards (or total) {word} than VALUE, for example accuracy=0.5; may be repeated"
        parser.add_argument(f"--reward-{side}", metavar="NAME=VALUE", action="append", default=[], help=text)
    verdict = parser.add_mutually_exclusive_group()
    verdict.add_argument("--right", action="store_const", const="right", dest="verdict", help="only right answers")
    verdict.add_argument("--wrong", action="store_const", const="wrong", dest="verdict", help="only wrong answers")
    text = "only completions that hit the length limit"
    verdict.add_argument("--truncated", action="store_const", const="truncated", dest="verdict", help=text)
    parser.add_argument("--sort", metavar="NAME", help="by a reward, total, tokens, advantage or step, lowest first")
    parser.add_argument("--reverse", action="store_true", help="highest (or last) first")
    parser.add_argument("-n", "--number", type=int, default=10, help="at most so many (default: 10)")
    parser.add_argument("--json", action="store_true", help="a JSON array, one row a line")


def run(args: argparse.Namespace) -> int:
    from temper.report.find import find
    from temper.report.picks import folded
    from temper.runs import read_run

    query = to_query(args)
    rows = find(read_run(args.run), query)
    nearest = next((row["step"] for row in rows if args.step not in (None, row.get("step", args.step))), None)
    if nearest is not None:
        tell(f"note: no rollouts of step {args.step} were kept; these are of step {nearest}")
    if args.json:
        number = len(rows[: args.number])
        print("[" + ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows[: args.number]) + "]")
    else:
        shown = folded(rows)[: args.number]
        number = sum(count for _, count in shown)
        if shown:
            print("\n\n".join(render(row, count) for row, count in shown))
    tell(f"{number} of {len(rows)} completions that fit")
    return 0


def to_query(args: argparse.Namespace) -> Query:
    """The query of the arguments; raises ConfigError with every fault of them."""
    from temper.errors import ConfigError, Fault
    from temper.report.find import Query

    faults: list[Fault] = []
    if args.number < 1:
        faults.append(Fault(f"-n {args.number}: at least 1"))

    def bounds(side: str, texts: list[str]) -> tuple[tuple[str, float], ...]:
        found = []
        for text in texts:
            name, _, value = text.partition("=")
            try:
                found.append((name.strip(), float(value)))
            except ValueError:
                fix = f"for example --reward-{side} accuracy=0.5"
                faults.append(Fault(f"--reward-{side} {text}: not NAME=VALUE", fix=fix))
        return tuple(found)

    below, above = bounds("below", args.reward_below), bounds("above", args.reward_above)
    if faults:
        raise ConfigError(faults)
    return Query(args.stage, args.task, args.step, below, above, args.verdict, args.sort, args.reverse)


def render(row: dict[str, Any], count: int = 1) -> str:
    """One completion, which `count` samples have in common, for a terminal or a pipe; control characters are shown as
    escapes.

    >>> print(render({"stage": "final_rl", "prompt_id": "a:1", "sample": 0, "prompt": "1+1", "gold": "2",
    ...               "reply": "<answer>2</answer>", "rewards": {"accuracy": 1.0}, "total": 1.0, "tokens": 9}))
    final_rl  a:1  sample 0  9 tokens
      prompt  1+1
      gold    2
      reply   <answer>2</answer>
      total 1.00  accuracy 1.00
    """
    from temper.record.lines import number
    from temper.report.programs import facts

    rewards = row.get("rewards") if isinstance(row.get("rewards"), dict) else {}
    head = [str(row.get("stage")), str(row.get("prompt_id"))]
    head += [f"{name} {row[name]}" for name in ("step", "sample") if row.get(name) is not None]
    head += [f"{row['tokens']} tokens"] if row.get("tokens") is not None else []
    head += [str(row["coverage"])] if row.get("coverage") else []
    head += [f"{count} equal replies"] if count > 1 else []
    head += ["truncated"] if row.get("finish_reason") == "length" else []
    scores = [("total", row.get("total")), *(rewards or {}).items()]
    scores += [("advantage", row["advantage"])] if row.get("advantage") is not None else []
    lines = [_one_line("  ".join(head))]
    lines += [f"  {key:<7} {_indented(row.get(key))}" for key in ("prompt", "gold", "reply")]
    lines += [f"  {name:<7} {_indented(text)}" for name, text in facts(row)]
    for name, values in (row.get("step_rewards") or {}).items():
        lines.append(_one_line(f"  steps   {name} {' '.join(map(number, values))}"))
    return "\n".join([*lines, "  " + _one_line("  ".join(f"{name} {number(value)}" for name, value in scores))])


def _one_line(text: str) -> str:
    from temper.errors import escape

    return escape(text.replace("\n", " "))


def _indented(value: Any) -> str:
    """Text with its new lines kept, under each other."""
    from temper.errors import escape

    text = "" if value is None else str(value)
    return ("\n" + " " * 10).join(escape(line) for line in text.split("\n"))
