"""`temper launch SCHEDULER RECIPE`: a commented file by which a scheduler starts the run. Nothing is submitted."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from temper.commands.run import add_recipe_arguments
from temper.errors import ConfigError, Fault, tell

SCHEDULERS = ("slurm", "skypilot", "kubernetes", "ray")
IMAGE = "pytorch/pytorch:latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scheduler", choices=SCHEDULERS, help="what starts it")
    add_recipe_arguments(parser)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines that train (default: 1)")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="devices of each machine (default: 8)")
    parser.add_argument(
        "--server-nodes", type=int, default=1, metavar="N",
        help="further machines that sample, where a stage has `engine` (default: 1)",
    )  # fmt: skip
    parser.add_argument("--server-gpus", type=int, default=1, metavar="N", help="devices of a server (default: 1)")
    parser.add_argument(
        "--shared", type=Path, default=Path("/shared"), metavar="DIR",
        help="a directory that all machines see under this path (default: /shared)",
    )  # fmt: skip
    parser.add_argument("--time", default="24:00:00", metavar="TIME", help="of a job (Slurm; default: 24:00:00)")
    parser.add_argument("--image", default=IMAGE, help="a container image with temper in it (Kubernetes)")


def run(args: argparse.Namespace) -> int:
    from temper.launch.job import Job, faults_of, render, servers_of, slug
    from temper.recipe.reader import load_recipe

    faults = list(faults_of(args.nodes, args.gpus, args.server_nodes, args.server_gpus))
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", args.time, re.ASCII):
        faults.append(Fault(f"--time {args.time}: no length of time", fix="such as 24:00:00 or 2-12:00:00"))
    if not args.shared.is_absolute() or not str(args.shared).isprintable():
        faults.append(Fault(f"--shared {args.shared}: no absolute path", fix="such as /shared"))
    if not args.image.isprintable() or not args.image.strip():
        faults.append(Fault("--image names no image"))
    recipe, found = load_recipe(args.recipe, args.settings)
    if recipe is None or faults or found:
        raise ConfigError([*faults, *found])
    out = args.out if args.out is not None else args.shared / recipe.default_folder
    name = slug(recipe.name)
    job = Job(
        recipe=args.recipe if recipe.source.path is None or not Path(args.recipe).exists()
        else str(Path(args.recipe).resolve()),
        name=name,
        settings=tuple(args.settings),
        shared=str(args.shared),
        out=str(out.absolute() if args.out is not None else out),
        nodes=args.nodes,
        gpus=args.gpus,
        time=args.time,
        image=args.image,
        servers=servers_of(recipe, args.server_nodes, args.gpus // args.server_gpus, args.server_gpus),
    )  # fmt: skip
    text = render(args.scheduler, job, ["temper", *sys.argv[1:]])
    print(json.dumps({"scheduler": args.scheduler, "text": text}) if args.json else text, end="\n" if args.json else "")
    if args.scheduler != "ray" and not Path(job.out).is_relative_to(args.shared):
        tell(f"warning: {job.out} is not below {args.shared}: all machines have to see it")
    return 0
