"""How a stage trains, worked out of several keys: lengths and batches, the objective, numbers and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temper.recipe.foreign.book import Book, number, numbers, whole
from temper.recipe.foreign.read import TOOLS, Setting
from temper.recipe.foreign.tables import DEFAULTS, EPOCHS, ESTIMATORS, LOSSES, POLICY_LOSSES

STEPS = 100  # of PPO where a config counts in epochs and nothing else is known


class Training(Book):
    """A config's settings as keys of the stage that trains."""

    def _lengths_and_batches(self, fields: Mapping[str, Any]) -> None:
        generations = whole(self._take("generations"))
        if self.kind == "sft":
            self._sft_batch()
        else:
            if generations is not None and (generations > 1 or self.kind == "ppo"):
                self._put("generations", "num_generations", generations)
            self._give_up("generations", "advantages compare at least two completions of a prompt")
            self._rl_batch()
        self._steps(fields)
        ratio, steps = self._take("warmup_ratio"), self.stage.get("max_steps")
        if isinstance(ratio, (int, float)) and "warmup_steps" not in self.stage:
            if steps:
                self._put("warmup_ratio", "warmup_steps", round(ratio * steps), "a number of updates, not a share")
            else:
                self._put("warmup_ratio", "warmup_ratio", ratio)
        warm = whole(self._take("warmup_steps"))
        if warm is not None and warm >= 0:
            self._put("warmup_steps", "warmup_steps", warm)
        self._give_up("warmup_steps", "a negative number means the share of `lr_warmup_steps_ratio`")

    def _sft_batch(self) -> None:
        parts = [whole(self._take(key)) for key in ("per_device", "accumulation", "devices")]
        given = [part for part in parts if part]
        size = next((w for key in ("train_batch", "prompts") if (w := whole(self._take(key)))), None)
        if size:
            self._put("train_batch" if "train_batch" in self.said else "prompts", "batch_size", size)
        elif given:
            product = (parts[0] or 8) * (parts[1] or 1) * (parts[2] or 1)
            self.stage["batch_size"] = product
            for key in ("per_device", "accumulation", "devices"):
                self._done(key, f"sft.batch_size: {product}", "batch a device × accumulation × devices")

    def _rl_batch(self) -> None:
        generations = self.stage.get("num_generations") or DEFAULTS.get((self.tool, self.kind or ""), {}).get(
            "num_generations", 1
        )
        prompts = whole(self._take("prompts"))
        if prompts:
            self._put("prompts", "prompts_per_step", prompts)
        parts = [whole(self._take(key)) for key in ("per_device", "accumulation", "devices")]
        if any(parts) and not prompts:
            update = (parts[0] or 8) * (parts[1] or 1) * (parts[2] or 1)
            per_generation = whole(self._take("steps_per_generation")) or 0
            prompts, rest = divmod(update * max(1, per_generation // (parts[1] or 1)), generations)
            prompts = max(1, prompts)
            why = f"{update} completions an update on {parts[2] or 1} device(s), {generations} a prompt"
            self.stage["prompts_per_step"] = prompts
            for key in ("per_device", "accumulation", "devices", "steps_per_generation"):
                self._done(key, f"rl.prompts_per_step: {prompts}", why + (", rounded" if rest else ""))
        mini = whole(self._take("mini_prompts"))
        samples = whole(self._take("train_batch"))
        of_step = self.stage.get("prompts_per_step") or 1024
        updates = of_step // mini if mini else of_step * generations // samples if samples else 0
        key = "mini_prompts" if mini else "train_batch"
        if updates > 1 and of_step % updates == 0:
            self._put(key, "num_mini_batches", updates, "into how many updates a step is split")
        elif updates <= 1:
            self._done(key, "", "one update a step, as here by default")
        self._give_up(key, f"a step of {of_step} prompts cannot be split so: set `num_mini_batches`")

    def _steps(self, fields: Mapping[str, Any]) -> None:
        steps, epochs = whole(self._take("max_steps")), self._take("epochs")
        if self.kind == "sft" and self.tool == "openrlhf" and epochs is None:
            epochs = self._take("max_epochs")
            self.said["epochs"] = (
                self.said.pop("max_epochs")
                if "max_epochs" in self.said
                else self.said.get("epochs", Setting("", None, ""))
            )
        passes = whole(self._take("max_epochs"))
        if passes and self.kind != "sft":
            self._put("max_epochs", "num_iterations", passes, "passes over the samples of a step")
        if steps and steps > 0 and "max_steps" in fields:
            self._put("max_steps", "max_steps", steps)
            self._give_up("epochs", "`max_steps` counts")
        elif isinstance(epochs, (int, float)) and epochs > 0 and "num_train_epochs" in fields:
            self._put("epochs", "num_train_epochs", epochs if self.kind == "grpo" else max(1, round(epochs)))
        elif "num_train_epochs" in fields and self.kind == "grpo":
            self._default("num_train_epochs", EPOCHS[self.tool], f"what {TOOLS[self.tool]} does where nothing is said")
        elif "max_steps" in fields:
            why = "RL is counted in steps here; an epoch has (rows / prompts_per_step) of them"
            self._default("max_steps", STEPS, why if epochs else "nothing says how long")
            self._give_up("epochs", why)
        self._give_up("max_steps", "epochs are counted here" if self.kind == "sft" else "not above 0: epochs count")

    # -- the objective ------------------------------------------------------------------------------------------------

    def _objective(self) -> None:
        if self.kind == "sft":
            return
        self._policy_loss()
        if isinstance(high := self._take("clip_high"), (int, float)):
            low = self.stage.get("clip_range", 0.2)
            value = round(float(high), 6)
            self._put("clip_high", "clip_range_high", value) if value != low else self._done(
                "clip_high", "", "as the lower bound"
            )
        both = self._take("clip_both")
        if numbers(both, 2):
            self.stage |= {"clip_range": float(both[0]), "clip_range_high": float(both[1])}
            self._done("clip_both", "rl.clip_range, rl.clip_range_high")
        loss = LOSSES.get(str(self._take("loss_type")))
        if loss:
            self._put("loss_type", "aggregation", loss)
        estimator = str(self._take("estimator"))
        if self.kind == "ppo":
            self._done("estimator", "stage: ppo")
        elif estimator in ESTIMATORS:
            self._put("estimator", "advantage", ESTIMATORS[estimator])
        scale = self._take("scale_rewards")
        if scale is not None and self.kind == "grpo":
            self._put(
                "scale_rewards",
                "advantage",
                {"batch": "batch", "none": "none"}.get(str(scale), "none" if scale is False else "std"),
            )
        self._penalty()
        if self._take("sync") is True and (every := whole(self._take("sync_steps")) or 512):
            self._put("sync_steps", "reference_update_steps", every)
            share = self._take("sync_share")
            self._put("sync_share", "reference_update_share", share if numbers([share], 1) and share else 0.6)
            self._done("sync", "reference_update_steps")
        for key in ("gamma", "gae_lambda", "value_learning_rate", "value_warmup_steps"):
            if self.kind == "ppo" and self._take(key) is not None:
                self._put(key, key, number(self._take(key)))
            self._give_up(key, "a key of value models: there is none in GRPO")
        if self._take("filter") is True and self.kind == "grpo":
            tries = whole(self._take("filter_tries")) or 10
            self.stage["dynamic_sampling_tries"] = max(1, tries)
            self._done("filter", "rl.dynamic_sampling_tries")
            self._done("filter_tries", f"rl.dynamic_sampling_tries: {max(1, tries)}")
        if self._take("no_std") is True and self.kind == "grpo":
            self._put("no_std", "advantage", {"std": "none", "batch": "batch_centred"}.get(
                self.stage.get("advantage", "std"), self.stage.get("advantage", "std")))  # fmt: skip
        length = whole(self._take("total_length"))
        if length and "max_completion_length" not in self.stage:
            why = "of prompt and completion together there, of the completion here"
            self._put("total_length", "max_completion_length", length, why)
        if "max_completion_length" in self.stage:
            self._give_up("total_length")
        asked = self._take("overlong_asked")
        self._done("overlong_asked", "" if asked is False else "rl.overlong_cache", "as asked")
        if asked is False:
            self._give_up("overlong", "not asked for")
        cache = whole(self._take("overlong"))
        if cache and cache < self.stage.get("max_completion_length", 0):
            self._put("overlong", "overlong_cache", cache)

    def _policy_loss(self) -> None:
        """A loss that has a name: its keys, and a cap or a gate in the place of the clip where it has one."""
        target = "policy_loss" if "policy_loss" in self.said else "loss_type"
        found = POLICY_LOSSES.get(str(self._take(target)))
        if found is None:
            self._give_up("policy_loss", f"of the losses that have names here are {', '.join(POLICY_LOSSES)}")
            return
        self.stage |= found
        said = ", ".join(f"rl.{key}: {value}" for key, value in found.items())
        self._done(target, said, "" if found else "as here by default")
        surrogate = self.stage.get("surrogate", "clip")
        high = self._take("clip_high")
        if surrogate == "cispo" and numbers([high], 1):
            cap = high if self.tool == "trl" else 1 + high
            why = "" if self.tool == "trl" else "1 + the bound of the clip"
            self._put("clip_high", "ratio_cap", round(cap, 6), why)
        if surrogate != "clip":
            why = f"the surrogate `{surrogate}` clips no ratio"
            for key in ("clip_high", "clip_both"):
                self._give_up(key, why)
            for key in ("clip_range", "clip_range_negative"):
                self._take_back(key, why)

    def _penalty(self) -> None:
        if self.tool == "trl":
            return
        in_loss, in_reward = self._take("kl_loss"), self._take("kl_reward")
        coefficient = self._take("kl_loss_coef") if in_loss else self._take("kl_reward_coef")
        if self.tool == "openrlhf":
            coefficient, in_reward = self._take("init_kl"), not in_loss
            self._done("init_kl", f"rl.kl_penalty: {coefficient}")
        if (in_loss or in_reward) and numbers([coefficient], 1):
            self.stage["kl_penalty"] = float(coefficient)
            if self.kind == "grpo":
                self.stage["kl_placement"] = "loss" if in_loss else "reward"
        elif self.tool == "verl":
            self.stage["kl_penalty"] = 0.0
        for key, used in (
            ("kl_loss", True),
            ("kl_reward", True),
            ("kl_loss_coef", in_loss),
            ("kl_reward_coef", in_reward),
        ):
            if used:
                self._done(key, f"rl.kl_penalty: {self.stage.get('kl_penalty', 0.0)}")
            self._give_up(key, "the divergence is not charged there")
        kind = {"low_var_kl": "k3", "k3": "k3", "mse": "k2", "k2": "k2"}.get(str(self._take("kl_type")))
        if kind and self.stage.get("kl_penalty") and in_loss:
            self._put("kl_type", "kl_estimator", kind)
        self._give_up("kl_type", "k1 is what is charged in rewards; in a loss `k2`, `k3` or `k3_corrected`")

    # -- where and with what ------------------------------------------------------------------------------------------

    def _rest(self, fields: Mapping[str, Any]) -> None:
        self._numbers()
        scheduler = str(self._take("scheduler"))
        known = {"linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
        known |= dict.fromkeys(("cosine", "cosine_with_min_lr", "cosine_with_restarts"), "cosine")
        if scheduler in known:
            self._put("scheduler", "lr_scheduler_type", known[scheduler])
        if self.stage.get("lr_scheduler_type") == "constant" and "min_lr_ratio" in self.stage:
            self._take_back("min_lr_ratio", "a constant rate does not fall")
        self._give_up("scheduler", "the schedules here are constant, linear and cosine")
        optim = str(self._take("optim"))
        if self._take("optim") is not None:
            eight = "8bit" in optim
            self._put(
                "optim",
                "optim",
                "adamw_8bit" if eight else "adamw",
                "" if "adamw" in optim else "the optimiser is AdamW",
            )
        every = whole(self._take("save_steps"))
        if every and every > 0:
            self._put("save_steps", "save_steps", every)
        self._give_up("save_steps", "checkpoints are always written: `save_steps` says how often")
        top_k = whole(self._take("top_k"))
        if top_k is not None and self.kind != "sft":
            self._put("top_k", "top_k", max(0, top_k), "0: all tokens" if top_k <= 0 else "")
        betas = self._take("betas")
        if numbers(betas, 2):
            self.stage |= {"adam_beta1": float(betas[0]), "adam_beta2": float(betas[1])}
            self._done("betas", "adam_beta1, adam_beta2")
        self._adapters()

    def _numbers(self) -> None:
        wanted = {"bf16": "bfloat16", "fp16": "float16"}
        named = str(self._take("dtype")).removeprefix("torch.")
        named = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(named, named)
        for key, dtype in wanted.items():
            if self._take(key) is True:
                self._put(key, "dtype", dtype)
            self._give_up(key, "not asked for: `dtype` is auto (bfloat16 on CUDA, float32 on a CPU)")
        if "dtype" not in self.stage and named in ("bfloat16", "float16", "float32", "auto"):
            self._put("dtype", "dtype", named)
        self._give_up("dtype", "one `dtype` says what is computed with")

    def _adapters(self) -> None:
        rank = whole(self._take("lora.r"))
        wanted = bool(self._take("peft")) if self.tool == "trl" else bool(rank)
        names = ("r", "alpha", "dropout", "target_modules")
        if wanted:
            lora = {key: self._take(f"lora.{key}") for key in names if self._take(f"lora.{key}") is not None}
            self.stage["lora"] = lora
            for key in names:
                self._done(f"lora.{key}", f"{self._stage_name()}.lora.{key}")
            self._done("peft", f"{self._stage_name()}.lora")
        for key in ("peft", *(f"lora.{name}" for name in names)):
            self._give_up(key, "adapters are not asked for")
