"""`temper ui [RUN…]`: a page of this machine's own to look through runs, live or done, to talk to their models, and to
start and stop runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from temper.commands.serve import add_host_arguments

MOST_RATE = 100.0  # requests a second
MOST_FLIPPED = 200  # prompts of one comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "run directories, names of runs under runs/, folders with some in them (default: runs), or directories of "
    text += "models to talk to"
    parser.add_argument("runs", metavar="RUN", nargs="*", help=text)
    text = "a recipe's file that can be started from the page, beside the shipped ones and those in the folders shown; "
    parser.add_argument("--recipe", action="append", default=[], metavar="FILE", help=text + "can be repeated")
    text = "nothing is started, stopped or written into run directories"
    parser.add_argument("--read-only", action="store_true", help=text)
    add_host_arguments(parser, 8010)


def run(args: argparse.Namespace) -> int:
    """Show the page until interrupted. The link that opens it is standard output."""
    from temper.errors import ConfigError, Fault
    from temper.serve.server import address_of, bind, check_installed, serve_app, warn_of_host

    if not 0 <= args.port <= 65535:
        raise ConfigError(Fault(f"--port {args.port} is out of range", fix="from 0 (any) to 65535"))
    check_installed()
    from temper.serve.guard import Guard, Rules
    from temper.ui.app import Desk, Pages, make_app
    from temper.ui.library import Library
    from temper.ui.models import Models
    from temper.ui.recipes import Recipes
    from temper.ui.session import ENTER, Session
    from temper.ui.starts import Starts

    shown = folders(args.runs)
    talked_to = [path for path in shown if (path / "config.json").is_file()]
    shown = [path for path in shown if path not in talked_to] or folders([])
    library, known = Library(shown), Recipes(recipes(args.recipe), shown if args.runs else [*shown, Path()])
    with bind(args.host, args.port) as bound, Models(talked_to) as models:
        address = address_of(bound, args.host)
        if warning := warn_of_host(args.host):
            print(warning.render("warning"), file=sys.stderr)
        desk = Desk(library, models, Pages(explain, compare), None if args.read_only else Starts(library, known))

        def offer(token: str) -> None:
            print(f"{address}{ENTER}?token={token}", flush=True)

        print("open this link in a browser; it works once, and Ctrl-C ends the page", file=sys.stderr)
        page = Session(make_app(desk), f"temper_{bound.getsockname()[1]}", offer)
        try:
            names = tuple(name.lower() for name in args.allow_host)
            serve_app(Guard(page, Rules(args.host, names, rate=MOST_RATE)), bound)
        finally:
            desk.closing = True
    return 0


def folders(references: list[str]) -> list[Path]:
    """The directories that are looked through. Raises ConfigError or ArtifactError for what is none."""
    from temper.runs import RUNS, find_run

    found = []
    for text in references or [str(RUNS)]:
        path = Path(text).expanduser()
        if os.path.isdir(path) or not references:
            found.append(path)  # runs may still come
        else:
            found.append(find_run(text))
    return found


def recipes(references: list[str]) -> list[Path]:
    """The files of recipes named. Raises ConfigError with each that is none."""
    from temper.errors import ConfigError, Fault
    from temper.recipe.sources import find_recipe, shipped_recipes

    found, faults = [], []
    for text in references:
        try:
            path = find_recipe(text).path
            found += [path] if text not in shipped_recipes() else []
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list[Fault](faults))
    return found


def explain(path: Path) -> list[dict[str, Any]]:
    from temper.commands.explain import explain as diagnose

    return diagnose(path, "")


def compare(first: str, second: str, task: str | None, metric: str | None) -> dict[str, Any]:
    """What `temper compare` tells, and the prompts that differ."""
    from temper.commands.compare import compare as pair
    from temper.commands.compare import flipped

    found = pair(first, second, task, metric)
    for name, of in found["tasks"].items():
        rows = flipped(first, second, name, of["metric"])
        of["flipped"], of["flipped_count"] = rows[:MOST_FLIPPED], len(rows)
    return found
