"""A transformers backbone under a linear head of one output: a number for every position that is asked for.

Reward models and value models are these. On disk they are what transformers itself writes: `…ForSequenceClassification`
with one label (a number a text), or `…ForTokenClassification` with one label (a number a step of a text).

Shapes: N packed tokens, K positions asked for, E hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from temper.errors import ArtifactError, Fault
from temper.kernels.attention import NAME
from temper.kernels.packing import share_prefixes
from temper.modelfiles import read_json_if_there
from temper.models.load import Dtype, HeadName, read_model, slow_way

Scope = Literal["text", "step"]  # what one number is said of
HEADS: dict[Scope, HeadName] = {"text": "SequenceClassification", "step": "TokenClassification"}


def load_scalar(
    path: Path,
    scope: Scope = "text",
    seed: int | None = None,
    dtype: Dtype = "float32",
    device: str = "cpu",
    warn: Callable[[str], None] | None = None,
) -> Any:
    """The scalar model in `path`, or one made of the causal language model there: its backbone under a new head.

    The weights of a new head are drawn from a normal distribution of variance 1 / (E + 1) named by `seed` (as
    2009.01325 draws that of its reward model); without a seed they are 0, so the model says 0 everywhere. The result is
    transformers' own class, in evaluation mode, on temper's packed attention where it fits: call it through
    `train/scores.py`. Raises ArtifactError.
    """
    path = Path(path)
    stored = stored_scope(path)
    if stored not in (None, scope):
        what = f"this reward model says one number a {stored}, and one a {scope} is needed"
        raise ArtifactError(Fault(what, where=str(path)))
    model, is_new = read_model(path, HEADS[scope], dtype)
    head = head_of(model)
    if is_new and stored is not None:
        raise ArtifactError(Fault("the weights of the reward model's head are missing", where=str(path)))
    if is_new:
        draw_head(head, seed)
    # what is trained in bfloat16 keeps a float32 head: its rounding would be that of every score
    model._keep_in_fp32_modules_strict = {*(model._keep_in_fp32_modules_strict or ()), *head_names(model)}
    if not share_prefixes(model.base_model):
        if warn is not None:
            warn(slow_way(model))
    else:
        model.set_attn_implementation(NAME)
    return model.to(device).eval()


def stored_scope(path: Path) -> Scope | None:
    """What the model in `path` says a number of, by its config.json; None for a model without such a head.

    Raises ArtifactError for a classifier of several labels.
    """
    config = read_json_if_there(path / "config.json")
    names = [name for name in config.get("architectures") or [] if isinstance(name, str)]
    found: list[Scope] = [scope for scope, head in HEADS.items() if any(name.endswith(f"For{head}") for name in names)]
    labels = config.get("num_labels", len(config["id2label"]) if isinstance(config.get("id2label"), dict) else 2)
    if found and labels != 1:
        why = "a reward model has one output, the score"
        raise ArtifactError(Fault(f"a classifier of {labels} labels", where=str(path / "config.json"), why=why))
    return found[0] if found else None


def draw_head(head: nn.Linear, seed: int | None) -> None:
    """Weights of variance 1 / (E + 1) drawn from `seed`, or 0 without one; the bias is 0.

    >>> head = nn.Linear(3, 1)
    >>> draw_head(head, None); head.weight.tolist()
    [[0.0, 0.0, 0.0]]
    """
    with torch.no_grad():
        weight = torch.zeros(head.weight.shape)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            weight.normal_(0.0, (head.in_features + 1) ** -0.5, generator=generator)
        head.weight.copy_(weight)
        if head.bias is not None:
            head.bias.zero_()


def is_scalar(model: Any) -> bool:
    """Whether `model` is one that `load_scalar` gives, by its class."""
    return type(model).__name__.endswith(tuple(f"For{head}" for head in HEADS.values()))


def head_names(model: Any) -> list[str]:
    """The names of the linear layers beside the backbone: one, the head."""
    inside = {id(module) for module in model.base_model.modules()}
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) not in inside
    ]


def head_of(model: Any) -> nn.Linear:
    """The head of a scalar model: linear, with one output. Raises ArtifactError for a model that has another."""
    names = head_names(model)
    head = model.get_submodule(names[0]) if len(names) == 1 else None
    if head is None or head.out_features != 1:
        raise ArtifactError(Fault(f"`{type(model).__name__}` is not a backbone under one linear head of one output"))
    return head


def apply_head(head: nn.Linear, hidden: Tensor) -> Tensor:
    """The number of each of [K, E] hidden states, [K], in float32 however narrow they are.

    >>> head = nn.Linear(2, 1)
    >>> draw_head(head, None); _ = head.bias.data.fill_(0.5)
    >>> apply_head(head, torch.ones(3, 2)).tolist()
    [0.5, 0.5, 0.5]
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    bias = None if head.bias is None else head.bias.to(wide)
    return nn.functional.linear(hidden.to(wide), head.weight.to(wide), bias).squeeze(-1)


class SharedTrunk(nn.Module):
    """A policy with a value head on its own last hidden states: one backbone, one learner for both.

    `policy` stays the whole causal language model (what samples and what is saved; the head is dropped with this
    module), `value_head` says a value of each position. A learner trains both as one model.
    """

    def __init__(self, policy: Any, seed: int | None = None):
        super().__init__()
        self.policy = policy
        self.value_head = nn.Linear(policy.config.get_text_config().hidden_size, 1)
        draw_head(self.value_head, seed)
        self.value_head.to(policy.device)
        narrowed = getattr(policy, "_keep_in_fp32_modules", None) or ()
        strict = getattr(policy, "_keep_in_fp32_modules_strict", None) or ()
        self._keep_in_fp32_modules = set(narrowed)  # what the learner keeps wide in the policy, and the head
        self._keep_in_fp32_modules_strict = {*strict, "value_head"}

    @property
    def device(self) -> torch.device:
        return self.policy.device

    @property
    def config(self) -> Any:
        return self.policy.config
