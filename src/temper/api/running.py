"""A recipe, run from Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.pipeline.run import Result


@dataclass(frozen=True)
class StepReport:
    """What a stage measured at a step: `step` of `total`, counted from 1."""

    stage: str
    step: int
    total: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run that is done: its directory, the stages that ran this time, and the last evaluation (None without one), as
    evaluation.json has it."""

    folder: Path
    ran: tuple[str, ...]
    evaluation: dict[str, Any] | None
    report: Path | None  # one HTML file; None if it could not be written

    def model(self, stage: str | None = None) -> Path:
        """The model that a stage made, the last one if no stage is named. Raises ConfigError, ArtifactError."""
        from temper.runs import last_model, stage_model

        return last_model(self.folder) if stage is None else stage_model(self.folder, stage)

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """What a stage measured, a row a step (docs/metrics.md has the names). Raises ConfigError for a stage that the
        run does not have."""
        from temper.errors import ConfigError, Fault
        from temper.recipe.words import did_you_mean
        from temper.record.metrics import read_rows

        folders = {path.name.partition("-")[2]: path for path in sorted((self.folder / "stages").glob("*-*"))}
        if stage not in folders:
            what = f"`{self.folder}` has no stage `{stage}`"
            raise ConfigError(Fault(what, why=f"its stages are {', '.join(folders)}", fix=did_you_mean(stage, folders)))
        return read_rows(folders[stage] / "metrics.jsonl")


def run(
    recipe: str | Path,
    settings: Mapping[str, Any] | Sequence[str] = (),
    *,
    out: str | Path | None = None,
    on_step: Callable[[StepReport], object] | None = None,
    accept_changes: bool = False,
    ranks: int = 1,
) -> Finished:
    """Run what is not done of a recipe, a shipped one by name or a file, as `temper run` does: killed and called again,
    it goes on where it stopped.

    `settings` are changes to it: `{"seed": 1, "rl.max_steps": 50}`, or `["seed=1"]`. `out` is the run directory.
    `on_step` is called after each step that is taken. What it raises stops the run and is raised here; where it returns
    False the run saves a checkpoint, and `Stopped` is raised: the same call goes on. `accept_changes`: stages that
    stopped half-way start again where the recipe was changed. `ranks`: processes on this machine that share out every
    step, this one among them (docs/scale.md).

    Raises TemperError with every fault before anything runs, or for what ended the run; Stopped.
    """
    from temper.environment import go_offline, wait_passively

    go_offline()
    wait_passively()
    from temper.distributed.ranks import given
    from temper.errors import ConfigError, Fault
    from temper.pipeline.run import run_recipe

    if ranks < 1:
        raise ConfigError(Fault(f"ranks={ranks}: there is at least one"))
    if given() is not None:
        why = "RANK and WORLD_SIZE say that this process is one of several"
        raise ConfigError(Fault("temper.run starts its ranks itself", why=why, fix="torchrun … -m temper run RECIPE"))
    texts = _settings(settings)
    tell = None if on_step is None else (lambda *seen: on_step(StepReport(*seen)))
    folder = None if out is None else Path(out)
    result = run_recipe(str(recipe), texts, folder, accept_changes, ["temper.run", str(recipe), *texts], tell, ranks)
    return Finished(result.plan.folder.root, result.ran, result.evaluation, write_report(result))


def _settings(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """As the command line writes them.

    >>> _settings({"rl.learning_rate": 1e-5, "tasks.mine.train": Path("a.jsonl"), "rl.tasks": ["a", "b"]})
    ['rl.learning_rate=1e-05', 'tasks.mine.train="a.jsonl"', 'rl.tasks=["a", "b"]']
    """
    if isinstance(settings, str):
        return [settings]
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in settings.items()]
    return list(settings)


def write_report(result: Result) -> Path | None:
    """The report of a run; None, with a warning, if it cannot be made: the run is complete all the same."""
    from temper.errors import TemperError
    from temper.pipeline.run import say

    folder = result.plan.folder.root
    path = folder / "report" / "index.html"
    if not result.ran and path.exists():
        return path
    try:
        from temper.report.html import write

        return write(folder)
    except TemperError as error:
        say("\n".join(fault.render("warning") for fault in error.faults))
    except Exception as error:
        say(f"warning: the report could not be written: {type(error).__name__}: {error}")
    return None
