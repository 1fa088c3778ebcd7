"""TRL's side: GRPOTrainer at its best settings, on the same model, prompts, lengths and rewards.

Usage: python trl_step.py SPEC.json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import accelerate
import torch
import transformers
import trl
from child import Job, connect, cuda_peak
from datasets import Dataset
from draws import Draws, draw_step, text_of
from forced import ForcedLengths
from random_model import digest, tokenizer_of
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from workloads import Workload, micro_batch


def settings_of(work: Workload, steps: int, sample_only: bool) -> dict[str, Any]:
    """What is not TRL's default: one update a generation, no checkpointing of activations, bf16 on the device only."""
    group = max(2, work.group)
    batch = group if sample_only else micro_batch(work.rows, work.peer_micro_batch)
    return {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1 if sample_only else work.rows // batch,
        "num_generations": group,
        "max_completion_length": work.new_tokens,
        "max_steps": steps,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "beta": work.kl,
        "loss_type": "grpo",
        "temperature": 1.0,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "bf16": work.device == "cuda",
        "use_cpu": work.device == "cpu",
        "dataloader_pin_memory": work.device == "cuda",
        "optim": "adamw_torch_fused",
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": work.seed,
    }


class Side(TrainerCallback):
    """The trainer with its steps timed and its completions held to the lengths of the workload."""

    def __init__(self, job: Job):
        self.job = job
        self.work = job.work
        self.draws = draw_step(self.work, 0)
        self.found: list[int] = []
        self.settings = settings_of(self.work, len(job.numbers), job.sample_only)
        model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, self.work.dtype))
        texts = [text_of(prompt) for number in job.numbers for prompt in draw_step(self.work, number).prompts]
        self.trainer: Any = GRPOTrainer(
            model=model,
            reward_funcs=self.reward,
            args=GRPOConfig(output_dir=str(job.model.parent / "trl"), **self.settings),
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=AutoTokenizer.from_pretrained(tokenizer_of(job.model)),
            callbacks=[self],
        )
        self._force(self.trainer.model)

    def reward(self, completions: Sequence[str], **_: Any) -> list[float | None]:
        assert len(completions) == self.work.rows
        return [value for rewards in self.draws.rewards for value in rewards]

    def prepare(self, draws: Draws) -> None:
        """Take up the draws of the step that comes next."""
        self.draws = draws
        self.lengths = [length for lengths in draws.lengths for length in lengths]
        device = self.work.device
        rows = [prompt for prompt in draws.prompts for _ in range(self.work.group)]
        self.expected = torch.tensor(rows, device=device)
        self.processor = ForcedLengths(
            self.lengths, self.work.prompt_tokens, self.work.new_tokens, self.work.eos, device
        )

    def _force(self, model: Any) -> None:
        plain = model.generate

        def generate(**given: Any) -> Any:
            if not torch.equal(given["input_ids"], self.expected):
                raise ValueError("TRL's rows are not the prompts of this step, in order")
            return plain(**given, logits_processor=LogitsProcessorList([self.processor]))

        model.generate = generate

    def run_samples(self) -> None:
        """Generation alone, as the trainer calls it."""
        self.trainer.model.train()
        for number in self.job.numbers:
            self.prepare(draw_step(self.work, number))
            rows = [list(prompt) for prompt in self.draws.prompts for _ in range(self.work.group)]
            self.job.begin_step(number)
            with self.job.sampling():
                completions, _ = self.trainer._generate_single_turn(rows, None, {}, self.work.group)
            self.job.end_step(number, self.draws.tokens)
            self._check(completions)

    def run_steps(self) -> None:
        """Whole steps."""
        plain = self.trainer._generate

        def generate(prompts: list) -> Any:
            with self.job.sampling():
                made = plain(prompts)
            self.found = [len(ids) for ids in made[1]]
            return made

        self.trainer._generate = generate
        self.trainer.train()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.prepare(draw_step(self.work, state.global_step))
        self.job.begin_step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.job.end_step(state.global_step - 1, self.draws.tokens)
        self._check_lengths(self.found)

    def _check(self, completions: Sequence[Sequence[int]]) -> None:
        self._check_lengths([len(ids) for ids in completions])

    def _check_lengths(self, found: Sequence[int]) -> None:
        if list(found) != self.lengths:
            raise ValueError(f"TRL drew {sum(found)} tokens where {sum(self.lengths)} were asked for")


def main() -> None:
    job = connect()
    side = Side(job)
    if job.sample_only:
        side.run_samples()
    else:
        side.run_steps()
    modules = (trl, transformers, accelerate, torch)
    job.result(
        versions={module.__name__: str(module.__version__) for module in modules},
        sha256=digest(job.model),
        peak_memory_bytes=cuda_peak(job.work),
        settings=side.settings,
    )


if __name__ == "__main__":
    main()
