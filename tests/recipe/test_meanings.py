"""A key of another tool is answered by what it means here, before how it is spelled."""

from __future__ import annotations

import re

import pytest

from temper.config import TaskConfig
from temper.errors import Fault
from temper.recipe.meanings import MEANINGS
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import RecipeKeys, config_class
from temper.recipe.words import ALIASES
from temper.stages import STAGES

ASKED = {
    "dataset": "tasks: {my_task: {train:", "max_prompt_length": "none is cut", "logging_steps": "metrics.jsonl",
    "bf16": "`dtype`", "gradient_accumulation_steps": "`micro_batch_tokens`", "report_to": "`trackers",
    "push_to_hub": "temper export", "vllm_gpu_memory_utilization": "the sampler is temper's own",
    "deepspeed": "devices", "per-device-train-batch-size": "`micro_batch_tokens`",
    "actor_rollout_ref.actor.kl_loss_type": "`kl_estimator`", "epsilon_high": "clip_range_high",
}  # fmt: skip


def unknown(key: str, more: str = "") -> Fault:
    stage = f"x={{stage: grpo, model: tiny-base, tasks: [arithmetic], max_steps: 1, {more} '{key}': 1}}"
    _, faults = load_recipe("tiny", [f"stages={{{stage.replace('x=', 'x: ', 1)}}}"])
    (fault,) = [fault for fault in faults if key in fault.what]
    return fault


@pytest.mark.parametrize("key", ASKED)
def test_what_a_key_means_here_is_told(key):
    assert ASKED[key] in unknown(key).fix


def test_the_upper_bound_of_cispo_is_its_cap():
    assert "`ratio_cap`" in unknown("epsilon_high", "surrogate: cispo,").fix


def test_a_key_like_no_other_is_told_the_keys_of_a_group_not_all():
    fix = unknown("zebra").fix
    assert 5 < fix.count(",") < 30
    assert "docs/recipes.md" in fix


def test_there_are_many_and_what_they_name_in_code_exists():
    assert len(MEANINGS) > 400
    fields = {*TaskConfig.model_fields, *RecipeKeys.model_fields, *STAGES, "r", "alpha", "report"}
    for kind in STAGES:
        fields |= set(config_class(kind).model_fields)
    for key, text in MEANINGS.items():
        for table in re.findall(r"`(\w+): ", text):
            assert table in fields, (key, text)
    assert set(ALIASES.values()) <= fields | {"stage", "--out"}


@pytest.mark.parametrize("kind", ["sft", "evaluate", "sample", "ppo", "reward_model", "grpo"])
@pytest.mark.parametrize(
    "key",
    ["max_steps", "num_iterations", "reward_weights", "eos_token", "num_generations_eval", "delta", "scale_rewards",
     "actor_rollout_ref.actor.optim.lr", "rollout_n", "overlong_buffer_len", "log_completions", "n_samples_per_prompt"],
)  # fmt: skip
def test_advice_names_a_key_of_the_stage_or_says_where_it_lives(kind, key):
    fields = set(config_class(kind).model_fields)
    if key in fields:
        return
    fault = unknown_in(kind, key)
    assert "did you mean" not in fault.fix, fault
    named = re.findall(r"`(\w+)[`:]|-> (\w+)", fault.fix)
    names = {one or other for one, other in named} & {name for of in STAGES for name in config_class(of).model_fields}
    assert not names or names & fields or re.search("belongs to|a stage `|of a stage", fault.fix), fault


def unknown_in(kind: str, key: str) -> Fault:
    _, faults = load_recipe("tiny", [f"stages={{x: {{stage: {kind}, model: tiny-base, '{key}': 1}}}}"])
    return next(fault for fault in faults if key in fault.what)


def test_a_key_that_two_kinds_of_stages_call_differently_is_named_as_the_stage_has_it():
    assert "num_samples" in unknown_in("evaluate", "n_samples_per_prompt").fix
    assert "num_generations" in unknown_in("sample", "actor_rollout_ref.rollout.n").fix
