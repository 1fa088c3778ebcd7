"""The loop over stages: each is run once, in a directory that a kill at any moment leaves usable."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temper.artifacts import begin, read_manifest, seal, set_aside, write_atomically
from temper.environment import give_back_memory, go_offline, settle_torch, wait_passively, without_collector
from temper.errors import DataError, Exit, Fault, HandedOver, Preempted, escape, tell
from temper.halting import Halt, rescue
from temper.kernels import choice
from temper.masking import masked
from temper.pipeline.crew import assign, crew, threads_of
from temper.pipeline.failure import as_temper_error
from temper.pipeline.run_record import Record
from temper.pipeline.stopping import Stopper
from temper.planning import preflight
from temper.planning.estimate import TRAINED
from temper.planning.plan import Plan, StagePlan, closes_round, half_done_error, make_plan, reasons
from temper.planning.shapes import model_size
from temper.recipe.recipe import Stage
from temper.recipe.resolved import render_recipe, render_stage, stage_values
from temper.record.checkpoints import clear, last_checkpoint
from temper.record.cost import Meter
from temper.record.learning_rates import SUPERVISED_KINDS
from temper.record.metrics import read_rows
from temper.record.progress import StageLog
from temper.record.rundir import Lock, RunDir, read_object, writing
from temper.record.trust import RECIPE, damaged_records, note_records
from temper.sealed import seal as seal_record
from temper.sealed import seal_text
from temper.stages import STAGES
from temper.stages.context import StageContext
from temper.trackers.process import following

# Told of each step that is taken: the stage, the step, of how many, what was measured. False: save and stop.
OnStep = Callable[[str, int, int, Mapping[str, Any]], object]
TICK_SECONDS = 5.0  # run.json is brought up to date at least this often: what a kill leaves unrecorded


class Stopped(Exception):
    """The run was asked to stop and did, losing nothing; `code` is the exit code."""

    def __init__(self, text: str, code: Exit):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Result:
    """A finished run: `ran` are the stages that were run this time."""

    plan: Plan
    record: dict[str, Any]
    ran: tuple[str, ...]
    evaluation: dict[str, Any] | None  # of the recipe's last evaluation


def say(text: str) -> None:
    """One line of log."""
    tell(escape(text))


def run_recipe(
    reference: str,
    settings: Sequence[str] = (),
    out: Path | None = None,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    on_step: OnStep | None = None,
    size: int = 1,
) -> Result:
    """Run what is not done of a recipe, with `size` ranks. Raises TemperError for what can be mended, Stopped if it was
    asked to stop, and what `on_step` raises."""
    go_offline()
    wait_passively()  # where torch is not loaded yet
    meter = Meter(whole_process=True)
    with ExitStack() as stack:
        stopper = stack.enter_context(Stopper())
        locks: list[Lock] = []

        def lock(folder: RunDir) -> None:
            locks.append(folder.prepare())
            stack.callback(locks[-1].release)

        def lock_existing(folder: RunDir) -> None:
            if folder.root.exists():
                lock(folder)

        stack.callback(gc.unfreeze)
        with without_collector():
            plan, warnings = preflight.prepare(reference, settings, out, lock_existing)
        if plan.half_done and not accept_changes:
            raise half_done_error(plan)
        warnings += preflight.advise(plan, SUPERVISED_KINDS)  # of RL the stage itself speaks
        warnings += preflight.check_resources(plan)
        if not locks:
            lock(plan.folder)
        stack.enter_context(crew(size))
        try:
            return Run(plan, locks[0], stopper, meter, reference, command, settings, on_step).whole(warnings)
        except Halt:  # between two stages
            raise Stopped("what is done is kept", stopper.code or Exit.PREEMPTED) from None


@dataclass
class Run:
    """One process's work on a run directory that it holds the lock of."""

    plan: Plan
    lock: Lock
    stopper: Stopper
    meter: Meter
    reference: str
    command: Sequence[str]
    settings: Sequence[str]
    on_step: OnStep | None = None
    record: Record = field(init=False)
    ran: list[str] = field(default_factory=list)
    raised: BaseException | None = None  # by `on_step`: no fault of the stage

    def __post_init__(self) -> None:
        self.record = Record(self.plan, self.meter, self.command, self.settings)

    @property
    def root(self) -> Path:
        return self.plan.folder.root

    def whole(self, warnings: Sequence[str]) -> Result:
        """Every stage in order, then the report."""
        for text in warnings:
            say(f"warning: {text}")
        with writing(self.root):
            self._tidy()
        for line in reasons(self.plan.stages):
            say(line)
        settle_torch(threads_of(self.plan.recipe.threads))
        choice.pin(self.plan.recipe.matmul, self.record.values.get("matmul"))
        self.stopper.busy = True
        with following(self.root, self.plan.recipe.trackers) as untold:
            self._stages()
        for text in untold:
            say(f"warning: {text}")
        with writing(self.root):
            self.record.save("done")
        return Result(self.plan, masked(self.record.values), tuple(self.ran), self._evaluation())

    def _stages(self) -> None:
        done = 0
        while done < len(self.plan.stages):  # what is left of them changes where a block ends before its last round
            planned = self.plan.stages[done]
            done += 1
            if self.stopper.code is not None:
                with writing(self.root):
                    self.record.save("stopped")
                raise Stopped(f"before stage {planned.stage.name}; all stages before it are done", self.stopper.code)
            if planned.runs:
                with Meter() as meter, self._recorded(planned, meter):
                    self._run_stage(planned, meter)
                self.ran.append(planned.stage.name)
                give_back_memory()
                self._after_round(planned.stage)
            else:
                self._keep(planned)

    def _after_round(self, stage: Stage) -> None:
        """The plan anew, once a round is whole whose block may end with it."""
        block = next((block for block in self.plan.recipe.blocks if block.name == stage.block), None)
        if block is None or block.until is None or not closes_round(stage, self.plan.recipe):
            return
        made = [p.fingerprint for p in self.plan.stages if not p.runs or p.stage.name in self.ran]
        verified = {name: read_manifest(self.plan.folder.artifact(name)) for name in made}
        self.plan = make_plan(self.plan.recipe, self.plan.folder, verified)
        self.record.follow(self.plan)
        say(str(self.plan.verdicts[block.name]))

    def _tidy(self) -> None:
        """Clear what a killed run left, set aside what is damaged, write down what is going to happen."""
        self.plan.folder.clean()
        for problem in self.plan.folder.damaged_records():
            say(f"warning: {problem.file} is damaged and is written anew: {problem.reason}")
        for path, fault in self.plan.damaged:
            say(fault.render("warning"))
            set_aside(path)
        for fault in self.plan.ignored:
            say(fault.render("warning"))
        write_atomically(self.root / RECIPE, seal_text(RECIPE, render_recipe(self.plan.recipe)))
        write_atomically(self.root / "hashes.json", seal_record("hashes.json", self.plan.hashes))
        self.record.save("running")

    # -- one stage ----------------------------------------------------------------------------------------------------

    def _activate(self, planned: StagePlan) -> Path:
        about = {
            "stage": planned.stage.name,
            "fingerprint": planned.fingerprint,
            "material": masked(planned.material),
            "config": masked(stage_values(planned.stage)),
        }
        config = render_stage(self.plan.recipe, planned.stage)
        return self.plan.folder.activate(planned.stage.name, planned.stage.folder, planned.fingerprint, about, config)

    def _keep(self, planned: StagePlan) -> None:
        """A stage that is done: its own working directory in place, its checkpoints gone."""
        with writing(self.root):
            work = self._activate(planned)
            clear(work)
        for problem in damaged_records(work, planned.manifest) if planned.manifest else ():
            say(f"warning: {problem.file} is damaged: {problem.reason}; reports leave it out")

    def _run_stage(self, planned: StagePlan, meter: Meter) -> None:
        stage, recipe = planned.stage, self.plan.recipe
        artifact = self.plan.folder.artifact(planned.fingerprint)
        with writing(self.root):
            work = self._activate(planned)
            out = begin(artifact)
        artifacts = {p.stage.name: self.plan.folder.artifact(p.fingerprint) for p in self.plan.stages}
        inputs = preflight.inputs(stage, artifacts)
        check_inputs(planned, inputs)
        self.record.update(planned, "running", self.record.cost(planned, meter), steps_taken(work))
        with StageLog(work, stage.name, kind=stage.kind, index=stage.number, count=recipe.stages[-1].number,
                      recipe=recipe.name, config=stage_values(stage),
                      on_step=self._told(stage.name)) as log:  # fmt: skip
            log.info(f"stage {stage.number}/{recipe.stages[-1].number} {stage.name} ({stage.kind})")
            assign(planned, self.reference, self.settings, self.root, work)
            stage.module.run(
                stage.config,
                StageContext(
                    name=stage.name,
                    seed=recipe.seed,
                    out=out,
                    work=work,
                    inputs=inputs,
                    tasks=preflight.tasks(stage, recipe, artifacts),
                    log=log,
                    stopping=self._watch(planned, work, meter),
                    meant=stage.meant,
                ),
            )
        wanted = STAGES[stage.kind].must_leave
        if wanted and not (out / wanted).is_file():
            raise RuntimeError(f"stage {stage.name} ({stage.kind}) ended without leaving {wanted}")
        cost, steps = self.record.cost(planned, meter), steps_taken(work)
        about = {"stage": stage.name, "kind": stage.kind, "makes": stage.makes, "steps": steps, **cost.as_dict()}
        with writing(self.root):
            about["records"] = note_records(work)
            if stage.makes in TRAINED and (size := model_size(out)) is not None:
                about["parameters"] = size.parameters
            seal(out, artifact, planned.fingerprint, about)
            clear(work)
        self.record.update(planned, "done", cost, steps)

    def _told(self, stage: str) -> Callable[[int, int, Mapping[str, Any]], None] | None:
        """What the log of a stage calls after each step."""
        on_step = self.on_step
        if on_step is None:
            return None

        def tell(step: int, total: int, metrics: Mapping[str, Any]) -> None:
            try:
                wanted = on_step(stage, step, total, metrics)
            except BaseException as error:
                self.raised = error
                raise
            if wanted is False:
                self.stopper.ask()

        return tell

    def _watch(self, planned: StagePlan, work: Path, meter: Meter) -> Callable[[], bool]:
        """What a stage calls between steps: is the run directory still ours, is it time to write, must we stop?"""
        last = time.monotonic()

        def stopping() -> bool:
            nonlocal last
            if not self.lock.is_ours():
                raise FileNotFoundError(2, "the run directory was deleted", str(self.root))
            if time.monotonic() - last >= TICK_SECONDS:
                self.record.update(planned, "running", self.record.cost(planned, meter), steps_taken(work))
                last = time.monotonic()
            return self.stopper()

        return stopping

    @contextmanager
    def _recorded(self, planned: StagePlan, meter: Meter) -> Iterator[None]:
        """Whatever ends a stage early is written down, and told in words a user can act on."""
        work = self.root / "stages" / planned.stage.folder
        try:
            yield
        except (Preempted, Halt) as stopped:
            self.stopper.settle()
            kept = self._rescued(planned, work) or str(stopped) or "what it was at is done again"
            self._note(planned, meter, work, "stopped")
            raise Stopped(f"{planned.stage.name}: {kept}", self.stopper.code or Exit.PREEMPTED) from None
        except KeyboardInterrupt:
            self._note(planned, meter, work, "stopped")
            raise
        except Exception as error:
            self._note(planned, meter, work, "stopped" if isinstance(error, HandedOver) else "failed")
            if error is self.raised:
                raise
            known = as_temper_error(error, planned.stage.name, self.lock, last_checkpoint(work))
            if known is None or known is error:
                raise
            raise known from error

    def _rescued(self, planned: StagePlan, work: Path) -> str:
        """What was saved of the steps before one that was given up; "" where none was."""
        try:
            return rescue()
        except Exception as error:
            known = as_temper_error(error, planned.stage.name, self.lock, last_checkpoint(work))
            if known is None:
                raise
            raise known from error

    def _note(self, planned: StagePlan, meter: Meter, work: Path, state: str) -> None:
        """Best effort: the run directory may be why the stage ended."""
        with contextlib.suppress(OSError):
            self.record.update(planned, state, self.record.cost(planned, meter), steps_taken(work))

    def _evaluation(self) -> dict[str, Any] | None:
        made = [p for p in self.plan.stages if p.stage.makes == "evaluation"]
        if not made:
            return None
        return read_object(self.plan.folder.artifact(made[-1].fingerprint) / "evaluation.json") or None


def check_inputs(planned: StagePlan, inputs: dict[str, Path]) -> None:
    """Raise DataError for a file that the stage before was to make and did not."""
    faults = []
    for ref in planned.stage.references:
        path = inputs.get(ref.text)
        if ref.stage is not None and path is not None and not path.exists():
            made = sorted(file.name for file in path.parent.glob("*.jsonl"))
            why = f"`{ref.stage}` made {', '.join(made) or 'no data files'}"
            faults.append(Fault(f"`{ref.text}` does not exist", str(ref.place), why))
    if faults:
        raise DataError(faults)


def steps_taken(work: Path) -> int | None:
    """The last step a stage recorded; None for a stage that records none."""
    rows = read_rows(work / "metrics.jsonl")
    return rows[-1]["step"] if rows else None
