"""What a stage trains: checked before anything runs, opened, and left behind as an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from temper.distributed.ranks import ranks
from temper.errors import Exit, Fault, TemperError
from temper.models.adapters import FOLDER, add_adapters, merge_adapters, missing_peft
from temper.models.device import missing_device, pick_device, pick_dtype, pin
from temper.models.load import architecture_faults, load_model
from temper.models.reward_card import is_reward_model
from temper.models.save import save_model
from temper.models.scalar import SharedTrunk
from temper.models.wide import widen_head
from temper.rng import seed_for
from temper.stages.context import StageContext
from temper.text.chat import ChatFormat
from temper.text.templates import missing_template_fault
from temper.train.learner import Learner, OptimizerConfig
from temper.train.optimizers import missing_optimizer


def check_model(ref: str, ctx: StageContext, scores: bool = False, chats: bool = True) -> list[Fault]:
    """Faults of a model directory that already exists and, if it `chats`, has a template; nothing to say of one that a
    stage will make. `scores`: a reward model will do."""
    from temper.models.checks import check_model_dir

    path = ctx.inputs.get(ref)
    if path is None or ref.startswith("@"):
        return []
    faults = list(check_model_dir(path))
    if not faults and not is_reward_model(path):
        faults = architecture_faults(path)
    if not faults:
        try:
            chat = ChatFormat.load(path)
        except TemperError as error:
            return list(error.faults)
        if chats and not chat.is_chat:
            faults.append(missing_template_fault(str(path)))
        if not scores and is_reward_model(path):
            faults.append(Fault("a reward model, where one that writes is needed", where=str(path), code=Exit.ARTIFACT))
        for warning in chat.warnings:
            ctx.log.warn(warning.what)
    return faults


def check_training(config: OptimizerConfig) -> list[Fault]:
    """Faults of what a training stage asks for and this machine or installation does not have."""
    return missing_device(config.device) + missing_peft(config.lora) + missing_optimizer(config.optim)


def open_learner(
    source: Path | Any, config: OptimizerConfig, total_steps: int, ctx: StageContext, samples: bool = False,
    served: bool = False,
) -> Learner:  # fmt: skip
    """A learner of the model in the directory `source`, or of `source` itself, on the device the config asks for and
    with new adapters where it asks for them. `samples`: of a model in parts a copy is kept whole to sample from, in
    main memory where it is `served` by others."""
    device = pick_device(config.device)
    shards = config.fully_shard and ranks().size > 1
    if isinstance(source, Path):
        # the learner rounds the weights it trains; those that adapters keep as they are, are rounded when they are read
        dtype = "float32" if config.lora is None else pick_dtype(config.dtype, device)
        source = load_model(source, dtype, "cpu" if shards else str(device), warn=ctx.log.warn)
    model = source if shards else source.to(device)
    if config.float32_head and not widen_head(model.policy if isinstance(model, SharedTrunk) else model):
        ctx.log.warn("float32_head: this model's head is no plain linear layer and stays as it is")
    if config.lora is not None:
        model = add_adapters(model, config.lora, seed_for(ctx.seed, ctx.name, "adapters"))
    whole_on = None if not samples else torch.device("cpu") if served else device
    return Learner(model, config, total_steps, seed_for(ctx.seed, ctx.name), ctx.log.warn, device, whole_on)


def open_reference(source: Path, policy: Any, config: OptimizerConfig, offload: bool = False) -> Any:
    """π_ref: the model in `source`, on the policy's device or, with `offload`, in main memory. With adapters it is the
    policy itself, which is to be asked without them."""
    if config.lora is not None:
        return policy
    dtype = pick_dtype(config.dtype, policy.device)
    reference = pin(load_model(source, dtype)) if offload else load_model(source, dtype, str(policy.device))
    if config.float32_head:
        widen_head(reference)
    return reference


def finish_model(
    learner: Learner, chat: ChatFormat, ctx: StageContext, trained_from: str, how: Sequence[str], licence: str = ""
) -> None:
    """Leave what was trained as the stage's artifact: a whole model in float32, and beside it the adapter, if any. Of a
    policy that shares its trunk with a value head it is the policy. A `licence` is that of a new model."""
    trained = learner.trained_model()
    if ranks().rank:
        return  # all have the same, and the first one writes it
    policy = trained.policy if isinstance(trained, SharedTrunk) else trained
    model = merge_adapters(policy, ctx.out / FOLDER)
    card = {"stage": ctx.name, "trained_from": trained_from, "how": list(how), "licence": licence}
    save_model(model, chat, ctx.out, card)
