"""Reward models from preference pairs (helpfulness), rated replies (safety) or labelled steps (process supervision)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.algorithms.reward_losses import binary, bradley_terry, calibration_error, centring
from temper.config import AnyModelRef, DataRef
from temper.data.judged import Judged, LabelledSteps, Pair, Rated, load_judged
from temper.errors import ConfigError, DataError, Exit, Fault, TemperError
from temper.models.adapters import FOLDER, merge_adapters
from temper.models.forks import cpu_seconds
from temper.models.reward_card import Reads, RewardCard, RewardKind, is_reward_model, read_card
from temper.models.save import save_model
from temper.models.scalar import load_scalar
from temper.rng import seed_for
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_optimizer
from temper.stages.models import check_model, check_training, open_learner
from temper.stages.prompts import tell_warnings
from temper.text.chat import ChatFormat
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum
from temper.train.reward_inputs import part_of, step_examples, text_examples
from temper.train.scores import AskedExample, score_asked, split_asked, unit_tokens
from temper.train.team import Team, run_all

VERSION = 1
SHAPES: dict[RewardKind, str] = {"bradley_terry": "preference", "pointwise": "rated", "process": "steps"}
READS: dict[RewardKind, Reads] = {"bradley_terry": "answer", "pointwise": "whole", "process": "whole"}  # R1, 2.3.4
STEADY_ROWS = 1000  # rows that tell the mean and the spread of the scores


class Config(OptimizerConfig):
    """One epoch over pairs in batches of 64 at 9e-6 (InstructGPT, 2203.02155, appendix C.2: more overfits)."""

    model: AnyModelRef  # a causal language model, or a reward model to train further
    kind: RewardKind = "bradley_terry"
    data: DataRef
    columns: dict[str, str] = {}  # our name of a column -> the file's
    reads: Reads | None = None  # R1: helpfulness by the text after the thinking, safety by the whole reply
    replay: list[DataRef] = []  # data of earlier rounds, mixed in (DeepSeekMath 2402.03300, algorithm 1)
    replay_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the rows trained on; DeepSeekMath, section 4.1.4
    held_out_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1  # of the prompts: measured, not trained on
    num_train_epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 64  # pairs or replies an optimiser step
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 9e-6
    center_rewards_coefficient: Annotated[float, Field(ge=0)] = 0.0  # of (r⁺ + r⁻)²; 0.01 in 2312.09244
    use_margins: bool = False  # a pair's `margin` is by how much the chosen score must be higher (2307.09288, eq. 2)
    step_separator: str = ""  # between steps; "\n" for files whose steps are lines without their ends

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.fully_shard:
            raise ValueError("fully_shard: reward models are trained whole; pretrain, sft, distill and grpo can shard")
        if self.use_margins and self.kind != "bradley_terry":
            raise ValueError(f"use_margins with kind `{self.kind}`: only pairs (`bradley_terry`) have margins")
        if self.kind == "process" and self.reads == "answer":
            raise ValueError("reads: answer, but a process reward model reads the steps of the whole reply")
        if self.kind != "bradley_terry" and self.center_rewards_coefficient:
            raise ValueError("center_rewards_coefficient is for pairs: other scores have a zero of their own")
        return self

    @property
    def part(self) -> Reads:
        return self.reads or READS[self.kind]


@dataclass(frozen=True)
class Unit:
    """What is judged together: the two replies of a pair, one rated reply, the steps of one reply. `aims` has a number
    for each loss: a pair's margin, or the label of the reply or of each step."""

    examples: tuple[AskedExample, ...]
    aims: tuple[float, ...]


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    if not config.replay:
        yield Idle("replay_share", "there is no `replay` to take rows from")
    if config.kind != "process":
        yield Idle("step_separator", f"kind `{config.kind}` knows no steps: `process` does")


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = check_training(config) + check_model(config.model, ctx, scores=True) + check_earlier(config, ctx)
    for ref in (config.data, *config.replay):
        path = ctx.inputs.get(ref)
        if path is not None and not ref.startswith("@"):
            try:
                load_judged(path, SHAPES[config.kind], config.columns, tell=tell_warnings(ctx))
            except TemperError as error:
                faults += error.faults
    return faults


def check_earlier(config: Config, ctx: StageContext) -> list[Fault]:
    """A reward model goes on as what it is."""
    path = ctx.inputs.get(config.model)
    if path is None or not is_reward_model(path):
        return []
    try:
        card = read_card(path)
    except TemperError as error:
        return list(error.faults)
    if (card.kind, card.reads) == (config.kind, config.part):
        return []
    what = f"`{config.model}` is a {card.kind} model that reads the {card.reads}, this stage a {config.kind} one"
    fix = f"set `kind: {card.kind}` and `reads: {card.reads}`"
    return [Fault(f"{what} that reads the {config.part}", fix=fix, code=Exit.CONFIG)]


