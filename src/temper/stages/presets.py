"""The algorithms of the GRPO family as choices among the options of `grpo`, with the values their papers state.

`preset: dapo` in a stage stands for these keys; a key written beside it wins. What a paper does not state is left to
the defaults. Sizes are the papers' too: for a small model write your own `prompts_per_step`, `learning_rate`, lengths
(the range of a penalty for length goes along in the paper's proportion).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # DeepSeekMath 2402.03300, section 4.2: 64 outputs a question, batch 1,024, one update an exploration stage
    "grpo": {
        "advantage": "std", "aggregation": "sequence_mean", "kl_estimator": "k3", "kl_penalty": 0.04,
        "learning_rate": 1e-6, "num_generations": 64, "prompts_per_step": 16, "max_completion_length": 1024,
    },
    # DeepSeek-R1, Nature 645:633, methods: 8,192 outputs a rollout, 16 mini-batches, a new reference after 400
    "r1": {
        "advantage": "std", "aggregation": "sequence_mean", "kl_estimator": "k3", "kl_penalty": 0.001,
        "clip_range": 10.0, "learning_rate": 3e-6, "temperature": 1.0, "num_generations": 16, "prompts_per_step": 512,
        "num_mini_batches": 16, "reference_update_steps": 400, "max_completion_length": 32768,
    },
    # Dr. GRPO 2503.20783, section 3.2 and appendix: no std, no length bias, no KL term; 128 questions × 8, lr 1e-6
    "dr_grpo": {
        "advantage": "none", "aggregation": "constant", "kl_penalty": 0.0, "clip_range": 0.2, "learning_rate": 1e-6,
        "num_generations": 8, "prompts_per_step": 128, "max_completion_length": 3000,
    },
    # DAPO 2503.14476, section 4.1: 512 prompts × 16 in 16 updates; 16,384 tokens expected, 4,096 more penalised
    "dapo": {
        "advantage": "std", "aggregation": "token_mean", "kl_penalty": 0.0, "clip_range": 0.2, "clip_range_high": 0.28,
        "dynamic_sampling_tries": 10, "overlong_cache": 4096, "max_completion_length": 20480, "learning_rate": 1e-6,
        "warmup_steps": 20, "num_generations": 16, "prompts_per_step": 512, "num_mini_batches": 16,
    },
    # GSPO 2507.18071, section 5.1: clipping bounds of the sequence's ratio, four mini-batches a rollout; no KL term
    "gspo": {
        "advantage": "std", "aggregation": "sequence_mean", "ratio": "sequence", "clip_range": 3e-4,
        "clip_range_high": 4e-4, "kl_penalty": 0.0, "num_mini_batches": 4,
    },
    # MiniMax-M1 2506.13585, section 3.1: no KL term, no lower bound; the cap is not stated, ScaleRL's stands here
    "cispo": {
        "surrogate": "cispo", "advantage": "std", "aggregation": "token_mean", "ratio_cap": 5.0, "kl_penalty": 0.0,
        "adam_beta1": 0.9, "adam_beta2": 0.95,
    },
    # RLOO 2402.14740, appendix C: the whole completion is one action (summed log-probs: `constant` up to a factor),
    # its reward carries the KL
    "rloo": {
        "surrogate": "reinforce", "advantage": "rloo", "aggregation": "constant", "kl_placement": "reward",
        "kl_penalty": 0.03, "num_generations": 4, "learning_rate": 1e-6,
    },
    # REINFORCE++-baseline 2501.03262, section 3.2: group mean, then the std of the whole batch; k2 in the loss
    "reinforce_pp": {
        "advantage": "batch_centred", "aggregation": "token_mean", "kl_estimator": "k2", "kl_penalty": 0.001,
        "clip_range": 0.2,
    },
    # ScaleRL 2510.13786, section 4: CISPO, prompt-level mean, batch-level std, groups without signal replaced; 48 × 16
    "scalerl": {
        "surrogate": "cispo", "ratio_cap": 5.0, "advantage": "batch_centred", "aggregation": "prompt_mean",
        "kl_penalty": 0.0, "dynamic_sampling_tries": 10, "num_generations": 16, "prompts_per_step": 48,
        "learning_rate": 5e-7, "sampler_correction": "token_truncate",
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
    """The keys that the preset named in a stage's values stands for; {} without one.

    >>> [preset_values({"preset": "dapo", **own})["overlong_cache"] for own in ({}, {"max_completion_length": 500})]
    [4096, 100]
    """
    name, limit = values.get("preset"), values.get("max_completion_length")
    found = dict(PRESETS.get(name, {})) if isinstance(name, str) else {}
    if "overlong_cache" in found and type(limit) is int and limit > 0:
        found["overlong_cache"] = limit * found["overlong_cache"] // found["max_completion_length"]
    return found
