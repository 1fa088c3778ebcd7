"""`temper init NAME [FILE]`: a shipped recipe as a file of your own."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path

from temper.errors import ConfigError, Fault, ResourceError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a shipped recipe; without one, they are listed")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="where to write it (default: NAME.yaml)")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Copy the recipe; never over a file that is already there."""
    from temper.recipe.sources import RECIPES, shipped_recipes
    from temper.recipe.words import did_you_mean

    names = shipped_recipes()
    if args.name is None:
        told = {name: description(RECIPES / f"{name}.yaml") for name in names}
        print(json.dumps(told, ensure_ascii=False) if args.json else "\n".join(f"{n:<18} {told[n]}" for n in names))
        return 0
    if args.name not in names:
        why = f"the shipped recipes are {', '.join(names)}"
        raise ConfigError(Fault(f"no shipped recipe `{args.name}`", why=why, fix=did_you_mean(args.name, names)))
    target = args.file or Path(f"{args.name}.yaml")
    text = (RECIPES / f"{args.name}.yaml").read_text(encoding="utf-8")
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(Fault(f"`{target}` is there already", fix="name another file, or remove it")) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        raise ResourceError(Fault("the recipe cannot be written", str(target), error.strerror or str(error))) from None
    print(json.dumps({"recipe": args.name, "file": str(target)}) if args.json else target)
    return 0


def description(path: Path) -> str:
    """What a recipe says of itself in a line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("description:"):
            return line.removeprefix("description:").strip().strip("\"'")
    return ""
