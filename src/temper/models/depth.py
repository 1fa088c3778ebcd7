"""A shallower model from some of another's layers: how a student is usually given its first weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from temper.errors import ArtifactError, ConfigError, Fault
from temper.text.tokenizer import one_line


def layer_fault(layers: Sequence[int], count: int) -> Fault | None:
    """What is wrong with asking a model of `count` layers for these.

    >>> layer_fault([0, 2], 4) is None
    True
    >>> layer_fault([0, 4], 4).why
    'the model has the layers 0 to 3'
    """
    if all(0 <= number < count for number in layers):
        return None
    wrong = next(number for number in layers if not 0 <= number < count)
    return Fault(f"`layers` names layer {wrong}", why=f"the model has the layers 0 to {count - 1}")


def keep_layers(model: Any, layers: Sequence[int], where: Path) -> Any:
    """A model of those layers of `model` (counted from 0, rising), everything else as it is; weights are shared.

    The layers of a student taken from its teacher, every second one say: DistilBERT (1910.01108, section 3). Raises
    ConfigError for layers that it does not have, ArtifactError for an architecture that cannot be cut like this.
    """
    from transformers import AutoModelForCausalLM

    old = model.config
    count = getattr(old, "num_hidden_layers", None)
    name = _layers_name(model, count)
    if name is None or count is None:
        raise ArtifactError(_uncuttable(old.model_type, where, "its layers are not one list of `num_hidden_layers`"))
    if fault := layer_fault(layers, count):
        raise ConfigError(fault)
    config = copy.deepcopy(old)
    config.num_hidden_layers = len(layers)
    for key, value in vars(old).items():  # one entry a layer: layer_types, and whatever else an architecture has
        if isinstance(value, (list, tuple)) and len(value) == count:
            setattr(config, key, [value[number] for number in layers])
    try:
        shallow = AutoModelForCausalLM.from_config(config, attn_implementation=old._attn_implementation)
        shallow = shallow.to(next(model.parameters()).dtype)
        pairs = zip(shallow.get_submodule(name), (model.get_submodule(name)[number] for number in layers), strict=True)
        if any(_build(new) != _build(kept) for new, kept in pairs):
            raise ValueError("a layer would be built otherwise at its new place")
        shallow.load_state_dict(_renumbered(model.state_dict(), name, layers))
    except Exception as problem:  # of many kinds: an architecture that counts its layers in yet another key
        raise ArtifactError(_uncuttable(old.model_type, where, one_line(problem))) from problem
    shallow.name_or_path = model.name_or_path
    return shallow.eval()


def _layers_name(model: nn.Module, count: int | None) -> str | None:
    """The one list of `count` modules that is not inside another: the decoder's layers."""
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return outer[0] if len(outer) == 1 else None


def _build(layer: nn.Module) -> list[tuple[Any, ...]]:
    """What a layer is made of: the kinds of its parts and their plain settings, but for its own number."""
    return [
        (name, type(part), {key: value for key, value in vars(part).items() if _is_setting(key, value)})
        for name, part in layer.named_modules()
    ]


def _is_setting(key: str, value: Any) -> bool:
    return key not in ("layer_idx", "training") and isinstance(value, (bool, int, float, str, type(None)))


def _renumbered(state: dict[str, torch.Tensor], name: str, layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """The tensors of the kept layers under their new numbers, and all that belong to no layer."""
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
    for new, number in enumerate(layers):
        start = f"{name}.{number}."
        kept |= {f"{name}.{new}.{k.removeprefix(start)}": tensor for k, tensor in state.items() if k.startswith(start)}
    return kept


def _uncuttable(kind: str, where: Path, why: str) -> Fault:
    return Fault(f"`layers` cannot be taken from a `{kind}` model", where=str(where), why=why)
