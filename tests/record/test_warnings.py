"""Each pitfall is found with the run's numbers, and a healthy run hears nothing."""

from __future__ import annotations

import re

import pytest

from temper.record.warnings import find, held_out_fell

HEALTHY_CONFIG = {
    "num_generations": 16,
    "learning_rate": 3e-6,
    "kl_penalty": 0.001,
    "reward_funcs": ["accuracy", "format"],
    "reward_weights": [1.0, 0.1],
    "max_completion_length": 96,
    "num_mini_batches": 2,
    "num_iterations": 1,
}


def healthy(count: int = 40) -> list[dict]:
    return [
        {
            "step": step,
            "reward/accuracy": 0.4 + 0.4 * step / count,
            "reward/format": 0.9,
            "reward/total": 0.5 + 0.4 * step / count,
            "policy/kl_divergence": 0.02,
            "policy/clip_fraction": 0.01,
            "completion/truncated": 0.02,
            "groups/dead": 0.3,
            "loss": 1e-4,
        }
        for step in range(1, count + 1)
    ]


def changed(**metrics) -> list[dict]:
    names = {key.replace("__", "/"): value for key, value in metrics.items()}
    return [row | names for row in healthy()]


CASES = [
    ("few_generations", {"num_generations": 2}, healthy(), ["2", "0.80", "68%"]),
    ("learning_rate_high", {"learning_rate": 1e-3}, healthy(), ["0.001"]),
    ("learning_rate_high", {"learning_rate": 1e-4}, changed(policy__parameters=1.5e9), ["1.5 billion"]),
    ("learning_rate_high", {"learning_rate": 1e-3, "lora": {"r": 8}}, changed(policy__parameters=7e9),
     ["adapters", "7 billion"]),
    ("loss_is_zero", {"num_mini_batches": 1}, healthy(), ["1.0e-04", "by construction"]),
    ("clipped", {}, changed(policy__clip_fraction=0.31), ["0.31"]),
    ("kl_zero", {"kl_penalty": 0}, changed(policy__kl_divergence=0.12), ["0.120"]),
    ("kl_zero", {"kl_penalty": 0.0}, changed(policy__kl_divergence=None), ["40 steps"]),
    ("kl_high", {}, changed(policy__kl_divergence=0.083), ["0.083", "0.05"]),
    ("format_weight", {"reward_weights": [0.2, 1.0]}, healthy(), ["1", "0.2"]),
    ("format_weight", {"reward_weights": [1.0, 1.0]}, changed(reward__accuracy=0.1), ["0.90", "0.10"]),
    ("dead_groups", {}, changed(groups__dead=0.7, reward__accuracy=0.05), ["70%", "0.05"]),
    ("dead_groups", {}, changed(groups__dead=0.9, reward__accuracy=0.97), ["90%", "0.97"]),
    ("truncation", {}, changed(completion__truncated=0.25), ["25%", "96"]),
    ("hard_coding", {}, changed(code__hard_coded=0.3, code__shown_only=0.45), ["30%", "45%"]),
]


@pytest.mark.parametrize(("key", "config", "rows", "numbers"), CASES)
def test_a_pitfall_is_found_with_its_numbers(key, config, rows, numbers):
    found = {finding.key: finding for finding in find("grpo", HEALTHY_CONFIG | config, rows)}
    assert key in found
    for number in numbers:
        assert number in found[key].text


def test_a_healthy_run_hears_nothing_at_any_step():
    rows = healthy()
    assert [find("grpo", HEALTHY_CONFIG, rows[:step]) for step in range(len(rows) + 1)] == [[]] * (len(rows) + 1)


def test_a_learning_rate_that_a_model_of_its_size_bears_is_fine():
    for parameters, rate, adapters in ((1e6, 7e-4, None), (1.5e9, 3e-6, None), (7e9, 5e-5, {"r": 8})):
        rows = changed(policy__parameters=parameters)
        assert find("grpo", HEALTHY_CONFIG | {"learning_rate": rate, "lora": adapters}, rows) == []


