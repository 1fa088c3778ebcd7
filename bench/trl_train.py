"""TRL's side of `end_to_end.py`: a stage of kind grpo of a recipe as a plain script with GRPOTrainer.

The same prompts a step in the same order, temper's rewards on the sampled token ids, the same optimiser and schedule.

Usage: python trl_train.py SPEC.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from processes import cpu_seconds
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from workloads import micro_batch

from temper.data.tasks import load_prompts
from temper.errors import DataError
from temper.planning.plan import make_plan
from temper.planning.preflight import inputs, tasks
from temper.recipe.reader import load_recipe
from temper.record.rundir import RunDir
from temper.rewards import load_rewards
from temper.rewards.score import Scorer
from temper.stages.draws import draw_prompts
from temper.stages.grpo import Config
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.train.learner import learning_rate
from temper.train.optimizers import make_optimizer


class Side(TrainerCallback):
    """The trainer, its steps timed and the accuracy of each kept."""

    def __init__(self, spec: dict[str, Any]):
        recipe, faults = load_recipe(spec["recipe"], spec["settings"])
        if faults:
            raise DataError(faults)
        stage = recipe.by_name[spec["stage"]]
        assert isinstance(stage.config, Config)
        self.config = config = stage.config
        torch.set_num_threads(recipe.threads)
        artifacts = make_plan(recipe, RunDir(Path(spec["run"]))).artifacts()
        source = inputs(stage, artifacts)[config.model]
        self.chat = ChatFormat.load(source)
        self.scorer = Scorer(load_rewards(config.reward_funcs), config.reward_weights)
        found = tasks(stage, recipe, artifacts)
        prompts = {
            name: load_prompts(str(task.train), name, task.config, tell=lambda note: None)
            for name, task in found.items()
        }
        key = (recipe.seed, stage.name)
        steps = range(config.max_steps)
        self.prompts = [p for step in steps for p in draw_prompts(prompts, config.prompts_per_step, step, key)]
        self.steps: list[dict[str, float]] = []
        self.accuracy = 0.0
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
        turns = [[{"role": m.role, "content": m.content} for m in prompt.messages] for prompt in self.prompts]
        self._check_prompts(tokenizer, turns)
        betas = (config.adam_beta1, config.adam_beta2)
        optimizer = make_optimizer(
            config.optim, dict(model.named_parameters()), config.learning_rate, betas, config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(config, step, config.max_steps) / config.learning_rate
        )
        self.trainer: Any = GRPOTrainer(
            model=model,
            reward_funcs=self.reward,
            args=GRPOConfig(output_dir=spec["output"], **settings_of(config, spec["micro_batch"], recipe.seed)),
            train_dataset=Dataset.from_dict({"prompt": turns, "number": list(range(len(turns)))}),
            processing_class=tokenizer,
            optimizers=(optimizer, schedule),
            callbacks=[self],
        )

    def _check_prompts(self, tokenizer: Any, turns: Sequence[Any]) -> None:
        """Raise ValueError if TRL's way to token ids is not temper's."""
        ours = self.chat.prompts_ids([prompt.messages for prompt in self.prompts[:50]])
        for ids, conversation in zip(ours, turns[:50], strict=True):
            theirs = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
            if list(ids) != list(theirs):
                raise ValueError(f"the prompt {conversation} has other tokens in transformers: {ids} and {theirs}")

    def reward(self, completion_ids: Sequence[Sequence[int]], number: Sequence[int], **_: Any) -> list[float | None]:
        scores = [
            self.scorer.score(
                self.prompts[which], parse_reply(self.chat.decode(ids), thinking_opened=self.chat.thinking_opened)
            )
            for ids, which in zip(completion_ids, number, strict=True)
        ]
        self.accuracy = sum(score.rewards["accuracy"] for score in scores) / len(scores)
        return [score.total for score in scores]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = time.perf_counter(), cpu_seconds(os.getpid())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds, cpu = time.perf_counter() - self.began[0], cpu_seconds(os.getpid()) - self.began[1]
        self.steps.append({"seconds": seconds, "cpu_seconds": cpu, "accuracy": self.accuracy})


def settings_of(config: Config, batch: int, seed: int) -> dict[str, Any]:
    """TRL's settings for a stage's config. Raises ValueError for what the script does not do."""
    plain = {"advantage": "std", "aggregation": "sequence_mean", "kl_penalty": 0.0, "num_mini_batches": 1,
             "num_iterations": 1, "top_p": 1.0, "dynamic_sampling_tries": 0}  # fmt: skip
    other = {name: value for name in plain if (value := getattr(config, name)) != plain[name]}
    if other:
        raise ValueError(f"the script with TRL is plain GRPO, the stage has {other}")
    rows = config.prompts_per_step * config.num_generations
    size = micro_batch(rows, batch)
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": rows // size,
        "num_generations": config.num_generations,
        "max_completion_length": config.max_completion_length,
        "max_steps": config.max_steps,
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.max_grad_norm,
        "beta": 0.0,
        "epsilon": config.clip_range,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "temperature": config.temperature,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": seed,
    }


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    side = Side(spec)
    side.trainer.train()
    Path(spec["result"]).write_text(json.dumps(side.steps), encoding="utf-8")


if __name__ == "__main__":
    main()