def run(config: Config, ctx: StageContext) -> None:
    """Per step: a batch of judged replies, their scores, the loss of the kind averaged over pairs, replies or steps."""
    source = ctx.inputs[config.model]
    if faults := check_earlier(config, ctx):
        raise ConfigError(faults)
    chat = ChatFormat.load(source)
    training, held_out = open_units(config, ctx, chat)
    scope = "step" if config.kind == "process" else "text"
    model = load_scalar(source, scope, seed_for(ctx.seed, ctx.name, "head"), warn=ctx.log.warn)
    steps_per_epoch = -(-len(training) // config.batch_size)
    learner = open_learner(model, config, config.num_train_epochs * steps_per_epoch, ctx)
    for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping):
        began, began_cpu = time.perf_counter(), cpu_seconds()
        epoch, at = divmod(step, steps_per_epoch)
        order = shuffled(len(training), (ctx.seed, ctx.name, epoch))
        chosen = [training[i] for i in order[at * config.batch_size : (at + 1) * config.batch_size]]
        metrics = update(learner, config, chosen)
        if at + 1 == steps_per_epoch and held_out:
            metrics |= measure(learner.model, config, held_out, learner.team)
        seconds = time.perf_counter() - began
        tokens = sum(len(example.token_ids) for unit in chosen for example in unit.examples)
        metrics |= {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - began_cpu,
            "tokens_per_second": tokens / seconds,
        }
        ctx.log.step(step + 1, learner.total_steps, metrics)
    finish(learner, config, ctx, chat, training, held_out)


def finish(
    learner: Learner, config: Config, ctx: StageContext, chat: ChatFormat, training: list[Unit], held_out: list[Unit]
) -> None:
    """Leave the model in Hugging Face form, and beside it what its scores mean."""
    model = merge_adapters(learner.trained_model(), ctx.out / FOLDER)
    card = describe_scores(model, config, (held_out or training)[:STEADY_ROWS])
    how = [f"reward model ({config.kind}) trained on {len(training):,} rows, reads the {config.part}"]
    if held_out:
        found = measure(model, config, held_out, learner.team)
        how.append(f"held out: {len(held_out):,} rows, accuracy {found['held_out/accuracy']:.3f}")
        ctx.log.info(f"held-out accuracy {found['held_out/accuracy']:.3f} on {len(held_out):,} rows")
    save_model(model, chat, ctx.out, card={"stage": ctx.name, "trained_from": config.model, "how": how})
    card.write(ctx.out)


# -- rows -------------------------------------------------------------------------------------------------------------


def open_units(config: Config, ctx: StageContext, chat: ChatFormat) -> tuple[list[Unit], list[Unit]]:
    """(trained on, held out). A prompt is on one side only, decided by its text; replayed rows are never held out."""
    rows = read_rows(config, ctx.inputs[config.data], ctx)
    limit = int(config.held_out_share * 2**63)
    is_held_out = [seed_for("held out", *_texts(row)) < limit for row in rows]
    training = [row for row, held in zip(rows, is_held_out, strict=True) if not held]
    held_out = [row for row, held in zip(rows, is_held_out, strict=True) if held]
    if not training:
        raise DataError(Fault("no row is left to train on", where=str(ctx.inputs[config.data])))
    old = [row for ref in config.replay for row in read_rows(config, ctx.inputs[ref], ctx)]
    count = min(len(old), round(len(training) * config.replay_share / (1 - config.replay_share)))
    training += [old[i] for i in shuffled(len(old), (ctx.seed, ctx.name, "replay"))[:count]]
    if count:
        ctx.log.info(f"{count:,} of {len(training):,} rows are replayed from earlier data")
    return units_of(training, config, chat), units_of(held_out, config, chat)


def read_rows(config: Config, path: Path, ctx: StageContext) -> list[Judged]:
    """The rows of a file whose replies say something in the part that is read; the others are told of."""
    rows = load_judged(path, SHAPES[config.kind], config.columns, tell=tell_warnings(ctx))
    kept = [row for row in rows if all(part_of(text, config.part) is not None for text in _replies(row))]
    if not config.use_margins and any(isinstance(row, Pair) and row.margin for row in rows):
        ctx.log.note(f"the margins in {path.name} are not used: `use_margins: true` asks for them", key=path.name)
    if len(kept) < len(rows):
        what = f"{len(rows) - len(kept):,} of {len(rows):,} rows of {path.name} left out: nothing after the thinking"
        ctx.log.warn(what, key=f"unread {path.name}")
    if not kept:
        raise DataError(Fault("no row says anything after the thinking", str(path), fix="set `reads: whole`"))
    return kept


def _texts(row: Judged) -> list[str]:
    return [text for message in row.prompt for text in (message.role, message.content)]


def _replies(row: Judged) -> tuple[str, ...]:
    if isinstance(row, Pair):
        return row.chosen, row.rejected
    return (row.completion,) if isinstance(row, Rated) else ()


