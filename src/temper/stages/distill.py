"""Distillation of logits: a student learns its teacher's whole distribution, on the teacher's tokens or on its own.

Distillation of *data* (R1's own, 2501.12948 section 2.4) needs no stage of its own: `sft` of the student on a harvest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from temper.config import DataRef, ModelRef, TaskName
from temper.data.batching import make_batch, packed_tokens, split_by_tokens
from temper.errors import ArtifactError, DataError, Fault
from temper.models.device import on_device, pick_dtype, pin
from temper.models.load import load_model
from temper.record.rollouts import write_rows
from temper.rewards import REWARDS
from temper.rewards.score import Scorer
from temper.rollout.collect import collect, rollout_row
from temper.rollout.open import open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.rollout.statistics import count_tokens
from temper.stages.context import StageContext
from temper.stages.draws import draw_prompts, shuffled, too_few
from temper.stages.idle import Idle, idle_optimizer, idle_tails
from temper.stages.models import check_model, check_training, finish_model, open_learner
from temper.stages.prompts import check_conversations, check_lengths, check_tasks, conversation_examples, open_prompts
from temper.stages.rollouts import Clock
from temper.text.chat import ChatFormat
from temper.train.divergence import Divergence, DivergenceName, diverge_targets
from temper.train.forward import plan_batch
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum
from temper.types import Example, Group

VERSION = 1
OWN_DIVERGENCE: dict[str, DivergenceName] = {"forward_kl": "forward_kl", "on_policy": "reverse_kl"}  # of a mode
FOREIGN = {  # keys that say nothing in a mode
    "forward_kl": (
        "tasks", "max_steps", "prompts_per_step", "num_generations", "keep_rollouts_steps",
        *(name for name in SamplingConfig.model_fields if name != "temperature"),
    ),
    "on_policy": ("data", "columns", "num_train_epochs", "batch_size"),
}  # fmt: skip
WATCHED = ("accuracy", "format")  # of the student's own replies: shown, not trained on


class Config(OptimizerConfig, SamplingConfig):
    """`forward_kl`: KL(teacher ‖ student) on the tokens of `data`, which the teacher wrote (a harvest of it).
    `on_policy`: KL(student ‖ teacher) on what the student samples for the prompts of `tasks` (GKD 2306.13649, λ = 1).

    `temperature` is of both softmaxes and, on policy, of the sampling.
    """

    model: ModelRef  # the student
    teacher: ModelRef
    mode: Literal["forward_kl", "on_policy"]
    divergence: DivergenceName | None = None  # another than the mode's own
    data: DataRef | None = None  # forward_kl
    columns: dict[str, str] = {}
    num_train_epochs: Annotated[int, Field(ge=1)] = 2  # forward_kl; as `sft`
    batch_size: Annotated[int, Field(ge=1)] = 32  # forward_kl: conversations an optimiser step
    tasks: list[TaskName] = []  # on_policy
    max_steps: Annotated[int, Field(ge=1)] | None = None  # on_policy
    prompts_per_step: Annotated[int, Field(ge=1)] = 32  # on_policy
    num_generations: Annotated[int, Field(ge=1)] = 1  # on_policy: samples of each prompt
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-5
    offload_teacher: bool = False  # on CUDA: its weights are in main memory but for the moment they are asked
    keep_rollouts_steps: Annotated[int, Field(ge=1)] = 10  # on_policy: samples of every n-th step stay on disk

    @model_validator(mode="after")
    def _one_mode(self) -> Config:
        needed = ("data",) if self.mode == "forward_kl" else ("tasks", "max_steps")
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"mode `{self.mode}` needs `{missing[0]}`")
        return self


@dataclass(frozen=True)
class Batches:
    """What the steps train on: `draw(step, engine)` gives a step's examples and what is to be logged of them."""

    steps: int
    draw: Callable[[int, Any], tuple[list[Example], dict[str, float]]]
    about: str


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    yield from (Idle(name, f"mode `{config.mode}` does not read it") for name in FOREIGN[config.mode])
    if config.mode == "on_policy":
        yield from idle_tails(config)


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = check_training(config) + check_model(config.model, ctx) + check_model(config.teacher, ctx)
    if not faults and not any(ref.startswith("@") for ref in (config.model, config.teacher)):
        chats = [ChatFormat.load(ctx.inputs[ref]) for ref in (config.model, config.teacher) if ref in ctx.inputs]
        faults += other_vocabulary(*chats) if len(chats) == 2 else []
    if config.data is not None:
        return faults + check_conversations(config.data, config.columns, ctx)
    faults += check_tasks(config.tasks, "train", ctx, {})
    if not faults and all(ctx.tasks[name].train is not None for name in config.tasks):
        faults += too_few(open_prompts(config.tasks, "train", ctx, {}), config.prompts_per_step)
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Per step: conversations, or the student's own samples, and the mean divergence over all their reply tokens."""
    source, origin = ctx.inputs[config.model], ctx.inputs[config.teacher]
    chat = open_chat(source, origin, ctx)
    batches = own_samples(config, chat, ctx) if config.mode == "on_policy" else given_tokens(config, chat, ctx)
    learner = open_learner(source, config, batches.steps, ctx, samples=config.mode == "on_policy")
    teacher = open_teacher(origin, config, learner)
    wanted = Divergence(
        config.divergence or OWN_DIVERGENCE[config.mode],
        config.temperature,
        min(len(model.get_output_embeddings().weight) for model in (learner.model, teacher)),
    )
    engine: Any  # None where nothing is sampled
    with open_engine(learner.whole) if config.mode == "on_policy" else nullcontext() as engine:
        for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping):
            clock = Clock(engine)
            examples, metrics = batches.draw(step, engine)
            clock.mark_sampled()
            with on_device(teacher, learner.model.device):
                metrics |= update(learner, teacher, wanted, examples)
            timing = clock.read(sum(sum(example.mask) for example in examples))
            ctx.log.step(step + 1, learner.total_steps, metrics | timing)
    how = [f"distilled from `{config.teacher}`: {wanted.name}, {learner.total_steps} steps on {batches.about}"]
    finish_model(learner, chat, ctx, config.model, how)


