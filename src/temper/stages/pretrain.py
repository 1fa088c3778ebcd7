"""Next-token training, from random weights (so the base model of the tiny recipe was made) or on from a model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from temper.algorithms.losses import negative_log_likelihood
from temper.config import DataRef, ModelRef, StrictModel
from temper.data.batching import Batch, Layout
from temper.data.conversations import load_texts
from temper.errors import DataError, Fault, TemperError
from temper.models.create import create_model
from temper.models.forks import cpu_seconds
from temper.models.load import load_model
from temper.models.save import RANDOM_WEIGHTS
from temper.rng import seed_for
from temper.stages.context import StageContext
from temper.stages.draws import shuffled
from temper.stages.idle import Idle, idle_optimizer
from temper.stages.models import check_model, check_training, finish_model, open_learner
from temper.text.chat import ChatFormat
from temper.text.train_tokenizer import train_tokenizer
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.loop import resumable_steps
from temper.train.losses import LossSum

VERSION = 1


class Architecture(StrictModel):
    """A stock decoder; the keys are transformers' own."""

    model_type: Literal["llama", "qwen2", "qwen3"] = "llama"
    hidden_size: Annotated[int, Field(ge=8)] = 128
    intermediate_size: Annotated[int, Field(ge=8)] = 384
    num_hidden_layers: Annotated[int, Field(ge=1)] = 4
    num_attention_heads: Annotated[int, Field(ge=1)] = 4
    num_key_value_heads: Annotated[int, Field(ge=1)] = 4
    max_position_embeddings: Annotated[int, Field(ge=16)] = 512

    @model_validator(mode="after")
    def _divisible(self) -> Architecture:
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("hidden_size must divide by num_attention_heads, and that by num_key_value_heads")
        return self


OF_A_NEW_MODEL = ("architecture", "vocab_size", "chat_template", "license")


