"""Every choice of the policy-gradient core against the formula written out, a completion at a time, in float64; and no
gradient depends on how a step is cut: micro-batches, packing, order of groups, ranks."""

from __future__ import annotations

import math
import random
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor

from temper.algorithms.aggregation import AGGREGATIONS
from temper.stages.grpo import Config, move_reference, reference_is_due
from temper.train.learner import Learner, OptimizerConfig
from temper.train.policy import PolicyConfig, PolicyLoss, policy_batches, with_old, with_reference
from temper.types import PolicyExample

LONGEST = 9
BETA = 0.1


def make_groups(seed: int = 0) -> list[list[tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]]]:
    """Three groups of four: prompt, completion, advantages (of each token, as process supervision has them)."""
    draw = random.Random(seed)
    groups = []
    for _ in range(3):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 7)))
        group = []
        for _ in range(4):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, LONGEST + 1)))
            group.append((prompt, reply, tuple(draw.uniform(-1, 1) for _ in reply)))
        groups.append(group)
    return groups


def examples_of(aggregation: str, seed: int = 0) -> tuple[list[PolicyExample], float]:
    groups = make_groups(seed)
    weights, divisor = AGGREGATIONS[aggregation]([[len(reply) for _, reply, _ in group] for group in groups], LONGEST)
    draw = random.Random(seed + 1)
    examples = [
        PolicyExample(
            prompt + reply,
            (False,) * len(prompt) + (True,) * len(reply),
            advantages,
            tuple(draw.uniform(-5, -4) for _ in reply),
            weight,
            BETA,
        )
        for group, of_group in zip(groups, weights, strict=True)
        for (prompt, reply, advantages), weight in zip(group, of_group, strict=True)
    ]
    return examples, divisor


def model_of(shift: float, attention: str = "temper") -> Any:
    torch.manual_seed(5)
    model = tiny_model("qwen3", attention=attention).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shift * torch.randn_like(parameter))
    return model


def logprobs_of(model: Any, example: PolicyExample, temperature: float) -> tuple[Tensor, Tensor]:
    """(log π of the targets, entropy there), through eager attention."""
    ids = torch.tensor([example.token_ids])
    start = example.prefix_length
    logs = (model(ids).logits[0, start - 1 : -1].double() / temperature).log_softmax(-1)
    return logs.gather(-1, ids[0, start:, None])[:, 0], -(logs.exp() * logs).sum(-1)


def written_out(config: PolicyConfig, aggregation: str, temperature: float) -> tuple[float, Tensor]:
    """The objective as the papers write it, one completion at a time; each is averaged by hand."""
    policy, old_policy, reference = (model_of(shift, "eager") for shift in (0.0, 0.05, 0.08))
    examples, _ = examples_of(aggregation)
    high = config.clip_range if config.clip_range_high is None else config.clip_range_high
    losses = []
    for example in examples:
        ours, entropy = logprobs_of(policy, example, temperature)
        with torch.no_grad():
            old, anchor = (logprobs_of(other, example, temperature)[0] for other in (old_policy, reference))
        sampler = torch.tensor(example.sampler_logprobs, dtype=torch.float64)
        advantages = torch.tensor(example.advantages, dtype=torch.float64)
        log_ratio = ours - (sampler if config.ratio_against == "sampler" else old)
        ratio = {
            "token": log_ratio.exp(),
            "sequence": log_ratio.mean().exp().expand(len(ours)),
            "product": log_ratio.exp().prod().expand(len(ours)),
        }[config.ratio]
        if config.surrogate == "clip":
            clipped = torch.clamp(ratio, 1 - config.clip_range, 1 + high)
            bound = config.clip_range_negative or math.inf
            held = torch.where((advantages < 0) & (ratio > bound), torch.full_like(ratio, bound), ratio)
            loss = -torch.min(held * advantages, clipped * advantages)
        elif config.surrogate == "sapo":
            tau = torch.where(advantages > 0, config.sapo_temperature, config.sapo_temperature_negative)
            loss = -4 / (tau * (1 + (-tau * (ratio - 1)).exp())) * advantages
        elif config.surrogate == "cispo":
            loss = -torch.minimum(ratio, torch.tensor(config.ratio_cap)).detach() * advantages * ours
        else:
            loss = -advantages * ours
        loss = loss * correction(config, old - sampler)
        if config.sampler_rejection != "none":
            w = weights_of(config.sampler_rejection, old - sampler)
            loss = loss * ((w >= config.sampler_rejection_min) & (w <= config.sampler_rejection_max))
        if config.off_policy_threshold is not None:
            drift = (sampler - ours).mean().item()
            loss = torch.where((advantages < 0) & (drift > config.off_policy_threshold), 0.0, loss)
        u = anchor - ours
        kl = {"k2": u**2 / 2, "k3": u.exp() - u - 1, "k3_corrected": log_ratio.exp() * (u.exp() - u - 1)}
        losses.append(loss + BETA * kl[config.kl_estimator] - config.entropy_bonus * entropy)
    total = averaged(losses, aggregation)
    total.backward()
    return total.item(), gradient(policy)


