"""What each tool calls what, and what it does where a config says nothing.

A target is a key of the trained stage, or `@name`: something that convert.py works out of several keys.
"""

from __future__ import annotations

import re
from typing import Any

# Key -> target, for keys that mean the same thing in every tool that has them
TRL = {
    "model_name_or_path": "@model", "model_revision": "@revision", "dataset_name": "@data", "dataset_config": "@config",
    "dataset_train_split": "@split", "dataset_split": "@split", "dataset_test_split": "@test_split",
    "dataset_prompt_column": "@prompt_column", "dataset_solution_column": "@answer_column",
    "system_prompt": "@system_prompt", "chat_template": "@chat_template", "learning_rate": "learning_rate",
    "num_train_epochs": "@epochs", "max_steps": "@max_steps", "per_device_train_batch_size": "@per_device",
    "gradient_accumulation_steps": "@accumulation", "num_processes": "@devices", "num_generations": "@generations",
    "num_iterations": "num_iterations", "steps_per_generation": "@steps_per_generation",
    "generation_batch_size": "@completions", "warmup_ratio": "@warmup_ratio", "warmup_steps": "warmup_steps",
    "lr_scheduler_type": "@scheduler", "lr_scheduler_kwargs.min_lr_rate": "min_lr_ratio",
    "weight_decay": "weight_decay", "adam_beta1": "adam_beta1", "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon", "max_grad_norm": "max_grad_norm", "temperature": "temperature", "top_p": "top_p",
    "top_k": "@top_k", "cast_lm_head_to_fp32": "float32_head", "top_entropy_quantile": "top_entropy_share",
    "min_p": "min_p", "max_completion_length": "max_completion_length", "reward_funcs": "@rewards",
    "reward_weights": "@weights", "beta": "kl_penalty", "epsilon": "clip_range", "epsilon_high": "@clip_high",
    "delta": "clip_range_negative", "loss_type": "@loss_type", "scale_rewards": "@scale_rewards",
    "importance_sampling_level": "ratio", "mask_truncated_completions": "mask_truncated", "seed": "@seed",
    "ref_model_sync_steps": "@sync_steps", "ref_model_mixup_alpha": "@sync_share", "sync_ref_model": "@sync",
    "bf16": "@bf16", "fp16": "@fp16", "torch_dtype": "@dtype", "dtype": "@dtype",
    "gradient_checkpointing": "gradient_checkpointing", "torch_compile": "compile", "optim": "@optim",
    "save_steps": "@save_steps", "report_to": "@trackers", "run_name": "@name", "use_peft": "@peft",
    "lora_r": "@lora.r", "lora_alpha": "@lora.alpha", "lora_dropout": "@lora.dropout",
    "lora_target_modules": "@lora.target_modules", "dataset_mixture.datasets": "@mixture", "datasets": "@mixture",
    "sapo_temperature_pos": "sapo_temperature", "sapo_temperature_neg": "sapo_temperature_negative",
    "entropy_coef": "entropy_bonus", "off_policy_mask_threshold": "off_policy_threshold",
    "multi_objective_aggregation": "@aggregated",
    "clip_range": "clip_range", "kl_penalty": "kl_penalty",  # names of tutorials
}  # fmt: skip
VERL = {
    "data.train_files": "@data", "data.val_files": "@test", "data.prompt_key": "@prompt_column",
    "data.train_batch_size": "@prompts", "data.max_response_length": "max_completion_length", "data.seed": "@seed",
    "data.micro_batch_size_per_gpu": "@drop", "model.partial_pretrain": "@model", "optim.lr": "learning_rate",
    "data.response_key": "@answer_column", "optim.weight_decay": "weight_decay", "optim.clip_grad": "max_grad_norm",
    "optim.lr_warmup_steps": "@warmup_steps", "optim.lr_warmup_steps_ratio": "@warmup_ratio",
    "optim.lr_scheduler": "@scheduler", "optim.lr_scheduler_type": "@scheduler", "optim.warmup_style": "@scheduler",
    "optim.min_lr_ratio": "min_lr_ratio", "optim.betas": "@betas", "model.path": "@model",
    "model.lora_rank": "@lora.r", "model.lora_alpha": "@lora.alpha", "model.target_modules": "@lora.target_modules",
    "model.enable_gradient_checkpointing": "gradient_checkpointing", "trainer.seed": "@seed",
    "actor_rollout_ref.model.path": "@model", "actor_rollout_ref.model.lora_rank": "@lora.r",
    "actor_rollout_ref.model.lora_alpha": "@lora.alpha", "actor_rollout_ref.model.target_modules":
    "@lora.target_modules",
    "actor_rollout_ref.model.enable_gradient_checkpointing": "gradient_checkpointing",
    "actor_rollout_ref.actor.optim.lr": "learning_rate", "actor_rollout_ref.actor.optim.weight_decay": "weight_decay",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": "@warmup_steps",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": "@warmup_ratio",
    "actor_rollout_ref.actor.optim.warmup_style": "@scheduler", "actor_rollout_ref.actor.grad_clip": "max_grad_norm",
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "@scheduler", "actor_rollout_ref.actor.optim.betas": "@betas",
    "actor_rollout_ref.actor.optim.lr_decay_style": "@scheduler",
    "actor_rollout_ref.actor.optim.clip_grad": "max_grad_norm",
    "actor_rollout_ref.actor.policy_loss.loss_mode": "@policy_loss",
    "actor_rollout_ref.actor.policy_loss.tau_pos": "sapo_temperature",
    "actor_rollout_ref.actor.policy_loss.tau_neg": "sapo_temperature_negative",
    "actor_rollout_ref.actor.optim.min_lr_ratio": "min_lr_ratio",
    "actor_rollout_ref.actor.ppo_mini_batch_size": "@mini_prompts",
    "actor_rollout_ref.actor.ppo_epochs": "num_iterations", "actor_rollout_ref.actor.clip_ratio": "clip_range",
    "actor_rollout_ref.actor.clip_ratio_low": "clip_range", "actor_rollout_ref.actor.clip_ratio_high": "@clip_high",
    "actor_rollout_ref.actor.clip_ratio_c": "clip_range_negative",
    "actor_rollout_ref.actor.entropy_coeff": "entropy_bonus", "actor_rollout_ref.actor.use_kl_loss": "@kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef": "@kl_loss_coef", "actor_rollout_ref.actor.kl_loss_type": "@kl_type",
    "actor_rollout_ref.actor.loss_agg_mode": "@loss_type", "actor_rollout_ref.rollout.n": "@generations",
    "actor_rollout_ref.rollout.temperature": "temperature", "actor_rollout_ref.rollout.top_p": "top_p",
    "actor_rollout_ref.rollout.top_k": "@top_k", "actor_rollout_ref.rollout.response_length": "max_completion_length",
    "algorithm.adv_estimator": "@estimator", "algorithm.use_kl_in_reward": "@kl_reward",
    "algorithm.kl_ctrl.kl_coef": "@kl_reward_coef", "algorithm.norm_adv_by_std_in_grpo": "@scale_rewards",
    "algorithm.gamma": "@gamma", "algorithm.lam": "@gae_lambda", "critic.optim.lr": "@value_learning_rate",
    "trainer.critic_warmup": "@value_warmup_steps", "trainer.total_epochs": "@epochs",
    "trainer.total_training_steps": "@max_steps", "trainer.save_freq": "@save_steps", "trainer.logger": "@trackers",
    "trainer.experiment_name": "@name", "reward_model.overlong_buffer.len": "@overlong",
    "reward_model.overlong_buffer.enable": "@overlong_asked",
    "reward_model.reward_kwargs.overlong_buffer_cfg.enable": "@overlong_asked",
    "reward.reward_kwargs.overlong_buffer_cfg.enable": "@overlong_asked",
    "reward_model.reward_kwargs.overlong_buffer_cfg.len": "@overlong",
    "reward.reward_kwargs.overlong_buffer_cfg.len": "@overlong",
    "algorithm.filter_groups.enable": "@filter", "algorithm.filter_groups.max_num_gen_batches": "@filter_tries",
}  # fmt: skip
OPENRLHF = {
    "pretrain": "@model", "prompt_data": "@data", "dataset": "@data", "prompt_split": "@split", "train_split": "@split",
    "input_key": "@prompt_column", "label_key": "@answer_column", "output_key": "@reply_column",
    "rollout_batch_size": "@prompts", "n_samples_per_prompt": "@generations", "train_batch_size": "@train_batch",
    "max_epochs": "@max_epochs", "num_episodes": "@epochs", "generate_max_len": "max_completion_length",
    "max_new_tokens": "max_completion_length", "actor_learning_rate": "learning_rate", "learning_rate": "learning_rate",
    "critic_learning_rate": "@value_learning_rate", "init_kl_coef": "@init_kl", "use_kl_loss": "@kl_loss",
    "kl_estimator": "@kl_type", "advantage_estimator": "@estimator", "eps_clip": "clip_range",
    "eps_clip_low_high": "@clip_both", "dual_clip": "clip_range_negative", "lambd": "@gae_lambda", "gamma": "@gamma",
    "temperature": "temperature", "top_p": "top_p", "lr_warmup_ratio": "@warmup_ratio", "lr_scheduler": "@scheduler",
    "max_norm": "max_grad_norm", "l2": "weight_decay", "adam_betas": "@betas", "seed": "@seed",
    "gradient_checkpointing": "gradient_checkpointing", "bf16": "@bf16", "save_steps": "@save_steps",
    "use_wandb": "@wandb", "wandb_run_name": "@name", "lora_rank": "@lora.r", "lora_alpha": "@lora.alpha",
    "lora_dropout": "@lora.dropout", "target_modules": "@lora.target_modules", "entropy_loss_coef": "entropy_bonus",
    "freezing_actor_steps": "@value_warmup_steps", "eval_dataset": "@test", "max_len": "@total_length",
    "enable_dynamic_filtering": "@filter", "dynamic_filtering": "@filter", "policy_loss_type": "@policy_loss",
    "no_advantage_std_norm": "@no_std", "overlong_buffer_len": "@overlong", "param_dtype": "@dtype",
    "value_clip": "value_clip_range", "adam_eps": "adam_epsilon", "min_lr_ratio": "min_lr_ratio",
}  # fmt: skip
# Versions of OpenRLHF with keys in groups: the same things, by the names above
_GROUPED = {
    "actor.model_name_or_path": "pretrain", "model.model_name_or_path": "pretrain",
    "data.prompt_dataset": "prompt_data", "data.dataset": "dataset",
    "data.prompt_split": "prompt_split", "data.dataset_split": "train_split",
    "data.input_key": "input_key", "data.label_key": "label_key", "data.output_key": "output_key",
    "data.max_len": "max_len", "rollout.batch_size": "rollout_batch_size", "train.batch_size": "train_batch_size",
    "rollout.n_samples_per_prompt": "n_samples_per_prompt", "rollout.max_new_tokens": "max_new_tokens",
    "rollout.temperature": "temperature", "rollout.top_p": "top_p", "train.max_epochs": "max_epochs",
    "train.num_episodes": "num_episodes", "train.seed": "seed", "actor.adam.lr": "actor_learning_rate",
    "adam.lr": "learning_rate", "critic.adam.lr": "critic_learning_rate", "actor.adam.betas": "adam_betas",
    "adam.betas": "adam_betas", "actor.adam.eps": "adam_eps", "adam.eps": "adam_eps", "actor.adam.weight_decay": "l2",
    "adam.weight_decay": "l2", "actor.max_norm": "max_norm", "actor.lr_scheduler": "lr_scheduler",
    "actor.lr_warmup_ratio": "lr_warmup_ratio", "actor.min_lr_ratio": "min_lr_ratio", "actor.eps_clip": "eps_clip",
    "actor.eps_clip_low_high": "eps_clip_low_high", "actor.dual_clip": "dual_clip",
    "actor.entropy_coef": "entropy_loss_coef", "actor.policy_loss_type": "policy_loss_type",
    "actor.gradient_checkpointing_enable": "gradient_checkpointing",
    "model.gradient_checkpointing_enable": "gradient_checkpointing", "critic.value_clip": "value_clip",
    "critic.freezing_steps": "freezing_actor_steps", "algo.kl.init_coef": "init_kl_coef",
    "algo.kl.use_loss": "use_kl_loss", "algo.kl.estimator": "kl_estimator",
    "algo.advantage.estimator": "advantage_estimator", "algo.advantage.lambd": "lambd", "algo.advantage.gamma": "gamma",
    "algo.advantage.no_std_norm": "no_advantage_std_norm", "algo.dynamic_filtering_enable": "dynamic_filtering",
    "reward.overlong_buffer_len": "overlong_buffer_len", "ds.param_dtype": "param_dtype", "ds.lora.rank": "lora_rank",
    "ds.lora.alpha": "lora_alpha", "ds.lora.dropout": "lora_dropout", "ds.lora.target_modules": "target_modules",
    "ckpt.save_steps": "save_steps", "eval.dataset": "eval_dataset", "logger.wandb.key": "use_wandb",
    "logger.wandb.run_name": "wandb_run_name",
}  # fmt: skip
OPENRLHF |= {grouped: OPENRLHF[plain] for grouped, plain in _GROUPED.items()}
KEYS: dict[str, dict[str, str]] = {"trl": TRL, "verl": VERL, "openrlhf": OPENRLHF}

