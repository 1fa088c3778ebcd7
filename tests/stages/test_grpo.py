"""The GRPO update: its gradient is the paper's, and does not depend on packing, dead groups or where a step is cut."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model

from temper.algorithms.advantages import ADVANTAGES
from temper.errors import Exit, TemperError
from temper.stages.grpo import Config, may_merge, update
from temper.train.guards import Guards, watch
from temper.train.learner import Learner
from temper.train.policy import PolicyLoss, policy_batches
from temper.types import PolicyExample


def config(**options: object) -> Config:
    return Config(model="m", tasks=["t"], max_steps=1, learning_rate=1e-3, num_generations=4, prompts_per_step=4,
                  **options)  # fmt: skip


def groups(dead: tuple[int, ...] = (), seed: int = 0, beta: float = 0.0) -> list[list[PolicyExample]]:
    """Four groups of four; those in `dead` have equal rewards."""
    draw = random.Random(seed)
    made = []
    for i in range(4):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(2, 9)))
        rewards = [1.0] * 4 if i in dead else [1.0, 0.0, 0.1, 0.0]
        advantages = ADVANTAGES["std"](torch.tensor(rewards, dtype=torch.float64)).tolist()
        group = []
        for advantage in advantages:
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 12)))
            group.append(
                PolicyExample(
                    prompt + reply,
                    (False,) * len(prompt) + (True,) * len(reply),
                    (advantage,) * len(reply),
                    (-1.0,) * len(reply),
                    weight=1 / len(reply),
                    kl_penalty=beta,
                )
            )
        made.append(group)
    return made


def whole() -> list[tuple[list[list[PolicyExample]], float]]:
    return [(groups(), 16.0)]


def halves() -> list[tuple[list[list[PolicyExample]], float]]:
    return [(groups()[:2], 8.0), (groups()[2:], 8.0)]


def plain_loss(
    policy: torch.nn.Module, reference: torch.nn.Module, rows: list[list[PolicyExample]], beta: float
) -> torch.Tensor:
    """The objective as the paper writes it, one completion at a time, through eager attention; ρ = 1."""
    total = torch.zeros(())
    count = sum(len(group) for group in rows)
    for group in rows:
        for example in group:
            ids = torch.tensor([example.token_ids])
            start = example.prefix_length
            chosen = ids[0, start:, None]
            ours = policy(ids).logits[0, start - 1 : -1].log_softmax(-1).gather(-1, chosen)[:, 0]
            with torch.no_grad():
                anchor = reference(ids).logits[0, start - 1 : -1].log_softmax(-1).gather(-1, chosen)[:, 0]
            ratio = (ours - ours.detach()).exp()
            u = anchor - ours
            kl = u.exp() - u - 1
            total = total - (ratio * torch.tensor(example.advantages) - beta * kl).mean() / count
    return total


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def shifted(model: torch.nn.Module) -> torch.nn.Module:
    """A reference that differs from the policy."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("budget", [16, 64, 10_000])
def test_one_update_has_the_papers_gradient(beta: float, budget: int) -> None:
    settings = config(kl_penalty=beta, micro_batch_tokens=budget, max_grad_norm=1e9)
    learner = Learner(tiny_model("qwen3"), settings, 1)
    reference = shifted(tiny_model("qwen3")) if beta else None
    plain = tiny_model("qwen3", attention="eager")
    expected = plain_loss(plain, shifted(tiny_model("qwen3", attention="eager")), groups(), beta)
    expected.backward()
    metrics = update(settings, learner, PolicyLoss(settings), reference, [(groups(beta=beta), 16.0)])
    assert metrics["loss"] == pytest.approx(expected.item(), abs=1e-5)
    wanted = gradient(plain)
    assert (gradient(learner.model) - wanted).norm() <= 2e-5 * wanted.norm()


def test_a_dead_group_is_left_out_and_its_gradient_was_zero() -> None:
    settings = config(kl_penalty=0.0, max_grad_norm=1e9)
    learner = Learner(tiny_model("llama"), settings, 1)
    plain = tiny_model("llama", attention="eager")
    plain_loss(plain, plain, groups(dead=(1, 2)), 0.0).backward()
    update(settings, learner, PolicyLoss(settings), None, [(groups(dead=(1, 2)), 16.0)])
    wanted = gradient(plain)
    assert (gradient(learner.model) - wanted).norm() <= 2e-5 * wanted.norm()


def test_a_step_of_dead_groups_changes_no_weight() -> None:
    settings = config(kl_penalty=0.0)
    learner = Learner(tiny_model("llama"), settings, 1)
    before = [p.detach().clone() for p in learner.model.parameters()]
    metrics = update(settings, learner, PolicyLoss(settings), None, [(groups(dead=(0, 1, 2, 3)), 16.0)])
    assert metrics["gradient_norm"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))


