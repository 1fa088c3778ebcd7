"""The words a config is written in: the nearest right one for a wrong one, and what other tools call ours."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

# What a key is called elsewhere (TRL, Open-R1, verl, tutorials) -> here. Suggested only where the key exists.
ALIASES = {
    "actor_learning_rate": "learning_rate",
    "actor_lr": "learning_rate",
    "algorithm": "stage",
    "base_model": "model",
    "batch": "batch_size",
    "beta": "kl_penalty",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "checkpoint_steps": "save_steps",
    "clip_eps": "clip_range",
    "clip_epsilon": "clip_range",
    "clip_grad": "max_grad_norm",
    "clip_ratio": "clip_range",
    "clip_ratio_high": "clip_range_high",
    "clip_ratio_low": "clip_range",
    "cliprange": "clip_range",
    "cliprange_value": "value_clip_range",
    "critic.optim.lr": "value_learning_rate",
    "critic_learning_rate": "value_learning_rate",
    "critic_lr": "value_learning_rate",
    "critic_warmup": "value_warmup_steps",
    "dataset": "data",
    "dataset_name": "data",
    "entropy_coef": "entropy_bonus",
    "entropy_coeff": "entropy_bonus",
    "epochs": "num_train_epochs",
    "eps_clip": "clip_range",
    "eps_clip_high": "clip_range_high",
    "epsilon": "clip_range",
    "epsilon_high": "clip_range_high",
    "eval_file": "test",
    "eval_tasks": "tasks",
    "generate_max_len": "max_completion_length",
    "grad_clip": "max_grad_norm",
    "gradient_clipping": "max_grad_norm",
    "group_size": "num_generations",
    "init_kl_coef": "kl_penalty",
    "k": "num_samples",
    "kind": "stage",
    "kl_beta": "kl_penalty",
    "kl_coef": "kl_penalty",
    "kl_coeff": "kl_penalty",
    "kl_coefficient": "kl_penalty",
    "kl_loss_coef": "kl_penalty",
    "l2": "weight_decay",
    "lam": "gae_lambda",
    "lambd": "gae_lambda",
    "lr": "learning_rate",
    "max_new_tokens": "max_completion_length",
    "max_response_length": "max_completion_length",
    "max_tokens": "max_completion_length",
    "model_name": "model",
    "model_name_or_path": "model",
    "model_path": "model",
    "n": "num_generations",
    "n_epochs": "num_train_epochs",
    "n_samples": "num_generations",
    "n_samples_per_prompt": "num_generations",
    "num_episodes": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "num_ppo_epochs": "num_iterations",
    "num_samples": "num_generations",
    "num_steps": "max_steps",
    "num_train_steps": "max_steps",
    "off_policy_mask_threshold": "off_policy_threshold",
    "output_dir": "--out",
    "per_device_train_batch_size": "batch_size",
    "ppo_epochs": "num_iterations",
    "pretrain": "model",
    "ref_model_sync_steps": "reference_update_steps",
    "reward_fn": "reward_funcs",
    "reward_functions": "reward_funcs",
    "rewards": "reward_funcs",
    "rollout_batch_size": "prompts_per_step",
    "rollout_n": "num_generations",
    "save_interval": "save_steps",
    "steps": "max_steps",
    "system": "system_prompt",
    "scheduler": "lr_scheduler_type",
    "temp": "temperature",
    "test_file": "test",
    "total_epochs": "num_train_epochs",
    "total_steps": "max_steps",
    "total_training_steps": "max_steps",
    "lr_scheduler": "lr_scheduler_type",
    "train_batch_size": "batch_size",
    "train_file": "train",
    "type": "stage",
    "value_clip": "value_clip_range",
    "vf_coef": "value_coefficient",
    "warmup": "warmup_steps",
    "weights": "reward_weights",
}

# Keys of two kinds of stages that say the same: where one is not known, the other may be.
SIBLINGS = {"num_generations": "num_samples", "num_samples": "num_generations"}


def renamed(name: str, fields: Collection[str]) -> str:
    """What a key of another tool, or of another kind of stage, is called here, among `fields` if there; "" if it has no
    other name. verl's have their groups before them.

    >>> renamed("n_samples_per_prompt", ["num_samples"]), renamed("actor_rollout_ref.actor.optim.lr", ["learning_rate"])
    ('num_samples', 'learning_rate')
    """
    path = name.split(".")
    spelled = [".".join(path[start:]) for start in range(len(path))]
    ours = next((ALIASES[text] for text in spelled if text in ALIASES), name if name in SIBLINGS else "")
    sibling = SIBLINGS.get(ours, "")
    return sibling if sibling in fields and ours not in fields else "" if ours == name else ours


NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_NAME = re.compile(NAME_PATTERN)
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` was probably meant to be.

    >>> nearest("learning_rte", ["learning_rate", "max_steps"]), nearest("zzz", ["seed"])
    ('learning_rate', None)
    >>> nearest("max_kl", ["max_kl_divergence", "max_steps"])
    'max_kl_divergence'
    """
    known = {candidate.casefold(): candidate for candidate in candidates}
    longer = [name for name in known if len(word) > 3 and name.startswith(word.casefold())]
    if len(longer) == 1:
        return known[longer[0]]
    found = difflib.get_close_matches(word[:200].casefold(), known, n=1, cutoff=0.6)
    return known[found[0]] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    found = nearest(word, candidates)
    return f"did you mean `{found}`?" if found else ""


def name_problem(name: str) -> str | None:
    """Why `name` cannot name a run, a stage or a task; None if it can. Names become names of folders.

    >>> name_problem("final_rl"), name_problem("CON")
    (None, 'it is the name of a device on some systems')
    """
    if not _NAME.fullmatch(name):
        if len(name) > 64:
            return f"it has {len(name)} characters, at most 64 are allowed"
        return f"allowed is {NAME_PATTERN}"
    if name.casefold() in _DEVICES:
        return "it is the name of a device on some systems"
    return None


def folder_name(text: str) -> str:
    """A name made of a file's stem.

    >>> folder_name("qwen2.5 0.5b"), folder_name("con"), folder_name("…")
    ('qwen2-5-0-5b', 'recipe-con', 'recipe')
    """
    made = re.sub("[^A-Za-z0-9_-]+", "-", text)[:56].strip("-_")
    return made if made and name_problem(made) is None else f"recipe-{made}".rstrip("-")
