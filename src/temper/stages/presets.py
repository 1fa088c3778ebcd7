"""The algorithms of the GRPO family as choices among the options of `grpo`, with the values their papers state.

`preset: dapo` in a stage stands for these keys; a key written beside it wins. What a paper does not state is left to
the defaults. Sizes are the papers' too: for a small model write your own `prompts_per_step`, `learning_rate`, lengths
(the range of a penalty for length goes along in the paper's proportion).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WARM_UPS = ("warmup_steps", "warmup_ratio", "warmup_rollouts")

PRESETS: dict[str, dict[str, Any]] = {
    # DeepSeekMath 2402.03300, section 4.2: one update an exploration stage
    "grpo": {
        "advantage": "std", "aggregation": "sequence_mean", "kl_estimator": "k3", "kl_penalty": 0.04,
        "learning_rate": 1e-6, "num_generations": 64, "prompts_per_step": 16, "max_completion_length": 1024,
    },
    # DeepSeek-R1, Nature 645:633, methods
    "r1": {
        "advantage": "std", "aggregation": "sequence_mean", "kl_estimator": "k3", "kl_penalty": 0.001,
        "clip_range": 10.0, "learning_rate": 3e-6, "temperature": 1.0, "num_generations": 16, "prompts_per_step": 512,
        "num_mini_batches": 16, "reference_update_steps": 400, "max_completion_length": 32768,
    },
    # Dr. GRPO 2503.20783, section 3.2 and appendix
    "dr_grpo": {
        "advantage": "none", "aggregation": "constant", "kl_penalty": 0.0, "clip_range": 0.2, "learning_rate": 1e-6,
        "temperature": 1.0, "num_generations": 8, "prompts_per_step": 128, "max_completion_length": 3000,
    },
    # DAPO 2503.14476, section 4.1
    "dapo": {
        "advantage": "std", "aggregation": "token_mean", "kl_penalty": 0.0, "clip_range": 0.2, "clip_range_high": 0.28,
        "dynamic_sampling_tries": 10, "overlong_cache": 4096, "max_completion_length": 20480, "learning_rate": 1e-6,
        "warmup_rollouts": 20, "num_generations": 16, "prompts_per_step": 512, "num_mini_batches": 16,
    },
    # GSPO 2507.18071, section 5.1
    "gspo": {
        "advantage": "std", "aggregation": "sequence_mean", "ratio": "sequence", "clip_range": 3e-4,
        "clip_range_high": 4e-4, "kl_penalty": 0.0, "num_mini_batches": 4,
    },
    # LUSPO 2602.05261, section 5.1: GSPO, each completion's loss times its length
    "luspo": {
        "advantage": "std", "aggregation": "sequence_sum", "ratio": "sequence", "clip_range": 2e-3,
        "clip_range_high": 2.5e-3, "kl_penalty": 0.0, "num_mini_batches": 4,
    },
    # SAPO 2511.20347, sections 3 and 5.1: a smooth gate in place of the clip
    "sapo": {
        "surrogate": "sapo", "advantage": "std", "aggregation": "sequence_mean", "sapo_temperature": 1.0,
        "sapo_temperature_negative": 1.05, "kl_penalty": 0.0, "num_mini_batches": 4,
    },
    # MiniMax-M1 2506.13585, sections 3.1 and 3.2; dynamic sampling and the penalty for length are DAPO's
    "cispo": {
        "surrogate": "cispo", "advantage": "std", "aggregation": "token_mean", "ratio_cap": 5.0, "kl_penalty": 0.0,
        "num_mini_batches": 16, "dynamic_sampling_tries": 10, "overlong_cache": 4096, "max_completion_length": 20480,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-15, "float32_head": True,
    },
    # RLOO 2402.14740, section 3 and appendix C
    "rloo": {
        "surrogate": "reinforce", "advantage": "rloo", "aggregation": "sequence_sum", "kl_placement": "reward",
        "kl_penalty": 0.03, "num_generations": 4, "prompts_per_step": 128, "num_mini_batches": 2,
        "learning_rate": 1e-6, "warmup_ratio": 0.03,
    },
    # REINFORCE++ 2501.03262, section 3.1: k1 in the reward of every token, mean and std of the whole batch
    "reinforce_pp": {
        "advantage": "batch_whitened", "aggregation": "token_mean", "kl_placement": "token_reward", "kl_penalty": 0.01,
        "clip_range": 0.2, "num_generations": 1, "learning_rate": 5e-7,
    },
    # REINFORCE++-baseline, section 3.2: the group's mean, then the std of the whole batch; k2 in the loss
    "reinforce_pp_baseline": {
        "advantage": "batch_centred", "aggregation": "token_mean", "kl_estimator": "k2", "kl_penalty": 0.001,
        "clip_range": 0.2, "learning_rate": 5e-7,
    },
    # ScaleRL 2510.13786, sections 3 and 4, appendix A.3
    "scalerl": {
        "surrogate": "cispo", "ratio_cap": 5.0, "ratio_against": "sampler", "advantage": "batch_centred",
        "aggregation": "prompt_mean", "drop_dead_groups": True, "retire_above": 0.9, "kl_penalty": 0.0,
        "num_generations": 16, "prompts_per_step": 48, "learning_rate": 5e-7, "warmup_steps": 100, "weight_decay": 0.01,
        "adam_epsilon": 1e-15, "float32_head": True, "max_completion_length": 14336,
    },
    # IcePop 2510.18855, section 3: GRPO whose tokens train only where trainer and sampler agree within a band
    "icepop": {
        "advantage": "std", "aggregation": "sequence_mean", "kl_penalty": 0.0, "sampler_correction": "token_mask",
        "sampler_correction_min": 0.5, "sampler_correction_max": 5.0,
    },
    # DeepSeek-V3.2 2512.02556, section 3.1: no std, unbiased KL, off-policy sequences masked (threshold not stated)
    "v32": {
        "advantage": "none", "aggregation": "sequence_mean", "kl_estimator": "k3_corrected", "kl_penalty": 0.001,
        "off_policy_threshold": 0.5,
    },
    # RAFT 2304.06767 and 2504.11343: log-likelihood of a group's best completions, nothing of the others
    "raft": {
        "surrogate": "reinforce", "advantage": "best", "aggregation": "sequence_mean", "kl_penalty": 0.0,
    },
}  # fmt: skip


def preset_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the preset named in a stage's values stands for; {} without one. A warm-up written in whatever unit
    takes the place of the preset's.

    >>> [preset_values({"preset": "dapo", **own})["overlong_cache"] for own in ({}, {"max_completion_length": 500})]
    [4096, 100]
    >>> "warmup_rollouts" in preset_values({"preset": "dapo", "warmup_steps": 5})
    False
    """
    name, limit = values.get("preset"), values.get("max_completion_length")
    found = dict(PRESETS.get(name, {})) if isinstance(name, str) else {}
    if "overlong_cache" in found and type(limit) is int and limit > 0:
        found["overlong_cache"] = limit * found["overlong_cache"] // found["max_completion_length"]
    if any(key in values for key in WARM_UPS):
        found = {key: value for key, value in found.items() if key not in WARM_UPS}
    return found