def test_a_dead_group_still_feels_the_kl_term() -> None:
    settings = config(kl_penalty=0.1)
    learner = Learner(tiny_model("llama"), settings, 1)
    dead = groups(dead=(0, 1, 2, 3), beta=0.1)
    metrics = update(settings, learner, PolicyLoss(settings), shifted(tiny_model("llama")), [(dead, 16.0)])
    assert metrics["gradient_norm"] > 0
    assert metrics["policy/kl_divergence"] > 0


def test_several_updates_a_rollout_move_the_ratio_and_one_does_not() -> None:
    for options, updates in ((({}), 1), ({"num_mini_batches": 2}, 2), ({"num_iterations": 3}, 3)):
        settings = config(kl_penalty=0.0, **options)
        learner = Learner(tiny_model("llama"), settings, 1)
        update(settings, learner, PolicyLoss(settings), None, halves() if settings.num_mini_batches == 2 else whole())
        assert learner.step == updates


def test_clipping_bites_only_after_the_first_update() -> None:
    one, three = (config(kl_penalty=0.0, clip_range=1e-6, num_iterations=count) for count in (1, 3))
    for settings, bites in ((one, False), (three, True)):
        learner = Learner(tiny_model("llama"), settings, 1)
        metrics = update(settings, learner, PolicyLoss(settings), None, whole())
        assert (metrics["policy/clip_fraction"] > 0) == bites


def test_weights_of_a_sequence_sum_to_one() -> None:
    [part] = policy_batches([example for group in groups() for example in group], 10_000)
    per_sequence = torch.zeros(16).index_add(0, part.batch.rows, part.weights_M)
    assert torch.allclose(per_sequence, torch.ones(16))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_equal_rewards_have_advantage_exactly_zero(name: str) -> None:
    for reward in (0.1, 1 / 3, 1.15, 0.0):
        assert not ADVANTAGES[name](torch.full((7,), reward, dtype=torch.float64)).any()


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name not in ("best", "success_mean")])
def test_an_advantage_has_the_sign_of_reward_minus_mean(name: str) -> None:
    rewards = torch.tensor([1.15, 0.1, 0.125, 1.0, 0.0], dtype=torch.float64)
    assert torch.equal(ADVANTAGES[name](rewards).sign(), (rewards - rewards.mean()).sign())


def test_a_guard_stops_a_run_past_its_bound_and_no_other() -> None:
    rows = [{"policy/kl_divergence": 0.01 * i, "policy/entropy": 1.0} for i in range(10)]
    watch(Guards(max_kl_divergence=0.08, min_entropy=0.5), rows)
    with pytest.raises(TemperError, match=r"kl_divergence is 0\.07, above 0\.06") as stopped:
        watch(Guards(max_kl_divergence=0.06), rows)
    assert stopped.value.code == Exit.GUARD


def repeated(beta: float = 0.0) -> list[list[PolicyExample]]:
    """Groups of eight, of which five are equal; of those, one has another advantage."""
    made = []
    for group in groups(beta=beta):
        odd = replace(group[0], advantages=tuple(-value for value in group[0].advantages))
        made.append([*group, group[0], odd, group[0], group[0]])
    return made


@pytest.mark.parametrize(
    ("beta", "options"),
    [
        (0.0, {}),
        (0.1, {"kl_estimator": "k3"}),
        (0.0, {"entropy_bonus": 0.01, "micro_batch_tokens": 40}),
        (0.05, {"num_iterations": 3, "ratio": "sequence", "clip_range": 0.01}),
        (0.0, {"ratio_against": "sampler", "sampler_rejection": "geometric", "sampler_rejection_min": 0.01}),
    ],
)
def test_equal_completions_are_computed_once_and_count_as_many(
    beta: float, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(kl_penalty=beta, max_grad_norm=1e9, **options)
    found = []
    for merges in (True, False):
        tokens = []
        monkeypatch.setattr("temper.stages.grpo.may_merge", lambda config, merges=merges: merges)
        monkeypatch.setattr(
            "temper.stages.grpo.policy_batches",
            lambda examples, *others, tokens=tokens: tokens.extend(examples) or policy_batches(examples, *others),
        )
        learner = Learner(tiny_model("qwen3"), settings, settings.num_iterations)
        reference = shifted(tiny_model("qwen3")) if beta else None
        metrics = update(settings, learner, PolicyLoss(settings), reference, [(repeated(beta), 32.0)])
        found.append((len(tokens), metrics, torch.cat([p.detach().flatten() for p in learner.model.parameters()])))
    (few, metrics, moved), (many, expected, wanted) = found
    assert (few, many) == (20, 32)
    assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-6)
    start = torch.cat([p.detach().flatten() for p in tiny_model("qwen3").parameters()])
    assert (moved - wanted).norm() <= 2e-3 * (wanted - start).norm()


def test_tokens_that_are_ranked_and_adapters_that_drop_out_meet_every_copy() -> None:
    assert may_merge(config())
    assert not may_merge(config(top_entropy_share=0.2))
    assert not may_merge(config(lora={"dropout": 0.1}))
    assert may_merge(config(lora={"r": 4}))
