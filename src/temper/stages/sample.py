"""Rejection sampling: many completions of each prompt, only the verified and readable kept, mixed with other data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from temper.config import DataRef, ModelRef, RewardName, TaskName
from temper.data.characters import is_writable
from temper.data.conversations import load_conversations
from temper.errors import DataError, Fault
from temper.models.device import missing_device, placed
from temper.models.load import load_model
from temper.record.rollouts import write_rows
from temper.rewards.score import Scorer
from temper.rollout.collect import collect
from temper.rollout.open import open_engine
from temper.rollout.options import ServedConfig, sampling_of
from temper.stages.chunks import chunked_rows, listed
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_judge
from temper.stages.models import check_model
from temper.stages.prompts import check_conversations, check_tasks, known_prompts, open_limited_prompts
from temper.stages.rewards import RewardsConfig, check_reward_tasks, check_rewards, golds_of, open_rewards, tell_once
from temper.stages.served import check_served, remote_of
from temper.text.chat import ChatFormat
from temper.text.languages import LANGUAGES, language_share
from temper.types import Group, Message, Prompt, Rollout

VERSION = 3
PROMPTS_A_CHUNK = 128  # sampled together; a finished chunk is not sampled again after a kill


class Config(ServedConfig, RewardsConfig):
    """The filters are R1's (2501.12948, section 2.3.3): mixed languages, long paragraphs and code blocks go."""

    model: ModelRef
    tasks: list[TaskName] = Field(min_length=1)
    num_generations: Annotated[int, Field(ge=1)] = 4
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # of each task's training file
    min_rewards: dict[RewardName, float] = {"accuracy": 1.0, "format": 1.0}  # every named reward must reach its bound
    drop_code_blocks: bool = True
    max_paragraph_length: Annotated[int, Field(ge=1)] | None = 2000  # characters, in the thought, or in a plain reply
    max_per_prompt: Annotated[int, Field(ge=1)] = 1
    # in the language of the prompt: the share of the thought's words whose language can be told, or of a plain reply's
    min_language_share: Annotated[float, Field(ge=0, le=1)] | None = 0.9
    max_kept: Annotated[int, Field(ge=1)] | None = None  # drawn from what is kept; R1: about 600,000
    mix: list[DataRef] = []  # conversations added as they are
    mix_share: Annotated[float, Field(gt=0, lt=1)] | None = None  # of the mix in the data, drawn from it; R1: a quarter
    mix_count: Annotated[int, Field(ge=1)] | None = None  # or its number of conversations; R1: about 200,000
    columns: dict[str, str] = {}  # of the `mix` files

    @model_validator(mode="after")
    def _bounded(self) -> Config:
        if self.max_per_prompt > self.num_generations:
            raise ValueError(
                f"max_per_prompt ({self.max_per_prompt}) is more than num_generations ({self.num_generations})"
            )
        check_reward_tasks(self, list(self.min_rewards), self.tasks)
        if self.mix_share is not None and self.mix_count is not None:
            raise ValueError("mix_share and mix_count: one of the two says how much of the mix is taken")
        if not self.mix and (self.mix_share or self.mix_count):
            raise ValueError("mix_share or mix_count, and no `mix` to take it from")
        return self


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_judge(config, list(config.min_rewards))
    if not config.mix:
        yield Idle("columns", "they are of the files in `mix`: a task has `columns` of its own")


