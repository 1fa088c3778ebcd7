"""Bytes by part are those of the tensors: a model in training takes 16 a parameter in float32, 18 in bfloat16."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from torch import nn

from temper.report.settings import memory_parts
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.train.memory import memory_by_part


def trained(architecture: str = "qwen2", **options: object) -> Learner:
    """A learner after one update."""
    learner = Learner(tiny_model(architecture), OptimizerConfig(learning_rate=1e-3, **options), 1)
    ids = torch.tensor([[1, 2, 3]])
    learner.update([lambda: LossSum(sum(p.float().sum() for p in learner.model.parameters()), {})], ids.numel())
    return learner


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(learner: Learner) -> int:
    """The sum, and in training by processes the micro-batch's that is added to it."""
    return 1 if learner.team is None else 2


@pytest.mark.parametrize(("dtype", "weights", "optimizer"), [("float32", 4, 8), ("bfloat16", 2, 12)])
def test_a_weight_its_gradient_and_its_moments(dtype, weights, optimizer):
    learner = trained(dtype=dtype)
    parameters = count(learner.model)
    found = memory_by_part(learner)
    buffers = sum(b.numel() * b.element_size() for b in learner.model.buffers())
    assert found["memory/policy"] == weights * parameters + buffers
    assert found["memory/gradients"] == gradients(learner) * 4 * parameters
    counts = 4 * len(learner.weights.masters)  # AdamW counts its steps in a float32 a tensor
    assert found["memory/optimizer"] == optimizer * parameters + counts
    parts = [value for name, value in found.items() if name.startswith("memory/") and name != "memory/total"]
    assert found["memory/total"] == sum(parts)
    assert found["policy/parameters"] == parameters


def test_a_second_model_in_training_costs_as_much_again_and_a_reference_a_quarter():
    policy, value_model, reference = trained(), trained(), tiny_model("qwen2")
    alone = memory_by_part(policy)
    both = memory_by_part(policy, reference, value_model)
    assert both["memory/value_model"] == alone["memory/total"]
    assert both["memory/reference"] == alone["memory/policy"]
    assert both["memory/total"] == 2 * alone["memory/total"] + alone["memory/policy"]


def test_tied_weights_are_counted_once_and_a_policy_that_is_its_own_reference_too():
    learner = trained("llama")
    assert learner.model.get_output_embeddings().weight is learner.model.get_input_embeddings().weight
    found = memory_by_part(learner, reference=learner.model)
    assert found["memory/gradients"] == gradients(learner) * 4 * count(learner.model)
    assert "memory/reference" not in found


def test_the_report_shows_the_bytes_of_each_stage_that_counted_them():
    grpo = {"step": [1, 2], "memory/policy": [4e9, None], "memory/total": [4e9, None]}
    ppo = {"step": [1], "memory/policy": [4e9], "memory/value_model": [16e9], "memory/total": [20e9]}
    stages = [
        {"name": "sft", "metrics": {"loss": [1.0]}},
        {"name": "g", "metrics": grpo},
        {"name": "p<", "metrics": ppo},
    ]
    shown = memory_parts({"stages": stages})
    assert "<th>policy</th><th>value model</th><th>together</th>" in shown
    assert '<th scope="row">g</th><td>4.0 GB</td><td>–</td><td>4.0 GB</td>' in shown
    assert '<th scope="row">p&lt;</th><td>4.0 GB</td><td>16.0 GB</td><td>20.0 GB</td>' in shown
    assert memory_parts({"stages": stages[:1]}) == ""
