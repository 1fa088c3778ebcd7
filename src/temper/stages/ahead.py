"""One step off: the next step's completions are drawn while this one's are trained on, by the policy before the update.

What a step's completions are drawn with is a matter of its number alone, never of who was faster: the policy as it was
when the step before began. So delays change nothing, and the completions are never older than one step. A checkpoint
holds those that were drawn ahead; a resumed run trains on them, and draws what follows as the undisturbed run would.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from temper.errors import Fault
from temper.models.device import DeviceName
from temper.models.forks import may_fork
from temper.rollout.collect import Collecting
from temper.rollout.engine import Engine
from temper.rollout.statistics import Advantages
from temper.stages.context import StageContext
from temper.stages.rollouts import Clock, RolloutConfig, Rollouts
from temper.text.chat import ChatFormat
from temper.train.policy import PolicyConfig
from temper.types import Completion, Group, Prompt


class StaleConfig(RolloutConfig, PolicyConfig):
    """A stage that follows a policy gradient on its own samples."""

    @model_validator(mode="after")
    def _corrected(self) -> StaleConfig:
        has_ratio = self.ratio_against == "sampler" and self.surrogate != "reinforce"
        if self.max_staleness and self.sampler_correction == "none" and not has_ratio:
            raise ValueError(
                f"max_staleness {self.max_staleness} trains on completions of an older policy, and nothing corrects "
                "for it: set sampler_correction (`token_truncate`, say), or ratio_against `sampler`"
            )
        return self


def check_ahead(config: StaleConfig, device: DeviceName) -> list[Fault]:
    """Faults of sampling ahead where there is nobody to do it."""
    in_forks = may_fork() and (device == "cpu" or not torch.cuda.is_available())
    if not config.max_staleness or config.engine is not None or in_forks:
        return []
    what = f"max_staleness {config.max_staleness}: nobody here can sample while the policy is trained"
    why = "without servers, processes forked from this one do it: on Linux, for a model in main memory, and where "
    why += "TEMPER_FORK=0 does not forbid it"
    return [Fault(what, why=why, fix="name servers (`engine`), or leave it out")]


def open_rollouts(config: StaleConfig, chat: ChatFormat, ctx: StageContext) -> Rollouts:
    """The rollouts of a stage, as `Rollouts` says."""
    return AheadRollouts(config, chat, ctx) if config.max_staleness else Rollouts(config, chat, ctx)


@dataclass
class Batch:
    """The first draw of a step: the completions of all ranks once they are known, and the work that makes groups of
    them until it is done."""

    step: int
    prompts: list[Prompt]
    completions: list[Completion] | None = None
    collecting: Collecting | None = None


class AheadRollouts(Rollouts):
    """Implements `Kept` (`train/loop.py`): a checkpoint holds the completions drawn for the step that comes."""

    def __init__(self, config: StaleConfig, chat: ChatFormat, ctx: StageContext):
        super().__init__(config, chat, ctx)
        self._all = [prompt for of_task in self.prompts.values() for prompt in of_task]
        self._now: Batch | None = None
        self._next: Batch | None = None
        self._idle: dict[str, float] = {}
        self._ages: list[list[int]] = []

    def collect(self, engine: Engine, step: int, steps: int) -> list[Group]:
        groups = super().collect(engine, step, steps)
        if step + 1 < steps:
            drawing = self._begin(engine, step + 1, (self.ctx.seed, self.ctx.name), step + 1)
            self._next = Batch(step + 1, list(drawing.all_prompts), collecting=drawing)
            if self._now is not None and self._now.collecting is not None:
                self._idle["seconds/sampler_idle"] = max(0.0, drawing.began - self._now.collecting.ended)
        return groups

    def _first(self, engine: Engine, step: int) -> list[Group]:
        self._idle = {}
        batch, self._next = self._next, None
        if batch is None or batch.step != step:
            drawing = self._begin(engine, step, (self.ctx.seed, self.ctx.name), step)
            batch = Batch(step, list(drawing.all_prompts), collecting=drawing)
        if batch.collecting is None:
            key = (self.ctx.seed, self.ctx.name)
            batch.collecting = self._begin(engine, step, key, step, batch.prompts, batch.completions)
        began = time.perf_counter()
        groups = batch.collecting.groups(self.tell)
        self._idle["seconds/trainer_idle"] = time.perf_counter() - began
        batch.completions = [rollout.completion for group in groups for rollout in group.rollouts]
        self._now = batch
        return groups

    def measured(self, groups: Sequence[Group], updates: int) -> dict[str, Any]:
        self._ages = [[updates - rollout.completion.policy_version for rollout in group.rollouts] for group in groups]
        ages = [age for of_group in self._ages for age in of_group]
        return {"policy/staleness": sum(ages) / len(ages), "policy/staleness_max": max(ages), **self._idle}

    def log(
        self, step: int, total: int, groups: Sequence[Group], advantages: Advantages, metrics: Mapping[str, Any],
        clock: Clock, notes: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:  # fmt: skip
        """As of `Rollouts`, with the staleness of each completion that is kept."""
        notes = notes or [[{}] * len(group.rollouts) for group in groups]
        with_ages = [
            [{**note, "staleness": age} for note, age in zip(*of_group, strict=True)]
            for of_group in zip(notes, self._ages, strict=True)
        ]
        super().log(step, total, groups, advantages, metrics, clock, with_ages)

    # -- what a checkpoint holds --------------------------------------------------------------------------------------

    def settle(self) -> None:
        if self._next is not None and self._next.completions is None and self._next.collecting is not None:
            self._next.completions = self._next.collecting.completions()

    def state(self, step: int) -> dict[str, Tensor] | None:
        """The completions drawn for `step`; none after the last step; None where they are still being drawn."""
        batch = next((batch for batch in (self._now, self._next) if batch is not None and batch.step == step), None)
        if batch is None:
            return {}
        if batch.completions is None:
            return None
        places = {(prompt.task, prompt.id): place for place, prompt in enumerate(self._all)}
        return {
            "step": torch.tensor(step),
            "prompts": torch.tensor([places[prompt.task, prompt.id] for prompt in batch.prompts]),
            **packed(batch.completions),
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._now = self._next = None
        if tensors:
            prompts = [self._all[place] for place in tensors["prompts"].tolist()]
            self._next = Batch(int(tensors["step"]), prompts, unpacked(tensors))


def packed(completions: Sequence[Completion]) -> dict[str, Tensor]:
    """Completions as tensors, to the last bit.

    >>> drawn = [Completion((5, 6), (-0.5, -1.25), "stop", 3), Completion((), (), "length", 3)]
    >>> unpacked(packed(drawn)) == drawn
    True
    """
    return {
        "lengths": torch.tensor([len(one.token_ids) for one in completions], dtype=torch.int64),
        "tokens": torch.tensor([token for one in completions for token in one.token_ids], dtype=torch.int64),
        "logprobs": torch.tensor([v for one in completions for v in one.sampler_logprobs], dtype=torch.float64),
        "stopped": torch.tensor([one.finish_reason == "stop" for one in completions], dtype=torch.uint8),
        "versions": torch.tensor([one.policy_version for one in completions], dtype=torch.int64),
    }


def unpacked(tensors: Mapping[str, Tensor]) -> list[Completion]:
    """What was `packed`."""
    lengths = tensors["lengths"].tolist()
    of_each = zip(
        tensors["tokens"].split(lengths), tensors["logprobs"].split(lengths), tensors["stopped"].tolist(),
        tensors["versions"].tolist(), strict=True,
    )  # fmt: skip
    return [
        Completion(tuple(ids.tolist()), tuple(values.tolist()), "stop" if stopped else "length", version)
        for ids, values, stopped, version in of_each
    ]