# What a tool does where its config is silent and this one would do otherwise
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("trl", "grpo"): {
        "learning_rate": 1e-6, "kl_penalty": 0.0, "max_completion_length": 256, "lr_scheduler_type": "linear",
        "min_lr_ratio": 0.0, "adam_beta2": 0.999, "num_generations": 8, "aggregation": "token_mean",
    },
    ("trl", "sft"): {
        "learning_rate": 2e-5, "lr_scheduler_type": "linear", "min_lr_ratio": 0.0, "adam_beta2": 0.999,
        "num_train_epochs": 3,
    },
    ("verl", "grpo"): {
        "learning_rate": 1e-6, "max_completion_length": 512, "adam_beta2": 0.999, "weight_decay": 0.01,
        "aggregation": "token_mean", "num_generations": 2, "kl_penalty": 0.0, "prompts_per_step": 1024,
    },
    ("verl", "ppo"): {
        "learning_rate": 1e-6, "max_completion_length": 512, "adam_beta2": 0.999, "weight_decay": 0.01,
        "aggregation": "token_mean", "kl_penalty": 0.0, "num_iterations": 1, "prompts_per_step": 1024,
    },
    ("verl", "sft"): {"learning_rate": 1e-5, "weight_decay": 0.01, "batch_size": 256, "num_train_epochs": 4},
    ("openrlhf", "grpo"): {
        "learning_rate": 1e-6, "kl_penalty": 0.01, "max_completion_length": 1024, "prompts_per_step": 1024,
        "num_generations": 2, "lr_scheduler_type": "cosine", "aggregation": "token_mean",
    },
    ("openrlhf", "ppo"): {
        "learning_rate": 1e-6, "kl_penalty": 0.01, "max_completion_length": 1024, "prompts_per_step": 1024,
        "num_iterations": 1, "lr_scheduler_type": "cosine", "aggregation": "token_mean",
    },
    ("openrlhf", "sft"): {
        "learning_rate": 5e-6, "lr_scheduler_type": "cosine", "batch_size": 128, "num_train_epochs": 2,
    },
}  # fmt: skip

