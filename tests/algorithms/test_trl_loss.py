"""The same rollouts through TRL's loss and ours: loss and gradient agree for every option both have (a dev extra).

TRL is told what makes the two comparable: the whole batch is one optimiser step, float32, no checkpointing. Where the
two differ on purpose a test says so.
"""

from __future__ import annotations

import random
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from tiny_models import tiny_model

from temper.algorithms.advantages import ADVANTAGES
from temper.algorithms.aggregation import AGGREGATIONS
from temper.train.learner import Learner, OptimizerConfig
from temper.train.policy import (
    PolicyConfig,
    PolicyLoss,
    policy_batches,
    score_examples,
    with_old,
    with_reference,
    with_uncertain,
)
from temper.types import PolicyExample

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="TRL is a dev extra")

GROUPS, SIZE, LONGEST, PAD, TEMPERATURE = 3, 4, 9, 0, 0.9
ROWS = GROUPS * SIZE
LOSS_TYPES = {
    "grpo": "sequence_mean", "dapo": "token_mean", "dr_grpo": "constant", "cispo": "token_mean",
    "luspo": "sequence_sum", "sapo": "sequence_mean",
}  # fmt: skip
BOUNDED = ("clip higher", "second bound", "sequence ratio")


class Rollouts:
    """Prompts and completions of several lengths with rewards, the log-probs they were drawn at, and an anchor's."""

    def __init__(self, seed: int):
        draw = random.Random(seed)
        self.prompts = [tuple(draw.randrange(5, 90) for _ in range(draw.randrange(2, 7))) for _ in range(GROUPS)]
        self.replies = [
            [tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, LONGEST + 1))) for _ in range(SIZE)]
            for _ in range(GROUPS)
        ]
        self.rewards = torch.tensor([[draw.random() for _ in range(SIZE)] for _ in range(GROUPS)], dtype=torch.float64)
        self.sampled = [[tuple(draw.uniform(-6, -3) for _ in reply) for reply in group] for group in self.replies]
        self.advantages = ADVANTAGES["std"](self.rewards)

    def examples(self, aggregation: str, kl_penalty: float) -> tuple[list[PolicyExample], float]:
        counts = [[len(reply) for reply in group] for group in self.replies]
        weights, divisor = AGGREGATIONS[aggregation](counts, LONGEST)
        return [
            PolicyExample(
                self.prompts[g] + reply,
                (False,) * len(self.prompts[g]) + (True,) * len(reply),
                (self.advantages[g, i].item(),) * len(reply),
                self.sampled[g][i],
                weights[g][i],
                kl_penalty,
            )
            for g, group in enumerate(self.replies)
            for i, reply in enumerate(group)
        ], divisor

    def padded(self) -> dict[str, torch.Tensor]:
        """As TRL has them: prompts padded on the left, completions on the right."""
        width = max(map(len, self.prompts))
        flat = [(self.prompts[g], reply) for g, group in enumerate(self.replies) for reply in group]
        left = [(PAD,) * (width - len(prompt)) + prompt for prompt, _ in flat]
        right = [reply + (PAD,) * (LONGEST - len(reply)) for _, reply in flat]
        prompt_mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in flat])
        mask = torch.tensor([[1] * len(reply) + [0] * (LONGEST - len(reply)) for _, reply in flat])
        return {
            "prompt_ids": torch.tensor(left), "prompt_mask": prompt_mask, "completion_ids": torch.tensor(right),
            "completion_mask": mask, "advantages": self.advantages.float().flatten(),
            "num_items_in_batch": mask.sum(),
        }  # fmt: skip

    def as_padded(self, values: list[list[float]]) -> torch.Tensor:
        return torch.tensor([[*row, *[0.0] * (LONGEST - len(row))] for row in values])


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPOTrainer whose `_compute_loss` is called directly; tests set its options as attributes."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = {f"t{i}": i for i in range(2, 100)} | {"<pad>": 0, "<eos>": 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")), pad_token="<pad>", eos_token="<eos>"
    )
    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), per_device_train_batch_size=ROWS, num_generations=SIZE,
        max_completion_length=LONGEST, gradient_accumulation_steps=1, temperature=TEMPERATURE, bf16=False,
        gradient_checkpointing=False, use_cpu=True, report_to=[], save_strategy="no", max_steps=1,
    )  # fmt: skip
    made = GRPOTrainer(
        model=tiny_model("llama", attention="eager"), reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args, train_dataset=Dataset.from_dict({"prompt": ["t5 t6"] * ROWS}), processing_class=tokenizer,
    )  # fmt: skip
    made.current_gradient_accumulation_steps = 1
    return made


