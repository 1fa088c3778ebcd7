"""`temper sweep RECIPE --over stage.key=a,b,c`: one run for each value, one table of them all."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.commands.run import folder
from temper.errors import tell

if TYPE_CHECKING:
    from temper.pipeline.points import Point
    from temper.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe (tiny, smoke) or a YAML file")
    parser.add_argument(
        "--over", action="append", required=True, metavar="KEY=A,B,C",
        help="a key and its values, as --set writes them; given several times, every combination is run. "
        "KEY,KEY=A:X,B:Y are keys that move together",
    )  # fmt: skip
    parser.add_argument("--seeds", default="", metavar="0,1,2", help="run every value with each of these seeds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                        help="change a value of the recipe for all runs")  # fmt: skip
    parser.add_argument("--at", default="", metavar="10,50", help="show the training metrics at these steps as well")
    parser.add_argument("--window", type=int, default=5, help="each metric is the mean of so many steps (default: 5)")
    parser.add_argument("--stage", metavar="STAGE", help="whose metrics are shown (default: the stage that is swept)")
    parser.add_argument("--out", type=folder, metavar="DIR", help="where (default: runs/NAME-sweep-HASH)")
    parser.add_argument(
        "--changed", action="store_true",
        help="accept that stages which stopped half-way start again, because the recipe was changed",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what sweep.json holds")


def run(args: argparse.Namespace) -> int:
    from temper.artifacts import clean_leftovers
    from temper.pipeline.points import describe, downstream, points_of
    from temper.pipeline.run import say
    from temper.pipeline.sweep import Runner, check_points, is_done
    from temper.record.rundir import Lock, writing

    axes, seeds, at = arguments(args)
    points = points_of(axes, seeds)
    root = args.out or default_folder(args, points, axes)
    plans = check_points(args.recipe, args.settings, points, root)
    recipe = plans[0].recipe
    stage = chosen_stage(args.stage, plans[0], axes)
    data: dict[str, Any] = {
        "recipe": recipe.name, "folder": str(root), "stage": stage, "over": describe(axes), "seeds": seeds,
        "settings": args.settings, "window": args.window, "at": at,
    }  # fmt: skip
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = Lock(root / "lock")
        clean_leftovers(root / "artifacts")
    runner = Runner()
    codes = {point.name: 0 for point, plan in zip(points, plans, strict=True) if is_done(plan)}
    if codes:
        say(f"{len(codes)} of {len(points)} runs are finished")
    try:
        write(gather(data, points, codes, root, downstream(recipe, stage)), root)
        with runner.signals():
            for number, point in enumerate(points, 1):
                say(f"run {number}/{len(points)}: {point.name}")
                codes[point.name] = run_point(args, runner, point, root)
                write(gather(data, points, codes, root, downstream(recipe, stage)), root)
                if runner.code is not None:
                    say("stopped: run the same command again to go on")
                    return int(runner.code)
    finally:
        lock.release()
    found = gather(data, points, codes, root, downstream(recipe, stage))
    print(json.dumps(found, ensure_ascii=False) if args.json else as_text(found, root))
    return next((code for code in codes.values() if code), 0)


# -- what was asked for -----------------------------------------------------------------------------------------------


def arguments(args: argparse.Namespace) -> tuple[list[Any], list[int], list[int]]:
    """The axes, the seeds and the steps. Raises ConfigError with the faults of all of them."""
    from temper.errors import ConfigError, Fault
    from temper.pipeline.points import parse_over

    axes, faults = [], []
    for text in args.over:
        try:
            axes.append(parse_over(text))
        except ConfigError as error:
            faults += error.faults
    numbers = []
    for option, text, least in (("--seeds", args.seeds, 0), ("--at", args.at, 1)):
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        wrong = [part for part in parts if not (part.isascii() and part.isdigit() and int(part) >= least)]
        if wrong:
            faults.append(Fault(f"`{option} {text}`: `{wrong[0]}` is no whole number of at least {least}",
                                fix=f"write `{option} 1,2,3`"))  # fmt: skip
        numbers.append(list(dict.fromkeys(int(part) for part in parts if part not in wrong)))
    if args.window < 1:
        faults.append(Fault(f"--window {args.window}: at least 1"))
    if faults:
        raise ConfigError(faults)
    return axes, numbers[0], numbers[1]


def default_folder(args: argparse.Namespace, points: list[Point], axes: list[Any]) -> Path:
    from temper.errors import ConfigError
    from temper.pipeline.points import default_sweep_folder
    from temper.pipeline.sweep import settings_of
    from temper.recipe.reader import load_recipe

    recipe, faults = load_recipe(args.recipe, settings_of(args.settings, points[0]))
    if faults:
        raise ConfigError(faults)
    return default_sweep_folder(recipe, axes)


def chosen_stage(name: str | None, plan: Plan, axes: list[Any]) -> str:
    from temper.errors import ConfigError, Fault
    from temper.pipeline.points import swept_stage
    from temper.recipe.words import did_you_mean

    known = list(plan.recipe.by_name)
    if name is not None and name not in known:
        raise ConfigError(Fault(f"--stage {name}: the recipe has no such stage", "", f"they are {', '.join(known)}",
                                did_you_mean(name, known)))  # fmt: skip
    return name or swept_stage(plan.recipe, axes)


# -- running ----------------------------------------------------------------------------------------------------------


def run_point(args: argparse.Namespace, runner: Any, point: Point, root: Path) -> int:
    """Run what is not done of one point; its exit code. What is wrong is said, and loses no other point."""
    from temper.errors import TemperError
    from temper.pipeline.run import say
    from temper.pipeline.sweep import is_done, link_artifacts, settings_of, share
    from temper.planning.preflight import prepare

    out, settings = root / point.name, settings_of(args.settings, point)
    try:
        link_artifacts(out)
        plan, _ = prepare(args.recipe, settings, out)
        share(plan)
    except TemperError as error:
        tell(error.render())
        return int(error.code)
    if is_done(plan):
        say("done already")
        return 0
    code = runner.run(args.recipe, settings, out, args.changed)
    if code and runner.code is None:
        say(f"{point.name} failed with exit code {code}; the other runs go on")
    return code


# -- what came of it --------------------------------------------------------------------------------------------------


def gather(
    data: dict[str, Any], points: list[Point], codes: dict[str, int], root: Path, models: list[str]
) -> dict[str, Any]:
    """What sweep.json holds: the numbers of every run, and of every combination of values over its seeds."""
    from temper.report.best import best_settings
    from temper.report.seeds import differences
    from temper.report.sweep import measure, merge_seeds

    found = []
    for point in points:
        values = point.values()
        code = codes.get(point.name)
        found.append({
            "run": str(root / point.name),
            "values": {key: value for key, value in values.items() if key != "seed" or not data["seeds"]},
            "seed": values.get("seed") if data["seeds"] else None,
            "state": state_of(code),
            "exit_code": code,
            **(measure(root / point.name, data["stage"], models, data["at"], data["window"]) if code == 0 else {}),
        })  # fmt: skip
    said = {"differences": differences(found), "best": best_settings(found, data["stage"])}
    return {**data, "points": found, "rows": merge_seeds(found), **said}


def state_of(code: int | None) -> str:
    from temper.errors import Exit

    if code in (Exit.PREEMPTED, Exit.INTERRUPTED):
        return "stopped"
    return "waiting" if code is None else "failed" if code else "done"


def write(found: dict[str, Any], root: Path) -> None:
    """sweep.json, sweep.csv and sweep.html, each replaced in one step."""
    from temper.artifacts import write_atomically
    from temper.record.rundir import writing
    from temper.report.sweep import as_csv
    from temper.report.sweep_page import page

    with writing(root):
        write_atomically(root / "sweep.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        write_atomically(root / "sweep.csv", as_csv(found))
        write_atomically(root / "sweep.html", page(found))


def as_text(found: dict[str, Any], root: Path) -> str:
    from temper.report.sweep import render

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [f"sweep:   {root}", f"page:    {root / 'sweep.html'}", f"numbers: {root / 'sweep.csv'}"]
    return "\n\n".join([render(found, width), "\n".join(lines)])
