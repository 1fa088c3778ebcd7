"""Presets have the values of their papers, all of them, as docs/presets.md lists them with the papers' words; what they
are made of is what the papers write down."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import tiny_model

from temper.algorithms.entropy import uncertain
from temper.data.batching import make_batch
from temper.stages.credit import advantages_of, outcome_advantages
from temper.stages.draws import Retired, draw_prompts, fresh_prompts
from temper.stages.grpo import Config, mini_batches, update
from temper.stages.presets import PRESETS
from temper.train.forward import plan_batch, score_targets, take_model_apart
from temper.train.learner import Learner, learning_rate
from temper.train.policy import PolicyLoss
from temper.types import Completion, Example, Group, PolicyExample, Prompt, Reply, Rollout

PAGE = Path(__file__).parents[2] / "docs/presets.md"


def grpo(**options: Any) -> Config:
    return Config(model="m", tasks=["t"], max_steps=1000, **options)


# -- values ------------------------------------------------------------------------------------------------------------


def listed() -> dict[str, dict[str, tuple[Any, str]]]:
    """Of the page: preset -> key -> (value, what the paper says of it)."""
    found = {}
    for name, section in re.findall(r"^## `(\w+)`.*?\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S):
        rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (.+) \|$", section, re.M)
        assert len(rows) == len({key for key, *_ in rows}), name
        found[name] = {key: (yaml.safe_load(value), words.strip()) for key, value, words in rows}
    return found


def test_the_page_lists_every_value_of_every_preset_and_no_other() -> None:
    written = {name: {key: value for key, (value, _) in rows.items()} for name, rows in listed().items()}
    assert written == PRESETS


def test_every_value_has_the_words_it_comes_from() -> None:
    silent = [(name, key) for name, rows in listed().items() for key, (_, words) in rows.items() if len(words) < 8]
    assert silent == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_config_with_its_values_and_a_written_key_wins(name: str) -> None:
    config = grpo(preset=name)
    assert {key: getattr(config, key) for key in PRESETS[name]} == PRESETS[name]
    assert grpo(preset=name, learning_rate=0.5).learning_rate == 0.5


def test_sizes_in_the_units_of_the_papers() -> None:
    r1, dapo, rloo = grpo(preset="r1"), grpo(preset="dapo"), grpo(preset="rloo")
    assert r1.prompts_per_step * r1.num_generations == 8192
    assert r1.prompts_per_step * r1.num_generations / r1.num_mini_batches == 512
    assert dapo.prompts_per_step * dapo.num_generations / dapo.num_mini_batches == 512
    assert rloo.prompts_per_step * rloo.num_generations == 512
    assert dapo.max_completion_length == 16384 + 4096
    assert grpo(preset="dapo", max_completion_length=500).overlong_cache == 100  # the last fifth, as in the paper
    assert grpo(preset="dapo", max_completion_length=500, overlong_cache=7).overlong_cache == 7


def warm_up(config: Config, total: int) -> int:
    """Updates before the first at the full rate."""
    return next(step for step in range(total) if learning_rate(config, step, total) == config.learning_rate) + 1


@pytest.mark.parametrize(
    ("written", "total", "updates"),
    [
        ({"preset": "dapo"}, 5000, 320),  # 20 rollouts of 16 updates
        ({"preset": "dapo", "num_mini_batches": 4, "num_iterations": 2}, 5000, 160),
        ({"preset": "dapo", "warmup_steps": 7}, 5000, 7),
        ({"preset": "dapo", "warmup_ratio": 0.1}, 5000, 500),
        ({"preset": "rloo"}, 1000, 30),
        ({"preset": "rloo", "warmup_rollouts": 3}, 1000, 6),
        ({"preset": "scalerl"}, 5000, 100),
        ({"warmup_ratio": 0.0101}, 1000, 11),
    ],
)
def test_a_warm_up_is_counted_in_its_own_unit(written: dict[str, Any], total: int, updates: int) -> None:
    assert warm_up(grpo(**written), total) == updates


@pytest.mark.parametrize("written", [{"warmup_ratio": 0.1}, {"warmup_rollouts": 2}])
def test_two_warm_ups_are_refused(written: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="warmup"):
        grpo(warmup_steps=3, **written)


def test_a_resolved_config_reads_the_same_again() -> None:
    for name in PRESETS:
        config = grpo(preset=name)
        assert Config(**config.model_dump(mode="json")) == config


# -- what they are made of ---------------------------------------------------------------------------------------------


def group_of(number: int, rewards: list[float], lengths: list[int], logprob: float = -1.0) -> Group:
    prompt = Prompt(f"t:{number}", "t", (), "1")
    reply = Reply("", None, None, False)
    return Group(
        prompt,
        (7, 8, 9),
        tuple(
            Rollout(prompt, Completion((5,) * n, (logprob,) * n, "stop"), reply, {"accuracy": r}, r)
            for r, n in zip(rewards, lengths, strict=True)
        ),
    )


def test_the_batch_of_scalerl_is_the_papers() -> None:
    """Σ over living prompts of the mean over their tokens, by the number of living prompts; the std is of r − mean."""
    rewards = [[1.0, 0.0, 0.0, 1.0], [1.0] * 4, [0.0, 0.0, 0.0, 1.0], [0.0] * 4]
    lengths = [[3, 5, 2, 4], [6, 1, 1, 2], [2, 2, 7, 1], [4, 4, 4, 4]]
    config = grpo(preset="scalerl", prompts_per_step=4, num_generations=4)
    groups = [group_of(i, r, n) for i, (r, n) in enumerate(zip(rewards, lengths, strict=True))]
    advantages = advantages_of(config, groups, [], ())
    [(examples, divisor)] = mini_batches(config, groups, advantages, ())
    centred = [[r - sum(of_group) / 4 for r in of_group] for of_group in rewards]
    flat = [value for of_group in centred for value in of_group]
    std = math.sqrt(sum(value**2 for value in flat) / 15)
    wanted = [[centred[i][j] / std / sum(lengths[i]) / 2 for j in range(4)] for i in (0, 2)]
    found = [[e.advantages[0] * e.weight / divisor for e in of_group] for of_group in examples]
    assert torch.allclose(torch.tensor(found), torch.tensor(wanted), rtol=1e-3)
    kept = config.model_copy(update={"drop_dead_groups": False})
    [(everything, whole)] = mini_batches(kept, groups, advantages, ())
    assert (len(everything), whole, divisor) == (4, 4.0, 2.0)


def test_rewards_of_tokens_are_charged_for_what_follows_and_whitened_over_the_step() -> None:
    config = grpo(preset="reinforce_pp", prompts_per_step=3, kl_penalty=0.5)
    groups = [group_of(i, [r], [n]) for i, (r, n) in enumerate([(1.0, 2), (0.0, 3), (1.0, 1)])]
    anchors = [[torch.tensor([-1.5, -2.0])], [torch.tensor([-1.0, -0.5, -3.0])], [torch.tensor([-1.0])]]
    returns = [1 - 0.5 * 1.5, 1 - 0.5 * 1.0, -0.5 * 1.5, -0.5 * 1.5, -0.5 * 2.0, 1.0]  # the sampler said −1 everywhere
    mean = sum(returns) / 6
    std = math.sqrt(sum((value - mean) ** 2 for value in returns) / 5)
    found = [value for group in advantages_of(config, groups, [], anchors) for values in group for value in values]
    assert found == pytest.approx([(value - mean) / (std + 1e-4) for value in returns])


def test_without_a_charge_the_prompts_of_a_step_are_compared_with_each_other() -> None:
    config = grpo(advantage="batch_whitened", num_generations=1, kl_penalty=0.0)
    groups = [group_of(i, [r], [2]) for i, r in enumerate([1.0, 0.0, 0.0])]
    advantages = outcome_advantages(config, torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64), groups)
    assert [group[0][0] for group in advantages] == pytest.approx([1.1545, -0.5772, -0.5772], abs=1e-3)
    with pytest.raises(ValueError, match="one alone has no other"):
        grpo(num_generations=1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.99, 1.0])
def test_the_most_uncertain_tokens_are_those_above_the_quantile(share: float) -> None:
    torch.manual_seed(0)
    for size in (1, 2, 7, 50):
        values = torch.rand(size)
        assert torch.equal(uncertain(values, share).bool(), values >= torch.quantile(values, 1 - share) - 1e-6)
    assert uncertain(torch.empty(0), share).shape == (0,)


def rows(reward: float = 1.0) -> list[list[PolicyExample]]:
    """Two groups of two completions that differ."""
    return [
        [
            PolicyExample(
                (start, 6, 7, 8, start + 9, 11 + i),
                (False, False, True, True, True, True),
                (reward if i else -reward,) * 4,
                (-4.0,) * 4,
                weight=0.25,
            )
            for i in range(2)
        ]
        for start in (9, 20)
    ]


def test_a_step_without_signal_moves_nothing_when_dead_groups_are_dropped() -> None:
    config = grpo(drop_dead_groups=True, kl_penalty=0.0, num_generations=2, prompts_per_step=2)
    groups = [group_of(i, [1.0, 1.0], [2, 2]) for i in range(2)]
    parts = mini_batches(config, groups, advantages_of(config, groups, [], ()), ())
    learner = Learner(tiny_model("llama"), config, 1)
    before = [p.detach().clone() for p in learner.model.parameters()]
    assert parts == [([], 1.0)]
    assert update(config, learner, PolicyLoss(config), None, parts)["gradient_norm"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))


def test_tokens_below_the_share_train_nothing_and_no_cut_of_the_step_matters() -> None:
    found = []
    for budget in (12, 1000):
        config = grpo(top_entropy_share=0.3, kl_penalty=0.0, micro_batch_tokens=budget, max_grad_norm=1e9)
        learner = Learner(tiny_model("llama"), config, 1)
        update(config, learner, PolicyLoss(config), None, [(rows(), 4.0)])
        found.append(torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None]))
    assert torch.allclose(found[0], found[1], atol=1e-7)
    assert found[0].norm() > 0


def test_the_coefficient_of_the_entropy_follows_its_target_through_a_checkpoint() -> None:
    from temper.stages.grpo import entropy_control

    config = grpo(entropy_target=100.0, entropy_bonus=0.02, entropy_target_step=0.01, kl_penalty=0.0, num_iterations=2)
    control = entropy_control(config)
    assert control is not None
    learner = Learner(tiny_model("llama"), config, 4)
    metrics = update(config, learner, PolicyLoss(config), None, [(rows(0.0), 4.0)], control)
    # the first update knows no entropy yet, the second has seen one below the target; groups without signal take part
    assert metrics["policy/entropy_bonus"] == pytest.approx((0.0 + 0.03) / 2)
    again = entropy_control(config)
    again.load_state_dict(control.state_dict())
    assert again.bonus() == control.bonus() == pytest.approx(0.04)
    above = entropy_control(config.model_copy(update={"entropy_target": 0.01}))
    above.see(metrics["policy/entropy"])
    assert (above.bonus(), float(above.coefficient)) == (0.0, pytest.approx(0.01))


def test_the_ratio_against_the_sampler_is_not_one_in_the_first_update() -> None:
    found = {}
    for against in ("trainer", "sampler"):
        config = grpo(ratio_against=against, surrogate="cispo", ratio_cap=0.5, kl_penalty=0.0, max_grad_norm=1e9)
        learner = Learner(tiny_model("llama"), config, 1)
        found[against] = update(config, learner, PolicyLoss(config), None, [(rows(), 4.0)])
    assert found["trainer"]["policy/clip_fraction"] == 1.0  # ρ = 1 > 0.5
    assert found["sampler"]["policy/clip_fraction"] < 1.0  # log ρ = log π + 4, some of it below log 0.5
    assert found["sampler"]["policy/mismatch_kl"] > 0
    with pytest.raises(ValueError, match="count it twice"):
        grpo(ratio_against="sampler", sampler_correction="token_truncate")


def test_adam_has_the_epsilon_that_is_written() -> None:
    learner = Learner(tiny_model("llama"), grpo(preset="scalerl"), 1)
    assert {group["eps"] for group in learner.optimizer.param_groups} == {1e-15}
    assert {group["weight_decay"] for group in learner.optimizer.param_groups} == {0.01, 0.0}


def test_a_wide_head_computes_narrow_weights_in_float32_where_it_draws_and_where_it_scores() -> None:
    from temper.models.wide import WideLinear, widen_head

    model = tiny_model("llama").to(torch.bfloat16)
    head = model.get_output_embeddings()
    hidden = torch.randn(3, head.in_features, dtype=torch.bfloat16)
    exact = hidden.double() @ head.weight.double().T
    narrow_error = (head(hidden).double() - exact).abs().max()
    assert widen_head(model)
    assert isinstance(head, WideLinear)
    assert (head(hidden).double() - exact).abs().max() < narrow_error / 100
    parts = take_model_apart(model)
    assert parts is not None
    assert parts.head.is_wide
    batch = make_batch([Example((5, 6, 7, 8, 9), (False, False, True, True, True))])
    scored = score_targets(model, batch, plan_batch(batch))
    scored.logprobs_M.sum().backward()
    assert scored.logprobs_M.dtype == torch.float32
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.bfloat16
    assert head.weight.grad.norm() > 0


def test_solved_prompts_are_drawn_no_more_while_others_are_left() -> None:
    prompts = {name: [Prompt(f"{name}:{i}", name, (), "1") for i in range(12)] for name in ("a", "b")}
    retired = Retired(prompts, 0.9)
    for i in range(9):
        retired.see(f"a:{i}", 1.0)
    retired.see("b:0", 0.89)
    assert retired.ids == {f"a:{i}" for i in range(9)}
    for step in range(8):
        drawn = fresh_prompts(prompts, 6, step, ("k",), retired.ids)
        assert [prompt.task for prompt in drawn] == ["a"] * 3 + ["b"] * 3
        assert len({prompt.id for prompt in drawn}) == 6
        assert not retired.ids & {prompt.id for prompt in drawn}
        assert drawn == fresh_prompts(prompts, 6, step, ("k",), retired.ids)
    assert fresh_prompts(prompts, 6, 3, ("k",), set()) == draw_prompts(prompts, 6, 3, ("k",))
    assert len(fresh_prompts(prompts, 6, 3, ("k",), {f"a:{i}" for i in range(12)})) == 6
    again = Retired(prompts, 0.9)
    again.load_state_dict(retired.state_dict())
    assert again.ids == retired.ids
