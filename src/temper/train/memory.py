"""What training holds in memory beside activations, in bytes, by part: counted on the tensors themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from temper.train.learner import Learner


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind `tensors`, what several of them share counted once.

    >>> import torch
    >>> four = torch.zeros(4)
    >>> tensor_bytes([four, four.view(2, 2), torch.zeros(2, dtype=torch.int8)])
    18
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def memory_by_part(
    policy: Learner, reference: Any = None, value_model: Learner | None = None, scoring: Sequence[Any] = ()
) -> dict[str, float]:
    """Metrics `memory/…` of a stage that has made its first update, in bytes, and `policy/parameters`.

    `policy`: weights to compute with. `gradients`, `optimizer`: of the policy; the moments, and the float32 masters of
    narrower weights. `reference`: its weights; none of its own where it is the policy without its adapters. `sampler`:
    the whole copy of a policy in parts. `value_model`: its weights, gradients and optimiser together. `reward_models`:
    the weights of the models that score, in main memory where the policy is on a device. `total` is the sum.
    """
    weights, gradients, optimizer = _of_learner(policy)
    count = sum(parameter.numel() for parameter in policy.model.parameters())
    parts = {"memory/policy": weights, "memory/gradients": gradients, "memory/optimizer": optimizer}
    if reference is not None and reference is not policy.model:
        parts["memory/reference"] = tensor_bytes(_tensors(reference))
    if policy.is_sharded and policy.whole is not None:
        parts["memory/sampler"] = tensor_bytes(_tensors(policy.whole))
    if value_model is not None:
        parts["memory/value_model"] = sum(_of_learner(value_model))
    if scoring:
        parts["memory/reward_models"] = tensor_bytes(tensor for model in scoring for tensor in _tensors(model))
    return {"policy/parameters": count, **parts, "memory/total": sum(parts.values())}


def _of_learner(learner: Learner) -> tuple[int, int, int]:
    """Weights, gradients, optimiser. Gradients are counted as an update holds them: one number a trained weight,
    and those of other processes that wait to be added."""
    model = _tensors(learner.model)
    masters = list(learner.weights.masters.values())
    state = [
        value for of_one in learner.optimizer.state.values() for value in of_one.values() if isinstance(value, Tensor)
    ]
    weights = tensor_bytes(model)
    gradients = sum(master.numel() * master.element_size() for master in masters) + learner.summing.held_bytes
    return weights, gradients, tensor_bytes([*model, *masters, *state]) - weights


def _tensors(model: Any) -> list[Tensor]:
    """Of a model in parts those that are here."""
    found = [*model.parameters(), *model.buffers()]
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in found]
