"""`temper import-config FILE`: a recipe made of a config of TRL, Open-R1, verl or OpenRLHF, and each key's fate.

The recipe goes to standard output, or to the file that `--out` names; the list stands in it as comments.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from temper.errors import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a YAML or JSON file, or a script with the command")
    parser.add_argument("--model", metavar="MODEL", help="the model to start from, in place of the config's")
    parser.add_argument("--train", metavar="FILE", help="the data to train on, in place of the config's")
    parser.add_argument("--test", metavar="FILE", help="a task's held-out file")
    parser.add_argument(
        "--stage", choices=("sft", "grpo", "ppo"), help="what is trained, where the config leaves it open"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the recipe into this file")
    parser.add_argument("--json", action="store_true", help="print recipe and list as one JSON object")


def run(args: argparse.Namespace) -> int:
    from temper.errors import ConfigError, Fault
    from temper.recipe.foreign.convert import convert
    from temper.recipe.foreign.read import TOOLS, read_settings

    tool, settings = read_settings(args.file)
    files = {"model": args.model, "train": args.train, "test": args.test}
    made = convert(tool, settings, args.file.stem, files, args.stage)
    text = made.text(args.file.name)
    if args.out is not None:
        try:
            with args.out.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except FileExistsError:
            raise ConfigError(Fault(f"`{args.out}` is there already", fix="name another file, or remove it")) from None
    if args.json:
        keys = [asdict(line) for line in made.lines]
        print(json.dumps({"tool": tool, "stage": made.kind, "recipe": made.recipe, "keys": keys}, ensure_ascii=False))
    else:
        print("\n".join(made.listing()) if args.out is not None else text, end="\n" if args.out is not None else "")
    counts = Counter(line.fate for line in made.lines)
    told = ", ".join(f"{counts[fate]} {fate}" for fate in ("converted", "defaulted", "dropped"))
    then = f"look at it with `temper plan {args.out}`" if args.out is not None else "`--out FILE` writes it to a file"
    tell(f"{TOOLS[tool]}, a stage `{made.kind}`: {told}; {then}")
    return 0
