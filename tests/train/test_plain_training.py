"""The plain forward of training: the packed one's values and gradients, and each example as if it stood alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor
from unpackable_models import unpackable

from temper.data.batching import make_batch
from temper.rollout.engine import Request, Sampling
from temper.rollout.plain import PlainEngine
from temper.train.forward import plan_batch, score_targets
from temper.train.plain import plain_logits
from temper.types import Example


def examples(seed: int, groups: int = 4, samples: int = 4) -> list[Example]:
    """More rows than one forward takes: groups that share a prompt, and a conversation of two turns in the middle."""
    draw = random.Random(seed)
    made = [Example((5, 6, 7, 8, 9), (False, True, True, False, True)), Example((5, 6), (False, False))]
    for _ in range(groups):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 20)))
        for _ in range(samples):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 25)))
            made.append(Example(prompt + reply, (False,) * len(prompt) + (True,) * len(reply)))
    draw.shuffle(made)
    return made


def chosen(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)


def alone(model: Any, rows: list[Example]) -> Tensor:
    """The logits before each target, one example a forward."""
    found = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.token_ids]), use_cache=False).logits[0]
        found += [logits[i - 1] for i, target in enumerate(row.mask) if target]
    return torch.stack(found)


def gradients(model: Any, value: Tensor) -> list[Tensor]:
    model.zero_grad()
    value.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_values_and_gradients_are_those_of_the_packed_forward(attention: str) -> None:
    packed, plain = tiny_model("llama"), tiny_model("llama", attention)
    batch = make_batch(examples(0))
    weights = torch.linspace(-1, 1, len(batch.targets))
    expected = score_targets(packed, batch, plan_batch(batch)).logprobs_M
    found = chosen(plain_logits(plain, batch), batch.targets)
    assert torch.allclose(found, expected, atol=1e-5)
    ours, theirs = gradients(plain, (found * weights).sum()), gradients(packed, (expected * weights).sum())
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= 1e-5 * other.abs().max() + 1e-7


@pytest.mark.parametrize("architecture", ["gpt_oss", "mamba", "qwen3_next", "minimax", "rwkv", "openai-gpt"])
def test_padding_changes_neither_logits_nor_gradients(architecture: str) -> None:
    model, rows = unpackable(architecture), examples(1)
    batch = make_batch(rows)
    weights = torch.linspace(-1, 1, len(batch.targets))
    found, expected = plain_logits(model, batch), alone(model, rows)
    assert torch.allclose(found, expected, atol=1e-4)
    ours, theirs = (gradients(model, (chosen(x, batch.targets) * weights).sum()) for x in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max() + 1e-7


@pytest.mark.parametrize("architecture", ["gpt_oss", "mamba"])
def test_trainer_and_sampler_agree_on_a_model_that_cannot_be_packed(architecture: str) -> None:
    model = unpackable(architecture)
    asked = [Request((5, 6, 7 + i % 3), i) for i in range(12)]
    drawn = PlainEngine(model).generate(asked, Sampling(9, 0.8, stop_ids=(1,)))
    rows = [
        Example(r.prompt_ids + c.token_ids, (False,) * 3 + (True,) * len(c.token_ids))
        for r, c in zip(asked, drawn, strict=True)
    ]
    batch = make_batch(rows)
    scored = score_targets(model, batch, plan_batch(batch), 0.8)
    sampled = torch.tensor([value for completion in drawn for value in completion.sampler_logprobs])
    assert (scored.logprobs_M - sampled).abs().max() < 1e-5
    assert scored.logprobs_M.requires_grad
