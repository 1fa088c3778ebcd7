"""Take a model directory that somebody else made into a run: checked, with the chat template that the recipe names,
whole or only some of its layers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from temper.config import ModelRef, StrictModel
from temper.errors import ConfigError, Fault, TemperError
from temper.modelfiles import read_json
from temper.models.checks import check_model_dir
from temper.stages.context import StageContext
from temper.text.templates import NO_TEMPLATE, TEMPLATES, find_template, missing_template_fault, template_fault, vet

VERSION = 1


class Config(StrictModel):
    """What to import and how it talks.

    `chat_template`: `r1`, `r1_short`, `plain`, a file or the template itself; left out, the model's own; `none` for a
    model that only continues text. `layers`: keep only these of its layers, counted from 0 (a student's first weights).
    """

    model: ModelRef
    chat_template: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # "auto" keeps the stored one
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)

    @field_validator("layers")
    @classmethod
    def _rising(cls, layers: list[int] | None) -> list[int] | None:
        if layers is not None and any(a >= b for a, b in pairwise(layers)):
            raise ValueError("layers rise, each named once")
        return layers


def check(config: Config, ctx: StageContext) -> list[Fault]:
    """Faults of the directory and of the template, all before anything runs."""
    path = ctx.inputs.get(config.model)
    if path is None:
        return []
    from temper.models.load import architecture_faults

    if faults := check_model_dir(path) or architecture_faults(path):
        return faults
    if faults := _missing_layers(config, path):
        return faults
    try:
        template = find_template(path, config.chat_template)
    except TemperError as error:
        return list(error.faults)
    if template is None and config.chat_template != NO_TEMPLATE:
        return list(ConfigError(missing_template_fault(str(path))).faults)
    if template is not None and config.chat_template not in (None, *TEMPLATES) and (refused := vet(template, {})):
        return list(ConfigError(template_fault(refused, str(config.chat_template))).faults)
    return []


def _missing_layers(config: Config, path: Path) -> list[Fault]:
    from temper.models.depth import layer_fault

    count = read_json(path / "config.json").get("num_hidden_layers")
    fault = layer_fault(config.layers, count) if config.layers is not None and isinstance(count, int) else None
    return [] if fault is None else [replace(fault, where=str(path))]


def run(config: Config, ctx: StageContext) -> None:
    """Load it, so that every weight is seen, and save it with its chat template and end token settled."""
    from temper.models.depth import keep_layers
    from temper.models.load import load_model
    from temper.models.save import licence_in, save_model
    from temper.text.chat import ChatFormat

    path = ctx.inputs[config.model]
    chat = ChatFormat.load(path, config.chat_template)
    if not chat.is_chat and config.chat_template != NO_TEMPLATE:
        raise ConfigError(missing_template_fault(str(path)))
    for warning in chat.warnings:
        ctx.log.note(f"{warning.what}: {warning.why}")
    model = load_model(path, dtype=config.dtype, attention="sdpa", warn=ctx.log.note)
    template = "its own" if config.chat_template is None else f"`{config.chat_template}`"
    how = ["imported in its own precision" if config.dtype == "auto" else f"imported as {config.dtype}"]
    if config.layers is not None:
        model = keep_layers(model, config.layers, path)
        how.append(f"only its layers {', '.join(map(str, config.layers))} (counted from 0)")
    how.append(f"chat template: {template if chat.is_chat else 'none'}")
    card = {"stage": ctx.name, "trained_from": config.model, "how": how, "licence": licence_in(path)}
    save_model(model, chat, ctx.out, card)
    end = f"`{chat.end_text}` (token {chat.end_id})"
    ctx.log.info(f"{sum(p.numel() for p in model.parameters()):,} parameters, replies end with {end}")
