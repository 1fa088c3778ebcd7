"""A recipe that can be started from a page, and a program that stands for `temper` there."""

from __future__ import annotations

import sys
from pathlib import Path

from temper.ui.library import Library
from temper.ui.recipes import Recipes
from temper.ui.starts import Starts

RECIPE = """\
name: small
tasks:
  sums: {train: sums.jsonl, test: sums.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  rl: {stage: grpo, model: "@base", tasks: [sums], max_steps: 3}
"""
# Stands for `temper`: a plan of one stage; a run that holds its directory's lock until it is told to stop.
PROGRAM = """\
import json, signal, sys, time
from pathlib import Path
from temper.record.rundir import Lock
out = Path(sys.argv[sys.argv.index("--out") + 1])
if sys.argv[1] == "plan":
    print("warning: mind the gap", file=sys.stderr)
    stage = {"stage": "rl", "kind": "grpo", "runs": True, "state": "run", "why": ["never run"], "seconds": None}
    sizes = dict.fromkeys(("memory_bytes", "memory_available_bytes", "disk_bytes", "disk_free_bytes"), 1000)
    print(json.dumps({"stages": [stage], "half_done": [], "in_use": None, "fits": True, "run": str(out),
                      "arguments": sys.argv[2:], **sizes}))
    sys.exit()
out.mkdir(parents=True)
lock = Lock(out / "lock")
(out / "run.json").write_text("{}")
print("began", " ".join(sys.argv[2:]), file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
time.sleep(60)
"""


def make_starts(folder: Path) -> Starts:
    """Over `folder/runs` and the recipe `folder/small.yaml`."""
    (folder / "small.yaml").write_text(RECIPE)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "runs").mkdir()
    program = (sys.executable, str(folder / "program.py"))
    return Starts(Library([folder / "runs"]), Recipes([folder / "small.yaml"]), program)
