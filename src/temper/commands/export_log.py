"""`temper export-log RUN [DIR]`: completions as `.eval` files, which Inspect's viewer opens."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from temper.errors import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, finished or not")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help="where (default: RUN/logs)")
    parser.add_argument("--rollouts", action="store_true", help="the kept completions of training as well")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """One file for each measured model and task, and with --rollouts for each kept step. 5 where there are none."""
    from temper.errors import ArtifactError, Fault, ResourceError
    from temper.report.find import sources
    from temper.runs import read_run

    folder = read_run(args.run)
    found = [source for source in sources(folder) if args.rollouts or source.step is None]
    if not found:
        fix = "add --rollouts for those of training" if sources(folder) else "let it run first"
        raise ArtifactError(Fault("there are no held-out completions", where=str(folder), fix=fix))
    target = args.directory or folder / "logs"
    try:
        target.mkdir(parents=True, exist_ok=True)
        written = [write(folder, target, source) for source in found]
    except OSError as problem:
        raise ResourceError(Fault("a log cannot be written", str(target), problem.strerror or str(problem))) from None
    if args.json:
        print(json.dumps({"run": str(folder), "files": [str(path) for path in written]}))
        return 0
    print("\n".join(map(str, written)))
    tell(f"look at them: pip install inspect-ai, then inspect view --log-dir {target}")
    return 0


def write(folder: Path, target: Path, source: Any) -> Path:
    """The log of one file of completions."""
    from temper.record.rundir import RunDir
    from temper.record.runfiles import read_lines
    from temper.record.trust import RunFiles
    from temper.report.inspectlog import write_log

    files = RunFiles(folder)
    record = files.object(folder / "run.json")
    work = RunDir(folder).work_folders().get(source.stage)
    settings = files.object(work / "stage.json").get("config", {}) if work is not None else {}
    step = {} if source.step is None else {"step": source.step}
    metadata = {"run": folder.name, "recipe": record.get("recipe"), "seed": record.get("seed"), "stage": source.stage}
    task = source.task or "rollouts"
    parts = [source.stage, task, *([f"step-{source.step:06d}"] if source.step is not None else [])]
    path = target / (re.sub(r"[^A-Za-z0-9._-]", "_", ".".join(parts)) + ".eval")
    about = metadata | step | {"settings": settings}
    write_log(path, read_lines(source.path), task=task, model=f"temper/{folder.name}/{source.stage}", metadata=about)
    return path
