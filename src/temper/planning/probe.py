"""What each stage will take, by rehearsing it: a few steps of every stage that will run, nothing kept of them.

A stage whose inputs are not there yet starts from what the rehearsal of the stage before it left: a model trained for
some seconds in place of the whole stage. Each stage has a process of its own, as its memory is to be its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.planning.given import inputs
from temper.planning.plan import Plan, StagePlan
from temper.planning.rehearsal import Rehearsed
from temper.record.checkpoints import last_checkpoint
from temper.stages import STAGES

PATIENCE = 2  # a stage is given up after this many times the seconds it was to take, and …
LOADING = 20.0  # … so many more, to import libraries and read models
STOPPED = "the probe was stopped before it was through with it"


@dataclass(frozen=True)
class Probed:
    """What a stage will take. `steps` are those still to take; `stand_ins` says what was used in place of what."""

    rehearsed: Rehearsed
    steps: int
    stand_ins: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return self.rehearsed.setup_seconds + self.steps * self.rehearsed.seconds

    @property
    def cpu_seconds(self) -> float:
        return self.rehearsed.setup_cpu_seconds + self.steps * self.rehearsed.cpu_seconds


class NotProbed(Exception):
    """A stage cannot be rehearsed; the message says why."""


def probe(
    plan: Plan, recipe: str, settings: Sequence[str], seconds: float, tell: Callable[[str], None],
    found: dict[str, Probed | str] | None = None,
) -> dict[str, Probed | str]:  # fmt: skip
    """Each stage that will run, by name: what it will take, or why that is not known. `recipe` and `settings` are those
    of the plan; a stage is rehearsed for about `seconds`, and given up where not one step ends in time. `found` is
    filled as it goes, so that whoever is interrupted has what was found until then."""
    found = {} if found is None else found
    found |= {planned.stage.name: STOPPED for planned in plan.running}
    artifacts = plan.artifacts()
    stand_ins: dict[str, str] = {}
    warm = False
    with tempfile.TemporaryDirectory(prefix="temper-probe-") as scratch:
        for planned in plan.running:
            name = planned.stage.name
            tell(f"probing {name} ({planned.stage.number} of {len(plan.stages)})")
            folder = Path(scratch) / planned.stage.folder
            missing = [used for used in planned.stage.uses if used not in artifacts]
            try:
                if missing:
                    raise NotProbed(f"it needs what {', '.join(missing)} makes")
                spec = {
                    "recipe": recipe,
                    "settings": list(settings),
                    "stage": name,
                    "artifacts": {stage: str(path) for stage, path in artifacts.items()},
                    "folder": str(folder),
                    "seconds": seconds,
                    "warm": warm,
                    "ended": {block.name: block.ended for block in plan.recipe.blocks if block.ended is not None},
                }
                rehearsed = rehearse_apart(spec)
            except NotProbed as problem:
                found[name] = str(problem)
                rehearsed = None
            else:
                used = tuple(stand_ins[used] for used in planned.stage.uses if used in stand_ins)
                found[name] = Probed(rehearsed, _steps_left(planned, rehearsed, plan), used)
            warm = warm or any(ref.kind == "model" for ref in planned.stage.references)
            artifact = _left(planned, folder / "out", artifacts)
            if artifact is not None:
                artifacts[name] = artifact
                if rehearsed is None or not rehearsed.finished:
                    stand_ins[name] = _stand_in(planned, rehearsed, artifact == folder / "out")
    return found


def _steps_left(planned: StagePlan, rehearsed: Rehearsed, plan: Plan) -> int:
    work = plan.folder.work_folders().get(planned.stage.name)
    done = last_checkpoint(work) if work is not None and planned.state == "continue" else None
    return max(0, rehearsed.total - (done or 0))


def _left(planned: StagePlan, out: Path, artifacts: Mapping[str, Path]) -> Path | None:
    """What stages that use this one start from: what its rehearsal left, else the model that it started from."""
    if out.is_dir() and (out / STAGES[planned.stage.kind].must_leave).exists():
        return out
    if planned.stage.makes != "model":
        return None
    return inputs(planned.stage, artifacts).get(getattr(planned.stage.config, "model", ""))


def _stand_in(planned: StagePlan, rehearsed: Rehearsed | None, own: bool) -> str:
    name = planned.stage.name
    if rehearsed is None or not own:
        return f"the model that {name} starts from in place of {name}"
    if planned.stage.makes == "model":
        return f"{name} after {rehearsed.steps} of {rehearsed.total} steps"
    return f"{name} as if every prompt were kept"


def rehearse_apart(spec: Mapping[str, Any]) -> Rehearsed:
    """`rehearsal.main` in a process of its own. Raises NotProbed."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "temper.planning.rehearsal"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    limit = LOADING + PATIENCE * spec["seconds"]
    try:
        output, errors = process.communicate(json.dumps(spec), timeout=limit)
    except subprocess.TimeoutExpired:
        why = f"not one step of it ended within {limit:.0f} s; --probe {10 * spec['seconds']:.0f} waits longer"
        raise NotProbed(why) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and the sampler processes it may have left
        process.wait()
    answer: dict[str, Any] = {}
    with suppress(ValueError):
        answer = json.loads(output)
    if "error" in answer:
        raise NotProbed(answer["error"])
    if not answer:
        last = errors.strip().splitlines()[-1:] or ["nothing was said"]
        raise NotProbed(f"its rehearsal ended with code {process.returncode}: {last[0]}")
    return Rehearsed(**answer)
