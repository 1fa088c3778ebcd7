"""A few steps of one stage, in a directory that is thrown away: what a step takes, and what later stages start from.

Usage: python -m temper.planning.rehearsal < SPEC.json      one JSON object on standard output (see `probe.py`)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

from temper.environment import go_offline, settle_torch, wait_passively
from temper.errors import DataError, Preempted, TemperError
from temper.planning.given import inputs, tasks
from temper.planning.preflight import CheckLog
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe, Stage
from temper.record.cost import Meter
from temper.stages.context import StageContext

MIN_STEPS = 3  # the first warms up: it starts sampler processes, and memory is touched for the first time
OVERTIME = 1.0  # seconds: where a step takes longer, fewer steps do


@dataclass(frozen=True)
class Rehearsed:
    """What `steps` of a stage's `total` steps took; times of a step are in seconds, wall and CPU.

    `setup` is what comes before the first step and after the last. A stage without steps counts as one step.
    """

    steps: int
    total: int
    seconds: float
    cpu_seconds: float
    setup_seconds: float
    setup_cpu_seconds: float
    peak_memory_bytes: int
    device_bytes: int | None
    finished: bool


class Watch(CheckLog):
    """The log of a rehearsal, and the clock that ends it: `stopping` is asked after every step."""

    def __init__(self, meter: Meter, seconds: float):
        super().__init__()
        self.meter, self.limit = meter, seconds
        self.total = 0
        self.began: tuple[float, float] | None = None  # when the first step did, where the stage says so
        self.marks: list[tuple[float, float]] = []  # after each step, since the stage began: wall and CPU seconds

    def resume_at(self, step: int, kept: Path | None = None) -> None:
        spent = self.meter.spent()
        self.began = (spent.seconds, spent.cpu_seconds)

    def step(self, step: int, total: int, metrics: Mapping[str, object]) -> None:
        self.total = total

    def stopping(self) -> bool:
        spent = self.meter.spent()
        self.marks.append((spent.seconds, spent.cpu_seconds))
        before = self.marks[-2][0] if len(self.marks) > 1 else (self.began or (0.0, 0.0))[0]
        enough = len(self.marks) >= MIN_STEPS or spent.seconds - before > OVERTIME
        return enough and spent.seconds >= self.limit

    def times(self, after: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
        """(wall, CPU) of a step, the median without the first, and of what is not steps; `after` is what leaving the
        stage's result took.

        >>> watch = Watch(Meter(), 1)
        >>> watch.marks = [(5.0, 6.0), (7.0, 9.0), (9.0, 12.0)]
        >>> watch.times((0.5, 0.5))
        ((2.0, 3.0), (3.5, 3.5))
        """
        first = self.marks[0]
        if len(self.marks) == 1:
            began = self.began or (0.0, 0.0)
            return (first[0] - began[0], first[1] - began[1]), (began[0] + after[0], began[1] + after[1])
        steps = [(end[0] - start[0], end[1] - start[1]) for start, end in pairwise(self.marks)]
        wall, cpu = (median(times) for times in zip(*steps, strict=True))
        return (wall, cpu), (max(0.0, first[0] - wall) + after[0], max(0.0, first[1] - cpu) + after[1])


def rehearse(
    stage: Stage, recipe: Recipe, artifacts: Mapping[str, Path], folder: Path, seconds: float, warm: bool = False
) -> Rehearsed:
    """Run `stage` for about `seconds`, from what `artifacts` has of the stages before it, in the empty `folder`. What
    it would have made, as far as it came, is left in `folder/out`. With `warm`, what the first stage that loads a model
    spends on importing libraries is spent before."""
    module = stage.module
    settle_torch(recipe.threads)
    if warm:
        load_a_model(stage, artifacts)
    with Meter() as meter:
        watch = Watch(meter, seconds)
        ctx = StageContext(
            name=stage.name,
            seed=recipe.seed,
            out=folder / "out",
            work=folder / "work",
            inputs=inputs(stage, artifacts),
            tasks=tasks(stage, recipe, artifacts),
            log=watch,  # type: ignore[arg-type]
            stopping=watch.stopping,
            meant=stage.meant,
        )
        for path in (ctx.out, ctx.work):
            path.mkdir(parents=True)
        finished = SHORTENED.get(stage.kind, run_whole)(module, stage.config, ctx)
        end = meter.spent()
        if not watch.marks:
            watch.marks, watch.total = [(end.seconds, end.cpu_seconds)], 1
        last = watch.marks[-1]
        if not finished:
            leave_model(stage, ctx)
            last, spent = (end.seconds, end.cpu_seconds), meter.spent()
        else:
            spent = end
    (wall, cpu), (setup, setup_cpu) = watch.times((spent.seconds - last[0], spent.cpu_seconds - last[1]))
    steps, peak = len(watch.marks), end.peak_memory_bytes
    return Rehearsed(steps, max(watch.total, steps), wall, cpu, setup, setup_cpu, peak, device_bytes(), finished)


def load_a_model(stage: Stage, artifacts: Mapping[str, Path]) -> None:
    """Load the first model that the stage names, if any, and forget it."""
    paths = inputs(stage, artifacts)
    for ref in stage.references:
        if ref.kind == "model" and ref.text in paths:
            from temper.models.load import load_model

            load_model(paths[ref.text])
            return


def device_bytes() -> int | None:
    """The most memory of a CUDA device that PyTorch held; None if it used none."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() if torch is not None and torch.cuda.is_initialized() else None


