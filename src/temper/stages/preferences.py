"""Preference pairs from a model's own replies: the better and the worse one of a prompt, past a margin, of comparable
length. What a Bradley–Terry reward model learns from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Annotated

from pydantic import Field, model_validator

from temper.config import ModelRef, RewardName, TaskName
from temper.data.characters import is_writable
from temper.data.pairs import Candidate, Scored, balance, candidates
from temper.errors import DataError, Fault
from temper.models.device import missing_device, placed
from temper.models.load import load_model
from temper.record.rollouts import write_rows
from temper.rewards import Reward
from temper.rewards.judge import Judge
from temper.rewards.score import Scorer
from temper.rollout.collect import collect
from temper.rollout.open import open_engine
from temper.rollout.options import ServedConfig, sampling_of
from temper.stages.chunks import chunked_rows, listed
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_judge
from temper.stages.models import check_model
from temper.stages.prompts import check_tasks, known_prompts, open_limited_prompts
from temper.stages.rewards import RewardsConfig, check_reward_tasks, check_rewards, golds_of, open_rewards, tell_once
from temper.stages.served import check_served, remote_of
from temper.text.chat import ChatFormat
from temper.types import Group, Prompt

VERSION = 2
PROMPTS_A_CHUNK = 128  # sampled together; a finished chunk is not sampled again after a kill


class Config(ServedConfig, RewardsConfig):
    """As R1 built the pairs of its helpfulness model: kept only past a margin, and chosen and rejected replies of
    comparable length over the whole data set (Nature 645:633, methods, "helpful reward model")."""

    model: ModelRef
    tasks: list[TaskName] = Field(min_length=1)
    num_generations: Annotated[int, Field(ge=2)] = 4  # replies that the pair of a prompt is chosen from
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # of each task's training file
    reward_funcs: list[RewardName] = Field(min_length=1)
    reward_weights: list[float] | None = None  # one a reward; all 1.0 when not given
    judge_margin: Annotated[float, Field(gt=0, le=1)] | None = None  # by which it must prefer the chosen reply, if set
    min_margin: Annotated[float, Field(gt=0)] = 0.5  # between the two totals: half of what a right answer is worth
    max_length_ratio: Annotated[float, Field(ge=1)] = 2.0  # of the longer reply to the shorter, in tokens
    balance_lengths: bool = True  # the chosen reply is the longer one as often as the shorter; too many are dropped

    @model_validator(mode="after")
    def _weighed(self) -> Config:
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"reward_weights has {len(self.reward_weights)} values for {len(self.reward_funcs)} reward_funcs"
            )
        if self.judge_margin is not None and self.judge is None:
            raise ValueError("judge_margin is set, and there is no judge")
        check_reward_tasks(self, self.reward_funcs, self.tasks)
        return self


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_judge(config, config.reward_funcs, compares=config.judge_margin is not None)


def check(config: Config, ctx: StageContext) -> list[Fault]:
    golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
    faults = check_served(config) + missing_device(config.device) + check_model(config.model, ctx)
    faults += check_tasks(config.tasks, "train", ctx, golds)
    return faults + check_rewards(
        config.reward_funcs, ctx, config, lambda: known_prompts(config.tasks, "train", ctx, golds, config.reply)
    )


def run(config: Config, ctx: StageContext) -> None:
    """Sample, score, pair, balance, shuffle: `data.jsonl` holds the pairs, `preferences.json` counts the rest."""
    chat = ChatFormat.load(ctx.inputs[config.model])
    model = load_model(ctx.inputs[config.model], *placed(config), warn=ctx.log.warn)
    golds = golds_of(config.reward_funcs, ctx, config, config.tasks)
    prompts = open_limited_prompts(config.tasks, config.max_prompts, chat, ctx, golds, config.reply)
    rewards = open_rewards(config.reward_funcs, ctx, config)
    scorer = Scorer(rewards, config.reward_weights, tasks=config.reward_tasks)
    judge = open_judge(config, rewards, ctx)
    sampling, key, tell = sampling_of(config, chat), (ctx.seed, ctx.name), tell_once(ctx)
    rows: list[dict] = []
    with open_engine(model, remote=remote_of(config, config.model, ctx)) as engine:

        def make_rows(of_chunk: Sequence[Prompt]) -> list[dict]:
            groups = collect(engine, chat, scorer, of_chunk, config.num_generations, sampling, key, tell)
            offered = [options_row(group, config) for group in groups]
            if judge is not None and config.judge_margin is not None:
                offered = confirmed(offered, groups, judge, config.judge_margin)
            return offered

        for number, chunks, of_chunk in chunked_rows(prompts, PROMPTS_A_CHUNK, make_rows, ctx):
            rows += of_chunk
            paired = sum(bool(row["options"]) for row in rows)
            ctx.log.step(number, chunks, {"prompts": len(rows), "preferences/paired": paired / len(rows)})
    write_pairs(rows, config, ctx)


def options_row(group: Group, config: Config) -> dict:
    """The pairs that a prompt offers, or why it offers none. Truncated replies are no part of a pair, nor are
    empty ones and those with a NUL or a piece of a character, which no data file should hold."""
    replies: dict[str, Scored] = {}
    for rollout in group.rollouts:
        if rollout.completion.finish_reason == "stop" and is_writable(rollout.reply.text):
            length = len(rollout.completion.token_ids)
            replies.setdefault(rollout.reply.text, Scored(rollout.reply.text, rollout.total, length))
    found = candidates(list(replies.values()), config.min_margin, config.max_length_ratio)
    if not found and candidates(list(replies.values()), config.min_margin, float("inf")):
        verdict = "no pair of comparable length"
    else:
        verdict = "paired" if found else "no pair past the margin"
    prompt = [{"role": message.role, "content": message.content} for message in group.prompt.messages]
    options = [asdict(pair) for pair in found]
    return {"prompt": prompt, "source": group.prompt.task, "verdict": verdict, "options": options}


def open_judge(config: Config, rewards: Mapping[str, Reward], ctx: StageContext) -> Judge | None:
    """Who compares the pairs, None if nobody does. The budget of comparing and that of scoring are one."""
    if config.judge is None or config.judge_margin is None:
        return None
    known = rewards.get("judge")
    return known if isinstance(known, Judge) else Judge(config.judge, ctx.work / "judge.jsonl")


def confirmed(rows: Sequence[dict], groups: Sequence[Group], judge: Judge, margin: float) -> list[dict]:
    """The rows with those pairs only whose chosen reply the judge prefers by `margin`, asked in both orders."""
    pairs = []
    for row, group in zip(rows, groups, strict=True):
        reply_of = {rollout.reply.text: rollout.reply for rollout in group.rollouts}
        for option in row["options"]:
            pairs.append((group.prompt, reply_of[option["chosen"]["text"]], reply_of[option["rejected"]["text"]]))
    preferences = iter(judge.compare(pairs))
    found = []
    for row in rows:
        kept = [option for option in row["options"] if next(preferences) >= margin]
        refused = row["options"] and not kept
        found.append({**row, "options": kept, "verdict": "not preferred by the judge" if refused else row["verdict"]})
    return found


def write_pairs(rows: Sequence[dict], config: Config, ctx: StageContext) -> None:
    """The balanced pairs in an order of their own. Raises DataError where there are none."""
    options = [[read_candidate(option) for option in row["options"]] for row in rows]
    picked = balance(options, config.balance_lengths)
    verdicts = Counter(row["verdict"] for row in rows)
    kept = [(row, pair) for row, pair in zip(rows, picked, strict=True) if pair is not None]
    dropped = sum(map(bool, options)) - len(kept)
    if dropped:
        verdicts["paired"] -= dropped
        verdicts["dropped for balance"] = dropped
    if not kept:
        raise DataError(
            Fault(
                "no preference pair is left", why=listed(verdicts),
                fix="a smaller `min_margin`, a larger `max_length_ratio`, more `num_generations`, "
                "or `balance_lengths: false`",
            )
        )  # fmt: skip
    data = [
        {
            "prompt": row["prompt"],
            "chosen": pair.chosen.text,
            "rejected": pair.rejected.text,
            "margin": pair.margin,
            "source": row["source"],
        }
        for row, pair in kept
    ]
    write_rows(ctx.out / "data.jsonl", [data[i] for i in shuffled(len(data), (ctx.seed, ctx.name, "order"))])
    pairs = [pair for _, pair in kept]
    counts = {
        "verdicts": dict(sorted(verdicts.items())),
        "pairs": len(pairs),
        "chosen": {
            name: sum(pair.longer == side for pair in pairs)
            for name, side in (("longer", 1), ("shorter", -1), ("as long", 0))
        },
        "mean_tokens": {
            "chosen": fmean(pair.chosen.length for pair in pairs),
            "rejected": fmean(pair.rejected.length for pair in pairs),
        },
        "mean_margin": fmean(pair.margin for pair in pairs),
    }
    (ctx.out / "preferences.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    ctx.log.info(f"{len(pairs):,} pairs from {len(rows):,} prompts; {dropped:,} dropped to balance lengths")


def read_candidate(row: dict) -> Candidate:
    return Candidate(Scored(**row["chosen"]), Scored(**row["rejected"]), row["margin"])