class Config(OptimizerConfig):
    """Documents are laid end to end, the end token between them, and cut into blocks of `block_size` tokens.

    With `model` that model reads on: it keeps its architecture, tokenizer and chat template.
    """

    data: DataRef
    model: ModelRef | None = None
    columns: dict[str, str] = {}
    architecture: Architecture = Architecture()
    vocab_size: Annotated[int, Field(ge=300)] = 640
    chat_template: str | None = None  # stored with the tokenizer for the stages that chat; a name or a path
    license: Annotated[str, Field(pattern=r"^[\w.+-]+$")] | None = None  # of a new model, for its card
    max_steps: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 128  # blocks an optimiser step
    block_size: Annotated[int, Field(ge=8)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    log_steps: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _whole(self) -> Config:
        if self.lora is not None and self.model is None:
            raise ValueError("lora: adapters change a model that was trained before, and here is none")
        return self


def idle(config: Config) -> Iterator[Idle]:
    """Keys that do nothing beside another."""
    yield from idle_optimizer(config)
    if config.model is not None:
        yield from (Idle(name, "`model` settles it") for name in OF_A_NEW_MODEL)


def check(config: Config, ctx: StageContext) -> list[Fault]:
    faults = check_training(config) + ([] if config.model is None else check_model(config.model, ctx, chats=False))
    path = ctx.inputs.get(config.data)
    if path is None or config.data.startswith("@"):
        return faults
    try:
        load_texts(path, config.columns)
    except TemperError as error:
        return [*faults, *error.faults]
    return faults


def run(config: Config, ctx: StageContext) -> None:
    """Train a tokenizer on the texts, then the model: one block a sequence, every position a target."""
    texts = load_texts(ctx.inputs[config.data], config.columns)
    chat, model = new_model(texts, config, ctx) if config.model is None else open_model(config.model, ctx)
    blocks = cut_into_blocks(texts, chat, config.block_size)
    ctx.log.info(f"{blocks.numel():,} tokens in {len(blocks):,} blocks; {model.num_parameters():,} parameters")
    learner = open_learner(model, config, config.max_steps, ctx)
    for step in resumable_steps(learner, ctx.work / "checkpoints", ctx.log, ctx.stopping):
        began, began_cpu = time.perf_counter(), cpu_seconds()
        chosen = blocks[block_numbers(len(blocks), config.batch_size, step, (ctx.seed, ctx.name))]
        metrics = update(learner, chosen)
        seconds = time.perf_counter() - began
        if step % config.log_steps == 0 or step + 1 == config.max_steps:
            timing = {
                "seconds": seconds,
                "cpu_seconds": cpu_seconds() - began_cpu,
                "tokens_per_second": chosen.numel() / seconds,
            }
            ctx.log.step(step + 1, config.max_steps, metrics | timing)
    how = [f"pretraining: {config.max_steps} steps on {len(texts)} texts"]
    finish_model(learner, chat, ctx, config.model or RANDOM_WEIGHTS, how, config.license or "")


def new_model(texts: list[str], config: Config, ctx: StageContext) -> tuple[ChatFormat, Any]:
    tokenizer = train_tokenizer(texts, config.vocab_size, ctx.work / "tokenizer", config.chat_template)
    chat = ChatFormat.load(tokenizer)
    return chat, create_model(config.architecture, chat, seed_for(ctx.seed, ctx.name, "weights"))


def open_model(ref: str, ctx: StageContext) -> tuple[ChatFormat, Any]:
    path = ctx.inputs[ref]
    return ChatFormat.load(path), load_model(path, warn=ctx.log.warn)


def cut_into_blocks(texts: list[str], chat: ChatFormat, size: int) -> torch.Tensor:
    """[blocks, size] token ids: the texts, each closed by the end token, laid end to end; the rest is dropped."""
    stream: list[int] = []
    for start in range(0, len(texts), 10_000):
        for ids in chat.tokenizer.encode_many(texts[start : start + 10_000]):
            stream.extend(ids)
            stream.append(chat.end_id)
    count = len(stream) // size
    if count == 0:
        raise DataError(
            Fault(f"the texts hold {len(stream)} tokens, less than one block of {size}", fix="give more text")
        )
    return torch.tensor(stream[: count * size]).view(count, size)


def block_numbers(count: int, batch_size: int, step: int, key: tuple[int | str, ...]) -> list[int]:
    """The blocks of one step; every block once an epoch, in an order of its own."""
    numbers = []
    for i in range(step * batch_size, (step + 1) * batch_size):
        epoch, at = divmod(i, count)
        numbers.append(shuffled(count, (*key, epoch))[at])
    return numbers


def update(learner: Learner, blocks: torch.Tensor) -> dict[str, float]:
    """One optimiser step on the mean −log π of every token but each block's first."""

    def loss(part: torch.Tensor) -> LossSum:
        batch = pack_blocks(part).to(learner.model.device)
        scored = score_targets(learner.model, batch, plan_batch(batch))
        return LossSum(negative_log_likelihood(scored.logprobs_M).sum(), {})

    parts = blocks.split(max(1, learner.budget(blocks.numel()) // blocks.shape[1]))
    return learner.update([lambda part=part: loss(part) for part in parts], divisor=blocks[:, 1:].numel())


def pack_blocks(blocks_BT: torch.Tensor) -> Batch:
    """The blocks end to end, each a sequence of its own; every token but a block's first is a target.

    >>> batch = pack_blocks(torch.tensor([[5, 6, 7], [8, 9, 5]]))
    >>> batch.positions.tolist(), batch.sources.tolist(), batch.targets.tolist()
    ([0, 1, 2, 0, 1, 2], [0, 1, 3, 4], [6, 7, 9, 5])
    """
    count, size = blocks_BT.shape
    places = torch.arange(count * size).view(count, size)
    return Batch(
        tokens=blocks_BT.flatten(),
        positions=torch.arange(size).repeat(count),
        layouts=tuple(Layout(range(0), range(i * size, (i + 1) * size)) for i in range(count)),
        sources=places[:, :-1].flatten(),
        targets=blocks_BT[:, 1:].flatten(),
        rows=torch.arange(count).repeat_interleave(size - 1),
        lengths=torch.full((count * (size - 1),), size - 1),
    )