def shifted(shift: float) -> Any:
    """A policy a little off the trained one."""
    torch.manual_seed(3)
    other = tiny_model("llama")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(shift * torch.randn_like(parameter))
    return other


def scored(rollouts: Rollouts, shift: float) -> list[list[float]]:
    examples, _ = rollouts.examples("token_mean", 0.0)
    return score_examples(shifted(shift), examples, 10_000, TEMPERATURE)


def trl_gradient(trainer: Any, inputs: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


def our_gradient(
    config: PolicyConfig, rollouts: Rollouts, aggregation: str, kl_penalty: float, old: bool
) -> tuple[float, torch.Tensor]:
    learner = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3, max_grad_norm=1e9), 1)
    examples, divisor = rollouts.examples(aggregation, kl_penalty)
    batches = policy_batches(examples, 10_000)
    if old:
        batches = with_old(batches, shifted(0.03), TEMPERATURE)
    if kl_penalty:
        batches = with_reference(batches, shifted(0.05), TEMPERATURE)
    loss = PolicyLoss(config, TEMPERATURE)
    metrics = learner.update([lambda part=part: loss(learner.model, part) for part in batches], divisor)
    return metrics["loss"], torch.cat([p.grad.flatten() for p in learner.model.parameters()])


CASES = {
    "plain": ({}, {}),
    "clip higher": ({"epsilon_high": 0.28}, {"clip_range_high": 0.28}),
    "second bound": ({"args.delta": 1.25}, {"clip_range_negative": 1.25}),
    "KL": ({"beta": 0.1, "args.use_bias_correction_kl": False}, {}),
    "KL corrected": ({"beta": 0.1, "args.use_bias_correction_kl": True}, {"kl_estimator": "k3_corrected"}),
    "sequence ratio": ({"importance_sampling_level": "sequence", "epsilon_low": 3e-3, "epsilon_high": 4e-3},
                       {"ratio": "sequence", "clip_range": 3e-3, "clip_range_high": 4e-3}),
    "off-policy mask": ({"off_policy_mask_threshold": 0.02}, {"off_policy_threshold": 0.02}),
    "token truncate": ({"mode": "token_truncate", "high": 1.1}, {"sampler_correction": "token_truncate"}),
    "token mask": ({"mode": "token_mask", "high": 1.1}, {"sampler_correction": "token_mask"}),
    "sequence truncate": ({"mode": "sequence_truncate", "high": 1.1}, {"sampler_correction": "sequence_truncate"}),
    "sequence mask": ({"mode": "sequence_mask", "high": 1.1}, {"sampler_correction": "sequence_mask"}),
}  # fmt: skip


