"""Step labels without annotators: a step is as right as the share of continuations from it that end in the right answer
(Math-Shepherd 2312.08935, section 3.3). What a process reward model is trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from temper.config import ModelRef, TaskName
from temper.data.characters import is_writable
from temper.errors import ArtifactError, DataError, Fault
from temper.models.device import DeviceConfig, missing_device, placed
from temper.models.load import load_model
from temper.record.rollouts import write_rows
from temper.rewards import REWARDS
from temper.rewards.score import Scorer
from temper.rng import seed_for
from temper.rollout.collect import collect
from temper.rollout.engine import Engine, Request, Sampling
from temper.rollout.open import open_engine
from temper.rollout.options import SamplingConfig, sampling_of
from temper.rollout.steps import cut_all
from temper.stages.chunks import chunked_rows
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.models import check_model
from temper.stages.prompts import check_tasks, open_limited_prompts
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.types import Completion, Group, Prompt, Rollout

VERSION = 1
PROMPTS_A_CHUNK = 64  # labelled together; a finished chunk is not labelled again after a kill


class Config(SamplingConfig, DeviceConfig):
    """Which solutions are labelled, and from how many continuations."""

    model: ModelRef  # writes the solutions
    completer: ModelRef | None = None  # continues them: a label says what *it* makes of a step; `model` if not given
    tasks: list[TaskName] = Field(min_length=1)
    max_prompts: Annotated[int, Field(ge=1)] | None = None  # of each task's training file
    num_generations: Annotated[int, Field(ge=1)] = 4  # solutions a prompt; equal ones are labelled once
    num_continuations: Annotated[int, Field(ge=1)] = 8  # from the end of each step; Math-Shepherd's N
    label: Literal["soft", "hard"] = "soft"  # the share that ends right, or 1 where any does (its equations 3 and 2)


def check(config: Config, ctx: StageContext) -> list[Fault]:
    golds = dict.fromkeys(config.tasks, "accuracy")
    faults = missing_device(config.device) + check_tasks(config.tasks, "train", ctx, golds)
    for ref in dict.fromkeys((config.model, config.completer or config.model)):
        faults += check_model(ref, ctx)
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Per chunk of prompts: solutions, their steps, continuations from each. `data.jsonl` has a row a solution, its
    steps beside their labels; `labels.json` counts."""
    chat = open_chat(config, ctx)
    model = load_model(ctx.inputs[config.model], *placed(config), warn=ctx.log.warn)
    completer = model
    if config.completer is not None:
        completer = load_model(ctx.inputs[config.completer], *placed(config), warn=ctx.log.warn)
    golds = dict.fromkeys(config.tasks, "accuracy")
    prompts = open_limited_prompts(config.tasks, config.max_prompts, chat, ctx, golds, config.reply)
    rows: list[dict] = []
    with open_engine(model) as writing, open_engine(completer) as continuing:
        labeller = Labeller(writing, continuing, chat, sampling_of(config, chat), config, (ctx.seed, ctx.name))
        for number, chunks, of_chunk in chunked_rows(prompts, PROMPTS_A_CHUNK, labeller.label, ctx):
            rows += of_chunk
            ctx.log.step(number, chunks, counts(rows))
    found = counts(rows)
    if found["labels/mean"] in (0.0, 1.0):
        why = f"every one of {found['labels/steps']:g} steps has the label {found['labels/mean']:g}"
        raise DataError(Fault("the step labels say nothing", why=why, fix="other prompts, or another model"))
    order = shuffled(len(rows), (ctx.seed, ctx.name, "order"))
    write_rows(ctx.out / "data.jsonl", [rows[i] for i in order])
    (ctx.out / "labels.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    ctx.log.info(f"{len(rows):,} solutions with {found['labels/steps']:,} labelled steps")


def open_chat(config: Config, ctx: StageContext) -> ChatFormat:
    """The format of the solutions. Raises ArtifactError where the completer's token ids mean something else."""
    chat = ChatFormat.load(ctx.inputs[config.model])
    if config.completer is not None:
        other = ChatFormat.load(ctx.inputs[config.completer])
        if chat.tokenizer.backend.get_vocab() != other.tokenizer.backend.get_vocab():
            why = "the tokens of a solution would mean something else to the model that continues it"
            raise ArtifactError(Fault("the model and its completer have different tokenizers", why=why))
    return chat


def counts(rows: Sequence[dict]) -> dict[str, Any]:
    """Solutions and steps labelled so far, the mean label, the share of solutions whose answer is right."""
    labels = [label for row in rows for label in row["labels"]]
    return {
        "labels/solutions": len(rows),
        "labels/steps": len(labels),
        "labels/mean": sum(labels) / max(1, len(labels)),
        "labels/right_answers": sum(row["labels"][-1] for row in rows) / max(1, len(rows)),
    }


@dataclass(frozen=True)
class Labeller:
    """Samples solutions and the continuations of their beginnings. Draws are named by `key`, prompt and tokens."""

    writing: Engine
    continuing: Engine
    chat: ChatFormat
    sampling: Sampling
    config: Config
    key: tuple[int | str, ...]

    def label(self, prompts: Sequence[Prompt]) -> list[dict]:
        """One row a distinct solution of each prompt."""
        scorer = Scorer({"accuracy": REWARDS["accuracy"]})
        groups = collect(self.writing, self.chat, scorer, prompts, self.config.num_generations, self.sampling, self.key)
        solutions = [(group, rollout) for group in groups for rollout in distinct(group)]
        cuts = cut_all(self.chat, [rollout for _, rollout in solutions])
        wanted = {
            (group.prompt.id, rollout.completion.token_ids[: end + 1]): group
            for (group, rollout), (_, ends) in zip(solutions, cuts, strict=True)
            for end in ends[:-1]
        }
        shares = self.continued([(group, beginning) for (_, beginning), group in wanted.items()])
        labels = dict(zip(wanted, map(self.to_label, shares), strict=True))
        return [
            {
                "prompt": [{"role": m.role, "content": m.content} for m in group.prompt.messages],
                "steps": [step.text_of(rollout.reply) for step in steps],
                "labels": [labels[group.prompt.id, rollout.completion.token_ids[: end + 1]] for end in ends[:-1]]
                + [float(rollout.rewards["accuracy"] == 1.0)],
                "source": group.prompt.task,
            }
            for (group, rollout), (steps, ends) in zip(solutions, cuts, strict=True)
        ]

    def continued(self, beginnings: Sequence[tuple[Group, tuple[int, ...]]]) -> list[float]:
        """For each beginning of a solution, the share of its continuations that end in the right answer; 0 where no
        token is left for one."""
        count, most = self.config.num_continuations, self.sampling.max_tokens
        asked = [
            (i, Request(group.prompt_ids, self._key(group.prompt, drawn, sample), drawn, most - len(drawn)))
            for i, (group, drawn) in enumerate(beginnings)
            if len(drawn) < most
            for sample in range(count)
        ]
        completions = self.continuing.generate([request for _, request in asked], self.sampling)
        right: Counter[int] = Counter()
        for (i, request), completion in zip(asked, completions, strict=True):
            right[i] += self._ends_right(beginnings[i][0].prompt, request, completion)
        return [right[i] / count for i in range(len(beginnings))]

    def to_label(self, share: float) -> float:
        return share if self.config.label == "soft" else float(share > 0)

    def _key(self, prompt: Prompt, drawn: tuple[int, ...], sample: int) -> int:
        return seed_for(*self.key, prompt.id, "from", ",".join(map(str, drawn)), sample)

    def _ends_right(self, prompt: Prompt, request: Request, completion: Completion) -> bool:
        text = self.chat.decode(request.drawn + completion.token_ids)
        return REWARDS["accuracy"](prompt, parse_reply(text, self.chat.thinking_opened, prompt.reply)) == 1.0


def distinct(group: Group) -> list[Rollout]:
    """The first rollout of each text of a group that a data file can hold and that reads back as the tokens it came
    from; an empty one teaches nothing."""
    whole = [r for r in group.rollouts if is_writable(r.reply.text)]
    by_text = {rollout.reply.text: rollout for rollout in reversed(whole)}
    return [rollout for rollout in group.rollouts if by_text.get(rollout.reply.text) is rollout]