def open_chat(source: Path, origin: Path, ctx: StageContext) -> ChatFormat:
    """The student's chat format, which the teacher is asked in too. Raises ArtifactError for another vocabulary."""
    student, teacher = ChatFormat.load(source), ChatFormat.load(origin)
    if faults := other_vocabulary(student, teacher):
        raise ArtifactError(faults)
    if student.template != teacher.template:
        ctx.log.warn("the teacher has another chat template: it is asked in the student's, which it may not know")
    return student


def other_vocabulary(student: ChatFormat, teacher: ChatFormat) -> list[Fault]:
    """The fault of two models whose token ids do not mean the same."""
    ours, theirs = (chat.tokenizer.backend.get_vocab() for chat in (student, teacher))
    if ours == theirs:
        return []
    differing = sum(theirs.get(token) != number for token, number in ours.items())
    return [
        Fault(
            "the student and the teacher have different tokenizers",
            why=f"{differing:,} of the student's {len(ours):,} tokens are others, or missing, in the teacher's "
            f"{len(theirs):,}: their distributions are over different things",
            fix="a teacher of the student's family, or distil data instead: `sample` from the teacher, then `sft`",
        )
    ]


def open_teacher(path: Path, config: Config, learner: Learner) -> Any:
    device = learner.model.device
    dtype = pick_dtype(config.dtype, device)
    return pin(load_model(path, dtype)) if config.offload_teacher else load_model(path, dtype, str(device))


def given_tokens(config: Config, chat: ChatFormat, ctx: StageContext) -> Batches:
    """Conversations of a file, every one once an epoch."""
    assert config.data is not None
    examples = conversation_examples(ctx.inputs[config.data], config.columns, chat, ctx.log.note)
    steps_per_epoch = -(-len(examples) // config.batch_size)

    def draw(step: int, _: Any) -> tuple[list[Example], dict[str, float]]:
        epoch, at = divmod(step, steps_per_epoch)
        order = shuffled(len(examples), (ctx.seed, ctx.name, epoch))
        return [examples[i] for i in order[at * config.batch_size : (at + 1) * config.batch_size]], {}

    return Batches(config.num_train_epochs * steps_per_epoch, draw, f"{len(examples):,} conversations")


def own_samples(config: Config, chat: ChatFormat, ctx: StageContext) -> Batches:
    """What the student itself replies to the prompts of a step. Its rewards are shown and train nothing."""
    assert config.max_steps is not None
    prompts = open_prompts(config.tasks, "train", ctx, {}, config.reply)
    if few := too_few(prompts, config.prompts_per_step):
        raise DataError(few)
    check_lengths([prompt for of_task in prompts.values() for prompt in of_task], chat)
    scorer = Scorer({name: REWARDS[name] for name in WATCHED}, None)
    sampling, total = sampling_of(config, chat), config.max_steps

    def draw(step: int, engine: Any) -> tuple[list[Example], dict[str, float]]:
        drawn = draw_prompts(prompts, config.prompts_per_step, step, (ctx.seed, ctx.name))
        groups = collect(engine, chat, scorer, drawn, config.num_generations, sampling, (ctx.seed, ctx.name, step))
        if step % config.keep_rollouts_steps == 0 or step + 1 == total:
            rows = [{"step": step + 1, **rollout_row(r, i)} for group in groups for i, r in enumerate(group.rollouts)]
            write_rows(ctx.work / "rollouts" / f"step-{step + 1:06d}.jsonl.gz", rows)
        return [example for group in groups for example in to_examples(group)], watch(groups)

    return Batches(total, draw, f"its own replies to {', '.join(config.tasks)}")


def to_examples(group: Group) -> list[Example]:
    """Every sampled token is a target, whatever it was worth."""
    return [group.example(rollout) for rollout in group.rollouts]


def watch(groups: Sequence[Group]) -> dict[str, float]:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    count = len(rollouts)
    metrics = {f"reward/{name}": sum(rollout.rewards[name] for rollout in rollouts) / count for name in WATCHED}
    metrics["completion/length"] = count_tokens(groups) / count
    metrics["completion/truncated"] = sum(rollout.completion.finish_reason == "length" for rollout in rollouts) / count
    return metrics


def update(learner: Learner, teacher: Any, wanted: Divergence, examples: Sequence[Example]) -> dict[str, float]:
    """One optimiser step on the mean divergence over all target tokens of `examples`."""

    def loss(chosen: list[Example]) -> LossSum:
        batch = make_batch(chosen).to(learner.model.device)
        return LossSum(diverge_targets(learner.model, teacher, batch, plan_batch(batch), wanted).sum(), {})

    budget = learner.budget(packed_tokens(examples))
    parts = [[examples[i] for i in indices] for indices in split_by_tokens(examples, budget)]
    targets = sum(sum(example.mask) for example in examples)
    return learner.update([lambda part=part: loss(part) for part in parts], divisor=targets)