def correction(config: PolicyConfig, gap: Tensor) -> Tensor:
    if config.sampler_correction == "none":
        return torch.ones_like(gap)
    weights = weights_of(config.sampler_correction.split("_")[0], gap)
    low, high = config.sampler_correction_min, config.sampler_correction_max
    if config.sampler_correction.endswith("truncate"):
        return weights.clamp(low, high)
    return torch.where((weights >= low) & (weights <= high), weights, 0.0)


def weights_of(level: str, gap: Tensor) -> Tensor:
    """π_old/π_sampler of a token, of its completion, or the geometric mean over its completion's tokens."""
    if level == "token":
        return gap.exp()
    whole = math.prod(math.exp(value) for value in gap.tolist())
    return torch.full_like(gap, whole if level == "sequence" else whole ** (1 / len(gap)))


def averaged(losses: list[Tensor], aggregation: str) -> Tensor:
    if aggregation == "sequence_mean":
        return torch.stack([loss.mean() for loss in losses]).mean()
    if aggregation == "token_mean":
        return torch.cat(losses).mean()
    if aggregation == "prompt_mean":
        return torch.stack([torch.cat(losses[i : i + 4]).mean() for i in range(0, len(losses), 4)]).mean()
    if aggregation == "sequence_sum":
        return torch.stack([loss.sum() for loss in losses]).mean()
    return torch.cat(losses).sum() / (len(losses) * LONGEST)


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def core(
    config: PolicyConfig, aggregation: str, temperature: float, budget: int = 10_000, order: int = 0, ranks: int = 1
) -> tuple[float, Tensor]:
    """Through temper; `ranks` learners each take a share of the examples, and their gradients are added."""
    examples, divisor = examples_of(aggregation)
    random.Random(order).shuffle(examples) if order else None
    old_policy, reference = model_of(0.05), model_of(0.08)
    loss, total, found = PolicyLoss(config, temperature), 0.0, torch.zeros(())
    for rank in range(ranks):
        learner = Learner(model_of(0.0), OptimizerConfig(learning_rate=1e-3, max_grad_norm=1e9), 1)
        parts = with_old(policy_batches(examples[rank::ranks], budget), old_policy, temperature)
        parts = with_reference(parts, reference, temperature)
        makers = [partial(loss, learner.model, part) for part in parts]
        metrics = learner.update(makers, divisor)
        total += metrics["loss"]
        found = found + gradient(learner.model)
    return total, found


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "grpo": ({}, "sequence_mean"),
    "clip higher, second bound": ({"clip_range_high": 0.28, "clip_range_negative": 1.1}, "token_mean"),
    "gspo": ({"ratio": "sequence", "clip_range": 3e-4, "clip_range_high": 4e-4}, "sequence_mean"),
    "cispo": ({"surrogate": "cispo", "ratio_cap": 1.02}, "prompt_mean"),
    "cispo of sequences": ({"surrogate": "cispo", "ratio": "sequence", "ratio_cap": 1.0}, "constant"),
    "reinforce, k2": ({"surrogate": "reinforce", "kl_estimator": "k2"}, "constant"),
    "v32": ({"kl_estimator": "k3_corrected", "off_policy_threshold": 0.3}, "sequence_mean"),
    "truncated": ({"sampler_correction": "token_truncate", "sampler_correction_max": 1.2}, "token_mean"),
    "masked": ({"sampler_correction": "token_mask", "sampler_correction_min": 0.5}, "prompt_mean"),
    "sequence truncated": ({"sampler_correction": "sequence_truncate", "sampler_correction_max": 3.0}, "token_mean"),
    "sequence masked": ({"sampler_correction": "sequence_mask", "sampler_correction_max": 3.0}, "sequence_mean"),
    "entropy": ({"entropy_bonus": 0.3}, "prompt_mean"),
    "product of a completion": ({"ratio": "product", "clip_range": 0.5}, "sequence_mean"),
    "sapo": ({"surrogate": "sapo", "sapo_temperature": 1.3, "sapo_temperature_negative": 2.0}, "sequence_mean"),
    "sapo of sequences": ({"surrogate": "sapo", "ratio": "sequence"}, "token_mean"),
    "luspo": ({"ratio": "sequence", "clip_range": 2e-3, "clip_range_high": 2.5e-3}, "sequence_sum"),
    "scalerl": ({"surrogate": "cispo", "ratio_cap": 1.1, "ratio_against": "sampler"}, "prompt_mean"),
    "clipped against the sampler": ({"ratio_against": "sampler", "kl_estimator": "k3_corrected"}, "token_mean"),
    "geometric truncated": ({"sampler_correction": "geometric_truncate", "sampler_correction_max": 1.1}, "token_mean"),
    "geometric masked": ({"sampler_correction": "geometric_mask", "sampler_correction_min": 0.9}, "sequence_mean"),
    "geometric rejected": ({"sampler_rejection": "geometric", "sampler_rejection_min": 0.8}, "token_mean"),
    "rejected, then truncated": (
        {"sampler_rejection": "token", "sampler_rejection_max": 1.4, "sampler_correction": "sequence_truncate"},
        "prompt_mean",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_the_formula_written_out(case: str) -> None:
    options, aggregation = CASES[case]
    config = PolicyConfig(**options)
    wanted_loss, wanted = written_out(config, aggregation, 0.8)
    loss, found = core(config, aggregation, 0.8)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert (found - wanted).norm() <= 2e-6 * wanted.norm()


@pytest.mark.parametrize("case", CASES)
def test_no_gradient_depends_on_how_the_step_is_cut(case: str) -> None:
    options, aggregation = CASES[case]
    config = PolicyConfig(**options)
    loss, wanted = core(config, aggregation, 1.0)
    for cut in ({"budget": 8}, {"budget": 40, "order": 1}, {"order": 2}, {"ranks": 2}, {"ranks": 3, "budget": 16}):
        same_loss, found = core(config, aggregation, 1.0, **cut)
        assert same_loss == pytest.approx(loss, abs=1e-6)
        assert (found - wanted).norm() <= 1e-6 * wanted.norm(), cut


def grpo(**options: Any) -> Config:
    return Config(model="m", tasks=["t"], max_steps=1, **options)


def test_the_reference_moves_every_so_many_updates_however_many_a_step_makes() -> None:
    config = grpo(reference_update_steps=5, kl_penalty=0.1)
    ends = [0, 2, 4, 6, 8, 10, 12]
    due = [after for before, after in pairwise(ends) if reference_is_due(config, before, after)]
    assert due == [6, 10]
    assert not reference_is_due(grpo(), 0, 1000)


def test_a_moving_average_reference_goes_its_share_of_the_way() -> None:
    reference, policy = model_of(0.0), model_of(0.1)
    start = [p.clone() for p in reference.parameters()]
    move_reference(reference, policy, 0.25)
    for before, now, target in zip(start, reference.parameters(), policy.parameters(), strict=True):
        assert torch.allclose(now, 0.75 * before + 0.25 * target)
    move_reference(reference, policy, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(reference.parameters(), policy.parameters(), strict=True))