def check(config: Config, ctx: StageContext) -> list[Fault]:
    names = list(config.min_rewards)
    golds = golds_of(names, ctx, config, config.tasks)
    faults = check_served(config) + missing_device(config.device) + check_model(config.model, ctx)
    faults += check_tasks(config.tasks, "train", ctx, golds)
    faults += check_rewards(names, ctx, config, lambda: known_prompts(config.tasks, "train", ctx, golds, config.reply))
    for ref in config.mix:
        faults += check_conversations(ref, config.columns, ctx)
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Sample, filter, dedupe, cap per prompt, mix, shuffle: `data.jsonl` holds what is kept, `harvest.json` counts."""
    chat = ChatFormat.load(ctx.inputs[config.model])
    model = load_model(ctx.inputs[config.model], *placed(config), warn=ctx.log.warn)
    golds = golds_of(list(config.min_rewards), ctx, config, config.tasks)
    prompts = open_limited_prompts(config.tasks, config.max_prompts, chat, ctx, golds, config.reply)
    scorer = Scorer(open_rewards(list(config.min_rewards), ctx, config), None, tasks=config.reward_tasks)
    sampling, tell = sampling_of(config, chat), tell_once(ctx)
    kept: list[dict] = []
    verdicts: Counter[str] = Counter()
    with open_engine(model, remote=remote_of(config, config.model, ctx)) as engine:

        def make_rows(of_chunk: Sequence[Prompt]) -> list[dict]:
            key = (ctx.seed, ctx.name)
            return harvest(collect(engine, chat, scorer, of_chunk, config.num_generations, sampling, key, tell), config)

        for number, chunks, rows in chunked_rows(prompts, PROMPTS_A_CHUNK, make_rows, ctx):
            kept += [row["keep"] for row in rows if "keep" in row]
            for row in rows:
                verdicts[row["verdict"]] += 1
            share = {"kept": verdicts["kept"], "harvest/kept": verdicts["kept"] / verdicts.total()}
            ctx.log.step(number, chunks, share)
    if not kept:
        raise DataError(
            Fault(
                "rejection sampling kept nothing", why=listed(verdicts),
                fix="lower `min_rewards`, raise `num_generations`, or train the model further first",
            )
        )  # fmt: skip
    mixed = [
        _row(messages, "mix") for ref in config.mix for messages in load_conversations(ctx.inputs[ref], config.columns)
    ]
    kept = drawn(kept, config.max_kept, (ctx.seed, ctx.name, "kept"))
    mixed = drawn(mixed, mix_size(config, len(kept)), (ctx.seed, ctx.name, "mixed"))
    if (wanted := mix_size(config, len(kept))) is not None and len(mixed) < wanted:
        ctx.log.warn(f"the mix has {len(mixed):,} conversations, fewer than the {wanted:,} that the stage asks for")
    rows = kept + mixed
    order = shuffled(len(rows), (ctx.seed, ctx.name, "mix"))
    write_rows(ctx.out / "data.jsonl", [rows[i] for i in order])
    counts = {"verdicts": dict(sorted(verdicts.items())), "kept": len(kept), "mixed": len(mixed)}
    (ctx.out / "harvest.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    ctx.log.info(f"{verdicts.total():,} completions: {listed(verdicts)}; mixed with {len(mixed):,} conversations")


def mix_size(config: Config, kept: int) -> int | None:
    """How many conversations of the mix join `kept` rows; None for all.

    >>> mix_size(Config(model="m", tasks=["t"], mix=["d"], mix_share=0.25), 600)
    200
    """
    if config.mix_share is not None:
        return round(kept * config.mix_share / (1 - config.mix_share))
    return config.mix_count


def drawn(rows: Sequence[dict], count: int | None, key: tuple[int | str, ...]) -> list[dict]:
    """`count` of the rows by the draw that `key` names, in their order; all where there are no more, or it is None."""
    if count is None or count >= len(rows):
        return list(rows)
    return [rows[i] for i in sorted(shuffled(len(rows), key)[:count])]


def harvest(groups: Sequence[Group], config: Config) -> list[dict]:
    """One row a completion: its verdict, and under `keep` the conversation if it is kept."""
    rows = []
    for group in groups:
        seen: set[str] = set()
        for rollout in group.rollouts:
            verdict = reject(rollout, config)
            if verdict is None and rollout.reply.text in seen:
                verdict = "duplicate"
            if verdict is None and len(seen) >= config.max_per_prompt:
                verdict = "over the cap"
            if verdict is None:
                seen.add(rollout.reply.text)
                messages = (*rollout.prompt.messages, Message("assistant", rollout.reply.text))
                rows.append({"verdict": "kept", "keep": _row(messages, rollout.prompt.task)})
            else:
                rows.append({"verdict": verdict})
    return rows


def reject(rollout: Rollout, config: Config) -> str | None:
    """Why this completion is not kept, or None."""
    if rollout.completion.finish_reason == "length":
        return "truncated"
    if not rollout.reply.text.strip():
        return "empty"
    if not is_writable(rollout.reply.text):
        return "broken text"
    for name, bound in config.min_rewards.items():
        if rollout.rewards.get(name, bound) < bound:  # one that does not apply to this reply has no say
            return f"{name} below {bound:g}"
    thinking = rollout.reply.reasoning or ""
    if config.drop_code_blocks and "```" in _beside_its_program(rollout):
        return "code block"
    if config.max_paragraph_length and max(map(len, thinking.split("\n\n"))) > config.max_paragraph_length:
        return "long paragraph"
    if config.min_language_share and mixes_languages(thinking, rollout.prompt.language, config.min_language_share):
        return "mixed languages"
    return None


def _beside_its_program(rollout: Rollout) -> str:
    """Where a block of code is out of place: the reply; where its program was run, the thought that led to it."""
    if "code" not in rollout.rewards:
        return rollout.reply.text
    return "" if rollout.reply.form == "plain" else rollout.reply.thinking or ""


def mixes_languages(text: str, language: str, least: float) -> bool:
    """Whether fewer than `least` of the words whose language can be told are of this one. A text of formulas alone has
    no such words, and of a language that temper does not know it cannot be told.

    >>> mixes_languages("First 38+33=71. Dann 71-49=22.", "en", 0.9), mixes_languages("38+33=71", "en", 0.9)
    (True, False)
    """
    if language not in LANGUAGES:
        return False
    share = language_share(text, language)
    return share < least and (share > 0 or any(language_share(text, other) > 0 for other in LANGUAGES))


def _row(messages: Sequence[Message], source: str) -> dict:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return {"messages": turns, "source": source}