def test_where_nothing_or_everything_is_right_larger_groups_would_not_help():
    for share in (0.0, 1.0):
        found = find("grpo", HEALTHY_CONFIG | {"num_generations": 2}, changed(reward__accuracy=share)[:1])
        assert "few_generations" not in {finding.key for finding in found}


def test_a_sequence_ratio_is_meant_to_clip():
    rows = changed(policy__clip_fraction=0.4)
    assert find("grpo", HEALTHY_CONFIG | {"ratio": "sequence", "clip_range": 3e-4}, rows) == []


def test_a_collapse_is_found_where_the_reward_falls_and_not_where_it_is_noisy():
    fallen = healthy(30) + [row | {"step": 30 + row["step"], "reward/total": 0.2} for row in healthy(8)]
    texts = [finding.text for finding in find("grpo", HEALTHY_CONFIG, fallen) if finding.key == "collapse"]
    assert texts
    assert re.search(r"from 0\.8\d .* to 0\.20 \(step 38\)", texts[0])
    noisy = [row | {"reward/total": 0.6 + 0.1 * (-1) ** row["step"]} for row in healthy()]
    assert "collapse" not in [finding.key for finding in find("grpo", HEALTHY_CONFIG, noisy)]


def test_reward_that_rises_while_accuracy_falls_is_found():
    rows = [row | {"reward/accuracy": 0.8 - 0.01 * row["step"]} for row in healthy()]
    assert "reward_without_accuracy" in [finding.key for finding in find("grpo", HEALTHY_CONFIG, rows)]


def test_steps_that_multiply_without_more_right_answers_are_found():
    grown = [row | {"steps/count": 4 + 0.2 * row["step"], "reward/accuracy": 0.5} for row in healthy()]
    [finding] = [finding for finding in find("grpo", HEALTHY_CONFIG, grown) if finding.key == "steps_grow"]
    assert "from 4.6 to 11.6 (step 40)" in finding.text
    better = [row | {"steps/count": 4 + 0.2 * row["step"]} for row in healthy()]  # longer, and more often right
    steady = [row | {"steps/count": 4 + 0.02 * row["step"], "reward/accuracy": 0.5} for row in healthy()]
    for rows in (better, steady):
        assert "steps_grow" not in [finding.key for finding in find("grpo", HEALTHY_CONFIG, rows)]


def test_where_steps_pay_the_weight_of_accuracy_and_the_loss_say_nothing():
    config = HEALTHY_CONFIG | {"reward_weights": [0.0, 0.1], "num_mini_batches": 1}
    assert {finding.key for finding in find("grpo", config, healthy())} == {"format_weight", "loss_is_zero"}
    assert find("grpo", config | {"supervision": "process"}, healthy()) == []


def test_held_out_accuracy_that_falls_while_the_reward_rises_is_found():
    assert held_out_fell(healthy(), 0.7, 0.5) is not None
    assert held_out_fell(healthy(), 0.5, 0.7) is None
    assert held_out_fell(healthy()[::-1], 0.7, 0.5) is None  # the reward fell too: nothing is being gamed
    assert held_out_fell([], None, None) is None


def test_stages_without_rl_and_empty_configs_are_silent():
    assert find("sft", HEALTHY_CONFIG | {"learning_rate": 0.5}, healthy()) == []
    assert find("grpo", {}, [{"step": 1}]) == []


def test_ppo_needs_no_group_and_hears_nothing_of_small_ones():
    rows = [{"step": step, "reward/accuracy": 0.5, "reward/total": 0.5} for step in range(1, 12)]
    config = {"num_generations": 1, "num_mini_batches": 1, "num_iterations": 1}
    assert {"few_generations", "loss_is_zero"} <= {finding.key for finding in find("grpo", config, rows)}
    assert find("ppo", config, rows) == []
    drifting = [row | {"policy/kl_divergence": 0.2} for row in rows]
    assert [finding.key for finding in find("ppo", config | {"kl_penalty": 0.01}, drifting)] == ["kl_high"]
