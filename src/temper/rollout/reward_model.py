"""A trained reward model as a reward: many replies scored in one packed forward, each step of a reply where asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from temper.errors import ArtifactError, Fault, TemperError
from temper.models.device import on_device, pin
from temper.models.load import Dtype
from temper.models.reward_card import RewardCard, read_card
from temper.models.scalar import load_scalar
from temper.text.chat import ChatFormat
from temper.text.steps import reply_steps
from temper.train.reward_inputs import part_read, step_examples, text_examples
from temper.train.scores import AskedExample, score_asked, split_asked
from temper.types import Prompt, Reply, Step

Scores = list[float]
BATCH_TOKENS = 16384  # of a forward pass: speed and memory, not what is said


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A reward `(prompt, reply) -> float` with `batch`; its weights are on `device` only while it is asked.

    A Bradley-Terry model gives (score − mean) / std, with mean and std of its own held-out scores; a reply that says
    nothing in the part that is read gets what the lowest of those would. A pointwise model gives the probability
    σ(score) that the reply is good, and 0 where there is nothing to read. A process reward model gives the probability
    of the least probable step (2312.08935 ranks solutions by it).
    """

    model: Any
    chat: ChatFormat
    card: RewardCard
    device: torch.device

    @staticmethod
    def load(
        path: Path, device: str | torch.device, dtype: Dtype = "float32", warn: Callable[[str], None] | None = None
    ) -> RewardModel:
        """The reward model that the stage `reward_model` left in `path`. Raises ArtifactError."""
        card = read_card(path)
        model = load_scalar(path, "step" if card.kind == "process" else "text", dtype=dtype, warn=warn)
        return RewardModel(pin(model.requires_grad_(False)), ChatFormat.load(path), card, torch.device(device))

    def __call__(self, prompt: Prompt, reply: Reply) -> float:
        """The reward of one reply. Raises ValueError for one that does not fit the model."""
        return _only(self.batch([(prompt, reply)]))

    def batch(self, pairs: Sequence[tuple[Prompt, Reply]]) -> list[float | ValueError]:
        """The reward of each reply, an exception for one that does not fit the model."""
        if self.card.kind == "process":
            of_steps = self.step_batch([(prompt, reply, reply_steps(reply)) for prompt, reply in pairs])
            return [steps if isinstance(steps, ValueError) else min(steps) for steps in of_steps]
        texts = [part_read(reply, self.card.reads) for _, reply in pairs]
        prompts = [prompt for (prompt, _), text in zip(pairs, texts, strict=True) if text is not None]
        said = iter(self._say(text_examples, prompts, [text for text in texts if text is not None]))
        return [self._of_nothing() if text is None else self._reward(next(said)) for text in texts]

    def step_rewards(self, prompt: Prompt, reply: Reply, steps: Sequence[Step]) -> Scores:
        """The probability that each step of a reply is right, in order. Raises ValueError where it does not fit."""
        return _only(self.step_batch([(prompt, reply, steps)]))

    def step_batch(self, replies: Sequence[tuple[Prompt, Reply, Sequence[Step]]]) -> list[Scores | ValueError]:
        """`step_rewards` of many replies, an exception for one that does not fit the model. Steps follow each other.

        Raises ArtifactError for a model that judges whole replies.
        """
        if self.card.kind != "process":
            what = f"a {self.card.kind} reward model judges whole replies, not their steps"
            raise ArtifactError(Fault(what, fix="train one with `kind: process`"))
        pieces = [[step.text_of(reply) for step in steps] for _, reply, steps in replies]
        said = self._say(step_examples, [prompt for prompt, _, _ in replies], pieces)
        return [scores if isinstance(scores, ValueError) else [_sigmoid(score) for score in scores] for scores in said]

    def _say(self, make: Callable[..., list[AskedExample]], prompts: Sequence[Prompt], replies: Sequence[Any]) -> list:
        """The scores of each reply, or why it does not fit. All are encoded in one call where all of them fit."""
        asked: list[AskedExample | ValueError] = []
        try:
            asked += make(self.chat, [prompt.messages for prompt in prompts], replies)
        except TemperError:
            for prompt, reply in zip(prompts, replies, strict=True):
                try:
                    asked += make(self.chat, [prompt.messages], [reply])
                except TemperError as error:
                    asked.append(ValueError(str(error)))
        scores = iter(self._scores([example for example in asked if isinstance(example, AskedExample)]))
        return [example if isinstance(example, ValueError) else next(scores) for example in asked]

    @torch.no_grad()
    def _scores(self, examples: Sequence[AskedExample]) -> list[Scores]:
        """What the model says at everything that each example asks for. Equal ones are asked once: the rewards of equal
        replies are equal to the last bit, so a group of them has no advantage."""
        distinct = list(dict.fromkeys(examples))
        found: dict[AskedExample, Scores] = {}
        with on_device(self.model, self.device) as model:
            for numbers in split_asked([[example] for example in distinct], BATCH_TOKENS):
                part = [distinct[i] for i in numbers]
                said = score_asked(model, part).split([len(example.asked) for example in part])
                found |= {example: scores.tolist() for example, scores in zip(part, said, strict=True)}
        return [found[example] for example in examples]

    def _reward(self, scores: Scores | ValueError) -> float | ValueError:
        if isinstance(scores, ValueError):
            return scores
        (score,) = scores
        return _sigmoid(score) if self.card.kind == "pointwise" else (score - self.card.mean) / self.card.std

    def _of_nothing(self) -> float:
        return 0.0 if self.card.kind == "pointwise" else (self.card.lowest - self.card.mean) / self.card.std


def _only(values: Sequence[Any]) -> Any:
    (value,) = values
    if isinstance(value, ValueError):
        raise value
    return value


def _sigmoid(score: float) -> float:
    """1 / (1 + e^−score), without overflow.

    >>> _sigmoid(0.0), _sigmoid(-800.0)
    (0.5, 0.0)
    """
    return 1 / (1 + math.exp(-score)) if score > 0 else math.exp(score) / (1 + math.exp(score))
