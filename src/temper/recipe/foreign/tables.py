"""What each tool calls what, and what it does where a config says nothing.

A target is a key of the trained stage, or `@name`: something that convert.py works out of several keys.
"""

from __future__ import annotations

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
    "lora_target_modules": "@lora.target_modules",
}  # fmt: skip
VERL = {
    "data.train_files": "@data", "data.val_files": "@test", "data.prompt_key": "@prompt_column",
    "data.train_batch_size": "@prompts", "data.max_response_length": "max_completion_length", "data.seed": "@seed",
    "data.micro_batch_size_per_gpu": "@drop", "model.partial_pretrain": "@model", "optim.lr": "learning_rate",
    "data.response_key": "@answer_column", "optim.weight_decay": "weight_decay", "optim.clip_grad": "max_grad_norm",
    "actor_rollout_ref.model.path": "@model", "actor_rollout_ref.model.lora_rank": "@lora.r",
    "actor_rollout_ref.model.lora_alpha": "@lora.alpha", "actor_rollout_ref.model.target_modules":
    "@lora.target_modules",
    "actor_rollout_ref.model.enable_gradient_checkpointing": "gradient_checkpointing",
    "actor_rollout_ref.actor.optim.lr": "learning_rate", "actor_rollout_ref.actor.optim.weight_decay": "weight_decay",
    "actor_rollout_ref.actor.optim.lr_warmup_steps": "@warmup_steps",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": "@warmup_ratio",
    "actor_rollout_ref.actor.optim.warmup_style": "@scheduler", "actor_rollout_ref.actor.grad_clip": "max_grad_norm",
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
    "freezing_actor_steps": "@value_warmup_steps", "eval_dataset": "@test",
}  # fmt: skip
KEYS: dict[str, dict[str, str]] = {"trl": TRL, "verl": VERL, "openrlhf": OPENRLHF}

# What a tool does where its config is silent and this one would do otherwise
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("trl", "grpo"): {
        "learning_rate": 1e-6, "kl_penalty": 0.0, "max_completion_length": 256, "lr_scheduler_type": "linear",
        "min_lr_ratio": 0.0, "adam_beta2": 0.999, "num_generations": 8,
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
        "num_generations": 2, "lr_scheduler_type": "cosine",
    },
    ("openrlhf", "ppo"): {
        "learning_rate": 1e-6, "kl_penalty": 0.01, "max_completion_length": 1024, "prompts_per_step": 1024,
        "num_iterations": 1, "lr_scheduler_type": "cosine",
    },
    ("openrlhf", "sft"): {
        "learning_rate": 5e-6, "lr_scheduler_type": "cosine", "batch_size": 128, "num_train_epochs": 2,
    },
}  # fmt: skip

LOSSES = {
    "grpo": "sequence_mean", "dr_grpo": "constant", "dapo": "token_mean", "bnpo": "token_mean",
    "token-mean": "token_mean", "seq-mean-token-mean": "sequence_mean", "seq-mean-token-sum-norm": "constant",
}  # fmt: skip
ESTIMATORS = {
    "grpo": "std", "group_norm": "std", "dr_grpo": "none", "rloo": "rloo", "reinforce_plus_plus": "batch_centred",
    "reinforce": "batch_centred", "reinforce_baseline": "batch", "reinforce_plus_plus_baseline": "batch",
    "grpo_passk": "std",
}  # fmt: skip
