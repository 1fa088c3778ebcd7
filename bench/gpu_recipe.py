"""A shipped recipe with every stage on one device, and what each took, as one JSON line.

    python bench/gpu_recipe.py smoke FOLDER cuda

It is stopped as any run is (SIGTERM); what its finished stages took is told then, too.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from temper.recipe.reader import load_recipe
from temper.record.runfiles import read_object
from temper.report.ending import last_evaluation


def settings(name: str, device: str) -> list[str]:
    """`device` for every stage that computes with a model."""
    recipe, _ = load_recipe(name)
    return [f"--set={stage.name}.device={device}" for stage in recipe.stages if hasattr(stage.config, "device")]


def summary(record: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run's record says of its stages, and the accuracies of its last evaluation."""
    stages = {
        name: {key: stage.get(key) for key in ("state", "steps", "seconds", "cpu_seconds", "peak_memory_bytes")}
        for name, stage in record.get("stages", {}).items()
    }
    return {
        "recipe": record.get("recipe"),
        "state": record.get("state"),
        "seconds": sum(stage["seconds"] or 0 for stage in stages.values()),
        "versions": record.get("versions"),
        "stages": stages,
        "evaluation": evaluation,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="a shipped recipe with every stage on one device")
    parser.add_argument("recipe")
    parser.add_argument("folder", type=Path)
    parser.add_argument("device", choices=("cpu", "cuda"))
    given = parser.parse_args()
    folder = given.folder / given.recipe
    command = [sys.executable, "-m", "temper", "run", given.recipe, "--out", str(folder), "--json"]
    process = subprocess.Popen([*command, *settings(given.recipe, given.device)], stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    print(json.dumps(summary(read_object(folder / "run.json"), last_evaluation(folder))))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