def units_of(rows: Sequence[Judged], config: Config, chat: ChatFormat) -> list[Unit]:
    """Rows as tokens. Raises DataError for those that do not fit the model."""
    if config.kind == "process":
        made = [row for row in rows if isinstance(row, LabelledSteps)]
        pieces = [
            [step + config.step_separator for step in row.steps[:-1]] + [row.steps[-1]] for row in made
        ]  # fmt: skip
        examples = step_examples(chat, [row.prompt for row in made], pieces)
        return [Unit((example,), row.labels) for example, row in zip(examples, made, strict=True)]
    prompts = [row.prompt for row in rows for _ in _replies(row)]
    texts = [part_of(text, config.part) or "" for row in rows for text in _replies(row)]
    examples = iter(text_examples(chat, prompts, texts))
    return [
        Unit(tuple(next(examples) for _ in _replies(row)), (aim_of(row, config),))
        for row in rows
        if not isinstance(row, LabelledSteps)
    ]


def aim_of(row: Pair | Rated, config: Config) -> float:
    """A pair's margin, 0 unless the config asks for margins; a reply's label."""
    if isinstance(row, Pair):
        return row.margin if config.use_margins else 0.0
    return row.label


# -- one step ---------------------------------------------------------------------------------------------------------


def update(learner: Learner, config: Config, units: Sequence[Unit]) -> dict[str, float]:
    """One optimiser step on the mean loss over all pairs, replies or steps of `units`."""

    def loss(part: Sequence[Unit]) -> LossSum:
        judged = judge(learner.model, config, part)
        sums = {name: float(values.sum()) for name, values in judged.sums.items()}
        return LossSum(judged.losses.sum(), sums, count=len(judged.losses))

    budget = learner.budget(sum(unit_tokens(unit.examples) for unit in units))
    parts = [[units[i] for i in chosen] for chosen in split_units(units, budget)]
    return learner.update([lambda part=part: loss(part) for part in parts], divisor=sum(len(u.aims) for u in units))


def split_units(units: Sequence[Unit], budget: int) -> list[list[int]]:
    return split_asked([unit.examples for unit in units], budget)


@dataclass(frozen=True)
class Judgement:
    """Of each pair, reply or step [B]: its loss; the probability the model gives and how right it would be; `sums` are
    metrics."""

    losses: Tensor
    probabilities: Tensor
    labels: Tensor
    sums: dict[str, Tensor]


def judge(model: Any, config: Config, units: Sequence[Unit]) -> Judgement:
    """Scores of `units` and the loss of the kind."""
    scores = score_asked(model, [example for unit in units for example in unit.examples])
    aims = torch.tensor([aim for unit in units for aim in unit.aims], device=scores.device)
    if config.kind == "bradley_terry":
        chosen, rejected = scores[::2], scores[1::2]
        losses = bradley_terry(chosen, rejected, aims)
        if config.center_rewards_coefficient:
            losses = losses + config.center_rewards_coefficient * centring(chosen, rejected)
        gap = (chosen - rejected).detach()
        right = (gap > 0).double() + 0.5 * (gap == 0)  # which of two equal scores is chosen is a coin
        return Judgement(losses, gap.sigmoid(), torch.ones_like(gap), {"accuracy": right, "margin": gap})
    said = scores.detach()
    right = ((said > 0) == (aims > 0.5)).double()
    return Judgement(binary(scores, aims), said.sigmoid(), aims, {"accuracy": right})


@torch.no_grad()
def measure(model: Any, config: Config, units: Sequence[Unit], team: Team | None = None) -> dict[str, float]:
    """Loss, accuracy and calibration error on rows that are not trained on."""
    parts = [[units[i] for i in part] for part in split_units(units, config.micro_batch_tokens)]
    found = run_all(team, [partial(judge, model, config, part) for part in parts], "measure")
    probabilities, labels = (torch.cat([getattr(f, n) for f in found]) for n in ("probabilities", "labels"))
    if config.kind == "bradley_terry":  # each pair in both orders: the confidence in whichever it calls better
        probabilities, labels = torch.cat([probabilities, 1 - probabilities]), torch.cat([labels, 1 - labels])
    return {
        "held_out/loss": float(torch.cat([judged.losses for judged in found]).mean()),
        "held_out/accuracy": float(torch.cat([judged.sums["accuracy"] for judged in found]).mean()),
        "held_out/calibration_error": calibration_error(probabilities, labels),
    }


@torch.no_grad()
def describe_scores(model: Any, config: Config, units: Sequence[Unit]) -> RewardCard:
    """The mean, the spread and the least of the scores of `units`."""
    parts = [
        score_asked(model, [example for i in part for example in units[i].examples])
        for part in split_units(units, config.micro_batch_tokens)
    ]
    scores = torch.cat(parts).double()
    std = float(scores.std()) if len(scores) > 1 else 0.0
    return RewardCard(config.kind, config.part, float(scores.mean()), std if std > 0 else 1.0, float(scores.min()))