def run_whole(module: Any, config: Any, ctx: StageContext) -> bool:
    """Whether the stage came to its end."""
    try:
        module.run(config, ctx)
    except Preempted:
        return False
    return True


def leave_model(stage: Stage, ctx: StageContext) -> None:
    """Of a stage that trains a model and was stopped: the model as it is in the checkpoint it left. A stage of another
    make leaves none; those after it then start from what it started from."""
    if stage.makes != "model" or not (ctx.work / "checkpoints").exists():
        return
    from temper.stages.models import finish_model, open_learner
    from temper.text.chat import ChatFormat
    from temper.train.checkpoint import latest_checkpoint

    try:
        ref = stage.config.model  # type: ignore[attr-defined]
        found = latest_checkpoint(ctx.work / "checkpoints", ctx.log.warn)
        assert found is not None
        learner = open_learner(ctx.inputs[ref], stage.config, 1, ctx)  # type: ignore[arg-type]
        learner.load_state(found.tensors, found.step)
        chat = ChatFormat.load(ctx.inputs[ref])
        finish_model(learner, chat, ctx, ref, [f"{found.step} steps of a rehearsal"])
    except Exception as problem:
        print(f"{stage.name} leaves no model after its rehearsal: {problem!r}", file=sys.stderr)
        shutil.rmtree(ctx.out)


# -- rejection sampling: what it keeps is the data of a later stage ---------------------------------------------------


def run_sample(module: Any, config: Any, ctx: StageContext) -> bool:
    """Two chunks of prompts, or one where that takes long; then as many rows as the whole stage can leave at most."""
    from temper.data.conversations import load_conversations
    from temper.data.tasks import load_prompts

    counts = []
    for name in config.tasks:
        task = ctx.tasks[name]
        assert task.train is not None
        prompts = load_prompts(task.train, name, task.config, golds="none", tell=lambda _: None)
        counts.append(len(prompts[: config.max_prompts]))
    few = min(max(counts), max(1, 2 * module.PROMPTS_A_CHUNK // len(counts)))
    drawn = sum(min(count, few) for count in counts)
    mixed = [messages for ref in config.mix for messages in load_conversations(ctx.inputs[ref], config.columns)]
    mixed_rows = [{"messages": [{"role": m.role, "content": m.content} for m in turns]} for turns in mixed]
    kept: list[dict] = []

    def harvest(prompts: int, ctx: StageContext) -> None:
        module.run(config.model_copy(update={"max_prompts": prompts, "mix": []}), ctx)

    try:
        try:
            harvest(few, ctx)
        except Preempted:  # a chunk that is there is not sampled again
            harvest(max(1, few // 2), replace(ctx, stopping=lambda: False))
        kept = [json.loads(line) for line in (ctx.out / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    except DataError:  # nothing kept: the model is as good as untrained
        pass
    most = sum(counts) * config.max_per_prompt
    rows = [*islice(cycle(kept or mixed_rows), most if kept or mixed_rows else 0), *mixed_rows]
    if rows:
        write_lines(ctx.out / "data.jsonl", rows)
    ctx.log.step(1, -(-sum(counts) // module.PROMPTS_A_CHUNK), {})
    return drawn == sum(counts)


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_edit(module: Any, config: Any, ctx: StageContext) -> bool:
    """Nobody is waited for."""
    return run_whole(module, config.model_copy(update={"wait": False}), ctx)


SHORTENED: dict[str, Callable[[Any, Any, StageContext], bool]] = {"sample": run_sample, "edit": run_edit}


def main() -> None:
    """Answer the request on standard input; whatever a library prints goes to standard error."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = json.load(sys.stdin)
    go_offline()
    wait_passively()
    recipe, _ = load_recipe(spec["recipe"], spec["settings"])
    for block, round in spec["ended"].items():
        recipe = recipe.ended(block, round)
    artifacts = {name: Path(path) for name, path in spec["artifacts"].items()}
    stage, folder = recipe.by_name[spec["stage"]], Path(spec["folder"])
    try:
        found = rehearse(stage, recipe, artifacts, folder, spec["seconds"], spec["warm"])
    except TemperError as error:
        answer.write(json.dumps({"error": str(error)}))
    else:
        answer.write(json.dumps(asdict(found)))
    answer.close()


if __name__ == "__main__":
    main()