def set_options(trainer: Any, options: dict[str, Any]) -> None:
    """TRL's defaults, then `options`."""
    defaults = {
        "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token",
        "off_policy_mask_threshold": None, "use_vllm": False, "vllm_importance_sampling_correction": False,
        "args.delta": None, "args.use_bias_correction_kl": False,
    }  # fmt: skip
    for name, value in (defaults | options).items():
        holder, _, key = name.rpartition(".")
        setattr(trainer.args if holder else trainer, key, value)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient_are_those_of_trl(trainer: Any, loss_type: str, case: str, seed: int) -> None:
    theirs, ours = (dict(options) for options in CASES[case])
    if loss_type == "cispo":
        if case in BOUNDED:
            pytest.skip("bounds of the clipped surrogate; TRL refuses a sequence ratio here")
        theirs["epsilon_high"] = 1.1  # for CISPO, TRL's name of the cap
        ours |= {"surrogate": "cispo", "ratio_cap": 1.1}
    if loss_type == "sapo":
        if case in BOUNDED[:2]:
            pytest.skip("bounds of the clipped surrogate")
        theirs |= {"args.sapo_temperature_pos": 1.5, "args.sapo_temperature_neg": 3.0}
        ours = {key: value for key, value in ours.items() if not key.startswith("clip")}
        ours |= {"surrogate": "sapo", "sapo_temperature": 1.5, "sapo_temperature_negative": 3.0}
    rollouts = Rollouts(seed)
    inputs = rollouts.padded()
    old = scored(rollouts, 0.03)
    inputs["old_per_token_logps"] = rollouts.as_padded(old)
    if mode := theirs.pop("mode", None):
        high = theirs.pop("high")
        rollouts.sampled = near(old, rollouts, seed)
        gap = inputs["old_per_token_logps"] - rollouts.as_padded([row for group in rollouts.sampled for row in group])
        if mode.startswith("sequence"):
            gap = (gap * inputs["completion_mask"]).sum(-1, keepdim=True)
        ratio = gap.exp()
        ratio = ratio.clamp(max=high) if mode.endswith("truncate") else ratio.masked_fill(ratio > high, 0.0)
        inputs["importance_sampling_ratio"] = ratio
        theirs |= {"use_vllm": True, "vllm_importance_sampling_correction": True}
        ours["sampler_correction_max"] = high
    if case == "off-policy mask":
        rollouts.sampled = near(old, rollouts, seed)
        flat = [row for group in rollouts.sampled for row in group]
        inputs["sampling_per_token_logps"] = rollouts.as_padded(flat)
    set_options(trainer, theirs | {"loss_type": loss_type})
    beta = theirs.get("beta", 0.0)
    if beta:
        inputs["ref_per_token_logps"] = rollouts.as_padded(scored(rollouts, 0.05))
    wanted_loss, wanted = trl_gradient(trainer, inputs)
    loss, found = our_gradient(PolicyConfig(**ours), rollouts, LOSS_TYPES[loss_type], beta, old=True)
    assert loss == pytest.approx(wanted_loss, abs=1e-5)
    assert (found - wanted).norm() <= 1e-5 * max(1.0, wanted.norm().item())
    assert wanted.norm() > 1e-3


def near(old: list[list[float]], rollouts: Rollouts, seed: int) -> list[list[tuple[float, ...]]]:
    """A sampler's log-probs a little off `old`."""
    draw = random.Random(seed)
    rows = iter([tuple(value + draw.uniform(-0.3, 0.3) for value in row) for row in old])
    return [[next(rows) for _ in group] for group in rollouts.replies]


@pytest.mark.parametrize("share", [0.2, 0.55])
def test_the_most_uncertain_tokens_are_those_of_trl(trainer: Any, share: float) -> None:
    rollouts = Rollouts(1)
    set_options(trainer, {"loss_type": "dapo"})
    trainer.top_entropy_quantile = share
    try:
        wanted_loss, wanted = trl_gradient(trainer, rollouts.padded())
    finally:
        trainer.top_entropy_quantile = 1.0
    learner = Learner(tiny_model("llama"), OptimizerConfig(learning_rate=1e-3, max_grad_norm=1e9), 1)
    examples, divisor = rollouts.examples("token_mean", 0.0)
    batches = with_uncertain(policy_batches(examples, 40), learner.model, TEMPERATURE, share)
    loss = PolicyLoss(PolicyConfig(), TEMPERATURE)
    metrics = learner.update([lambda part=part: loss(learner.model, part) for part in batches], divisor)
    found = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
    assert metrics["loss"] == pytest.approx(wanted_loss, abs=1e-5)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_the_entropy_bonus_is_weighed_like_the_loss_where_trl_takes_a_mean_over_tokens(trainer: Any) -> None:
    """On purpose: here the bonus follows `aggregation`, so with `token_mean` the two agree and otherwise not."""
    rollouts = Rollouts(0)
    differences = {}
    for loss_type in ("dapo", "grpo"):
        set_options(trainer, {"loss_type": loss_type})
        trainer._entropy_bonus_enabled, trainer.use_adaptive_entropy, trainer.entropy_coef = True, False, 0.5
        try:
            _, wanted = trl_gradient(trainer, rollouts.padded())
        finally:
            trainer._entropy_bonus_enabled = False
        _, found = our_gradient(PolicyConfig(entropy_bonus=0.5), rollouts, LOSS_TYPES[loss_type], 0.0, old=False)
        differences[loss_type] = ((found - wanted).norm() / wanted.norm()).item()
    assert differences["dapo"] < 1e-5 < 1e-3 < differences["grpo"]