EPOCHS = {"trl": 3, "verl": 30, "openrlhf": 1}  # of RL, likewise
LOSSES = {
    "grpo": "sequence_mean", "dr_grpo": "constant", "dapo": "token_mean", "bnpo": "token_mean",
    "token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean", "seq-mean-token-sum-norm": "constant",
}  # fmt: skip
# Losses of the policy that have a name in these tools: the keys that make them here
POLICY_LOSSES: dict[str, dict[str, Any]] = {
    "vanilla": {}, "ppo": {}, "gspo": {"ratio": "sequence"},
    "cispo": {"surrogate": "cispo", "aggregation": "token_mean"},
    "sapo": {"surrogate": "sapo", "aggregation": "sequence_mean"}, "gpg": {"surrogate": "reinforce"},
}  # fmt: skip
ESTIMATORS = {
    "grpo": "std", "group_norm": "std", "dr_grpo": "none", "rloo": "rloo", "reinforce_plus_plus": "batch_centred",
    "reinforce": "batch_centred", "reinforce_baseline": "batch", "reinforce_plus_plus_baseline": "batch",
    "grpo_passk": "std",
}  # fmt: skip

_SPREAD = "how a model is spread over devices is no part of a recipe: `temper run --ranks N` (docs/scale.md)"
# What whole groups of keys are about, where nothing is said of one key alone: a pattern, and why nothing is taken over
AREAS: tuple[tuple[str, str], ...] = (
    (r"\.val_kwargs\.|^eval[._]", "how held-out prompts are sampled: keys of a stage `evaluate`"),
    (r"log_prob|dynamic_b|max_tokens?_(len_)?per_gpu|micro_batch|chunk",
     "`micro_batch_tokens` bounds what is computed at once, and the gradient does not depend on it"),
    (r"^distillation\.", "a stage `distill` learns from a teacher"),
    (r"profil", "there is none: metrics.jsonl has the seconds of each part of a step"),
    (r"^(vllm|sglang)[._]|\.rollout\.(name|mode|engine_kwargs|layered|load|free|free_cache|ignore_eos|skip|update|checkpoint"
     r"|dtype|calculate|prompt_length|enable_|max_|quant)",
     "the sampler is temper's own and shares the trainer's weights; servers are named by `engine`"),
    (r"image|video|visual|vision|audio|multi_?modal|\bmm_|processor", "there is none: prompts and replies are text"),
    (r"multi_?turn|agent|tool_|_tool|async|partial_rollout",
     "there is none: a completion is one turn, drawn by the policy of its step or the one before (`max_staleness`)"),
    (r"moe|router|routing|expert_load|aux_loss|mtp", "there is none: a model's layers are trained as they are"),
    (r"overlong_(buffer|penalty)", "DAPO's overlong penalty is `overlong_cache`, and takes at most 1"),
    (r"filter_groups|dynamic_filtering", "groups count where some are right and some wrong: `dynamic_sampling_tries`"),
    (r"is_correction|rollout_correction|rollout_is", "`sampler_correction` and its bounds say it"),
    (r"^(reward|reward_model|custom_reward_function)\.",
     "rewards are functions, reward models among them, built-in or yours: `reward_funcs: [accuracy, my.py:brevity]`"),
    (r"^critic[._]", "value models are of a stage `ppo`: `value_model`, `value_learning_rate`, `value_clip_range`"),
    (r"override_config|override_transformer", "a model's own config.json counts"),
    (r"optim\.|muon", "the optimiser is AdamW, its keys those of this stage"),
    (r"gradient_checkpointing_", "`gradient_checkpointing` says whether; how is settled, and changes no bit"),
    (r"^(ckpt|trainer\.(resume|max_|del_|default_|esi|save|rollout_data|val))|checkpoint",
     "checkpoints are written by `save_steps` and used by themselves"),
    (r"^ds\.|^engine\b|deepspeed|megatron|fsdp|veomni|offload|parallel|nccl|hybrid_engine|balance|colocate|num_gpus"
     r"|num_nodes|nnodes|^ray|device|model_engine|shm|liger|rmpad|dist_", _SPREAD),
    (r"^(address|runtime_env|runtime_env_json|working_dir|no_wait|standalone|nproc|node_rank|master_|rdzv|main_process"
     r"|machine_rank|overlap|ntasks|nodes|container|frozen|all_packages|extra|config_name|config_path|config_file|module"
     r"|hostfile|include|mixed_precision|dynamo|use_deepspeed|config)",
     "of the launcher: `temper launch` writes files that start a run"),
    (r"^logger[._]|^trainer\.(log|test|project|experiment)|^wandb|swanlab|mlflow",
     "every run writes metrics.jsonl; `trackers` at the top names others"),
    (r"^(data|dataset)[._]", "how a file is read is found from its columns, or said by a task's keys (docs/data.md)"),
    (r"lora", "adapters are `lora: {r, alpha, dropout, target_modules}`"),
)  # fmt: skip


def area(key: str) -> str:
    """Why a key that is not known is left out, told by what it is about; "" where that cannot be told.

    >>> area("actor_rollout_ref.rollout.val_kwargs.n"), area("my_key")
    ('how held-out prompts are sampled: keys of a stage `evaluate`', '')
    """
    return next((reason for pattern, reason in AREAS if re.search(pattern, key)), "")
