"""Low-rank adapters (LoRA, 2106.09685) through `peft`: a few matrices are trained, the model's own weights stay.

Without its adapters the model is what it was before training, so it is its own reference.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from temper.config import StrictModel
from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.models.scalar import head_names, is_scalar
from temper.rng import seed_for
from temper.text.tokenizer import one_line

FOLDER = "adapter"  # in a model's directory: the adapter alone


class LoraConfig(StrictModel):
    """A weight W becomes W + (alpha / r) B A, with A [r, in] and B [out, r] trained; B starts at 0."""

    r: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = "all-linear"  # names of linear layers; "all-linear" is all but the head


def add_adapters(model: Any, config: LoraConfig, seed: int) -> Any:
    """`model` with new adapters, drawn from `seed`, that change nothing yet; only they require gradients, and the head
    of a scalar model, which is trained whole.

    Raises TemperError with exit code 9 where peft is not installed, ConfigError if no layer has such a name.
    """
    if faults := missing_peft(config):
        raise TemperError(faults, Exit.OPTIONAL_PART)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it, and it warns of kernels for inference
    import peft  # type: ignore[import-not-found]

    heads = head_names(model) if is_scalar(model) else []
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # any number does
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM" if not heads else None,
        exclude_modules=heads or None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it asks transformers by names that were renamed
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, settings).eval()
        except ValueError as problem:  # no layer has such a name
            raise ConfigError(Fault("`lora` does not fit the model", why=one_line(problem))) from problem
    for name in heads:
        model.get_submodule(name).requires_grad_(True)
    return adapted


def adapter_faults(model: nn.Module, config: LoraConfig) -> list[Fault]:
    """What keeps `config` from fitting a model, which need not have its weights: layers that it has not, or that are
    not linear."""
    layers = {name: module for name, module in model.named_modules() if name}
    linear = sorted({n.rpartition(".")[2] for n, m in layers.items() if type(m).__name__ in ("Linear", "Conv1D")})
    asked = config.target_modules
    if asked == "all-linear":
        return []
    faults = []
    for target in [asked] if isinstance(asked, str) else asked:
        try:
            found = [n for n in layers if _is_meant(n, target, is_pattern=isinstance(asked, str))]
        except re.error as error:
            faults.append(Fault(f"`target_modules`: `{target}` is no regular expression", why=str(error)))
            continue
        if not found:
            what = f"`target_modules`: the model has no layer `{target}`"
            faults.append(Fault(what, why=f"its linear layers are {', '.join(linear)}"))
        elif odd := next((n for n in found if n.rpartition(".")[2] not in linear), None):
            what = f"`target_modules`: `{target}` names {odd}, which is no linear layer"
            faults.append(Fault(what, why=f"the linear layers are {', '.join(linear)}"))
    return [replace(fault, code=Exit.CONFIG) for fault in faults]


def _is_meant(name: str, target: str, is_pattern: bool) -> bool:
    """As peft has it: one text is a regular expression for the whole name, those of a list are ends of names."""
    return bool(re.fullmatch(target, name)) if is_pattern else name == target or name.endswith(f".{target}")


def has_adapters(model: Any) -> bool:
    return hasattr(model, "disable_adapter")


def without_adapters(model: Any) -> AbstractContextManager[Any]:
    """Within it `model` is what it was before `add_adapters`; a model without adapters stays as it is."""
    return model.disable_adapter() if has_adapters(model) else nullcontext()


def merge_adapters(model: Any, folder: Path) -> Any:
    """The model inside with the adapters added to its weights; what they are alone is written to `folder` first."""
    if not has_adapters(model):
        return model
    _save(model, folder)
    return model.merge_and_unload()


def _save(model: Any, folder: Path) -> None:
    """The same adapters give the same bytes: nothing of where the model was, no order of a set."""
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def missing_peft(config: LoraConfig | None) -> list[Fault]:
    """The fault, if `config` asks for adapters and peft is not installed."""
    if config is None or find_spec("peft") is not None:
        return []
    fix = 'pip install "temper-rl[lora]"'
    return [Fault("`lora` needs peft, which is not installed", fix=fix, code=Exit.OPTIONAL_PART)]


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The dropout of the adapters, the only one of the model that training uses."""
    return [m for name, m in model.named_modules() if "lora_dropout" in name and isinstance(m, nn.Dropout)]


@contextmanager
def dropping_out(modules: Sequence[nn.Module], key: Sequence[int]) -> Iterator[None]:
    """Within it `modules` drop out, drawn from `key` alone."""
    if not modules:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("dropout", *key))
        for module in modules:
            module.training = True
        try:
            yield
        finally:
            for module in modules:
                module.training = False
