"""Keys that do nothing beside another are told of where they are written, with what counts instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.planning.preflight import prepare
from temper.recipe.reader import load_recipe
from temper.recipe.sources import shipped_recipes

GRPO = "{stage: grpo, model: '@m', tasks: [sums], max_steps: 10, %s}"
EVALUATE = "{stage: evaluate, models: ['@m'], tasks: [sums], %s}"
SAMPLE = "{stage: sample, model: '@m', tasks: [sums], %s}"
REWARD = "{stage: reward_model, model: '@m', data: pairs.jsonl, %s}"
DISTILL = "{stage: distill, model: '@m', teacher: '@m', mode: forward_kl, data: chats.jsonl, %s}"
PRETRAIN = "{stage: pretrain, model: '@m', data: texts.jsonl, max_steps: 1, %s}"
JUDGE = "judge: {url: 'http://localhost:1/v1', model: m}"
TWICE = "num_mini_batches: 2"
REFUSED = [
    (GRPO, f"surrogate: cispo, clip_range_high: 5, {TWICE}", ["clip_range_high"], "ratio_cap"),
    (GRPO, f"surrogate: cispo, clip_range: 0.2, clip_range_negative: 3.0, {TWICE}",
     ["clip_range", "clip_range_negative"], "ratio_cap"),
    (GRPO, "preset: cispo, num_mini_batches: 2, clip_range: 0.3", ["clip_range"], "ratio_cap"),
    (GRPO, "surrogate: reinforce, ratio: sequence, clip_range: 0.1", ["ratio", "clip_range"], "`clip` or `cispo`"),
    (GRPO, f"ratio_cap: 4.0, {TWICE}", ["ratio_cap"], "clip_range"),
    (GRPO, "reward_aggregation: decoupled, advantage: none", ["advantage"], "`sum`"),
    (GRPO, "kl_placement: reward, kl_estimator: k2", ["kl_estimator"], "k1"),
    (GRPO, "reference_update_share: 0.5", ["reference_update_share"], "reference_update_steps"),
    (GRPO, "sampler_correction_max: 3.0, sampler_correction_min: 0.1",
     ["sampler_correction_max", "sampler_correction_min"], "token_truncate"),
    (GRPO, "min_lr_ratio: 0.5", ["min_lr_ratio"], "cosine"),
    (GRPO, "sampler_rejection_max: 3.0", ["sampler_rejection_max"], "geometric"),
    (GRPO, f"sapo_temperature: 2.0, {TWICE}", ["sapo_temperature"], "sapo"),
    (GRPO, "entropy_target_step: 0.1", ["entropy_target_step"], "entropy_target"),
    (GRPO, "reward_funcs: [format], retire_above: 0.9", ["retire_above"], "accuracy"),
    (GRPO, "reward_start_steps: {format: 10}", ["reward_start_steps"], "max_steps"),
    (GRPO, JUDGE, ["judge"], "reward `judge`"),
    (GRPO, "guards: {max_steps: 5}", ["guards.max_steps"], "process"),
    (EVALUATE, JUDGE, ["judge"], "reward `judge`"),
    (EVALUATE, "temperature: 0.0, num_samples: 1, top_k: 5", ["top_k"], "likeliest"),
    (SAMPLE, "columns: {prompt: q}", ["columns"], "mix"),
    (REWARD, "replay_share: 0.2", ["replay_share"], "replay"),
    (DISTILL, "max_steps: 3, top_p: 0.9", ["max_steps", "top_p"], "mode `forward_kl`"),
    (PRETRAIN, "vocab_size: 500", ["vocab_size"], "`model` settles it"),
    (REWARD, 'kind: pointwise, step_separator: "-"', ["step_separator"], "process"),
]  # fmt: skip
WARNED = [
    (GRPO, f"ratio: sequence, {TWICE}", ["ratio"], "3e-4"),
    (GRPO, "clip_range: 0.2", ["clip_range"], "num_iterations"),
    (GRPO, "surrogate: cispo", ["surrogate"], "plain REINFORCE"),
    (GRPO, "preset: cispo, num_mini_batches: 1", ["num_mini_batches"], "plain REINFORCE"),
    (GRPO, "kl_penalty: 0, kl_estimator: k2, reference_update_steps: 5", ["kl_estimator", "reference_update_steps"],
     "kl_penalty is 0"),
    (GRPO, "kl_penalty: 0, measure_kl: true, kl_estimator: k2, offload_reference: true", ["kl_estimator"], "charged"),
    (GRPO, "measure_kl: true", ["measure_kl"], "measured"),
    (GRPO, "kl_penalty: 0, guards: {max_kl_divergence: 0.1}", ["guards.max_kl_divergence"], "measure_kl"),
    (GRPO, "temperature: 0.6, top_p: 0.95, min_p: 0.1, top_k: 7", ["top_p", "min_p", "top_k"], "evaluation"),
    (EVALUATE, "temperature: 0.0, num_samples: 4", ["num_samples"], "same completion"),
]  # fmt: skip
FINE = [
    (GRPO, f"clip_range: 0.2, clip_range_high: 0.28, {TWICE}"),
    (GRPO, "ratio: sequence, clip_range: 0.0003, clip_range_high: 0.0004, num_iterations: 2"),
    (GRPO, f"surrogate: cispo, ratio_cap: 4.0, {TWICE}"),
    (GRPO, "kl_penalty: 0, temperature: 0.7, advantage: rloo"),
    (GRPO, "preset: gspo"),
    (GRPO, "preset: cispo"),
    (GRPO, "ratio_against: sampler, clip_range: 0.3"),
    (GRPO, "lr_scheduler_type: cosine, min_lr_ratio: 0.1, kl_estimator: k3"),
    (GRPO, f"reward_funcs: [accuracy, judge], {JUDGE}"),
]


@pytest.fixture
def write(tmp_path: Path, monkeypatch):
    """Writes a recipe with one stage of interest, alone on its line 5."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.jsonl").write_text('{"question": "What is 2+3?", "answer": "5"}\n' * 40, encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text('{"text": "a b c"}\n', encoding="utf-8")

    def recipe(stage: str, keys: str) -> str:
        head = "tasks: {sums: {train: sums.jsonl, test: sums.jsonl}}\nstages:\n"
        model = "  m: {stage: import_model, model: tiny-base}\n"
        (tmp_path / "r.yaml").write_text(f"{head}{model}  rl:\n    {stage % keys}\n", encoding="utf-8")
        return str(tmp_path / "r.yaml")

    return recipe


@pytest.mark.parametrize(("stage", "keys", "idle", "instead"), REFUSED)
def test_an_idle_key_is_refused_at_its_line_with_what_counts(write, stage, keys, idle, instead):
    _, faults = load_recipe(write(stage, keys))
    assert sorted(fault.what for fault in faults) == sorted(f"`stages.rl.{key}` does nothing here" for key in idle)
    for fault in faults:
        assert "r.yaml:5:" in fault.where
        assert instead in fault.why


@pytest.mark.parametrize(("stage", "keys", "idle", "instead"), WARNED)
def test_an_option_without_effect_at_a_value_is_warned_of(write, stage, keys, idle, instead):
    recipe, faults = load_recipe(write(stage, keys))
    assert faults == []
    assert sorted(text.split("`")[1] for text in recipe.warnings) == sorted(f"stages.rl.{key}" for key in idle)
    assert all("r.yaml:5:" in text and instead in text for text in recipe.warnings)


@pytest.mark.parametrize(("stage", "keys"), FINE)
def test_what_has_an_effect_is_accepted(write, stage, keys):
    recipe, faults = load_recipe(write(stage, keys))
    assert (faults, recipe.warnings) == ([], ())


def test_warnings_reach_the_plan(write):
    _, warnings = prepare(write(GRPO, "prompts_per_step: 4, top_p: 0.9"))
    assert any("`stages.rl.top_p`" in text for text in warnings)


@pytest.mark.parametrize("name", shipped_recipes())
def test_no_shipped_recipe_has_one(name):
    recipe, faults = load_recipe(name)
    assert not [fault for fault in faults if "does nothing" in fault.what]
    assert recipe.warnings == ()
