"""What a stage takes of each of several ranks: memory, what it sends in an update, and the time of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from temper.distributed.ranks import BUCKET
from temper.planning.estimate import Machine, estimate, step_tokens, trained_bytes, trained_count, weight_bytes
from temper.planning.lengths import Tokens
from temper.planning.shapes import ModelSize
from temper.recipe.recipe import Stage
from temper.train.learner import OptimizerConfig
from temper.train.sizes import by_processes, even_budget, shared_budget
from temper.train.summing import sharded_bytes, update_bytes

LINK = 12_500_000_000  # bytes a second from one rank to the next: 100 Gbit/s


@dataclass(frozen=True)
class Share:
    """Of one rank; None where it is not known. `sent_bytes` are of gradients, in one update; replies and metrics are
    little beside them. `step_seconds`: a step shared out evenly, and what is sent, one after the other."""

    memory_bytes: int | None
    sent_bytes: int | None
    step_seconds: float | None


def share(
    stage: Stage, sizes: Mapping[str, ModelSize | None], tokens: Tokens, machine: Machine, ranks: int,
    step_seconds: float | None = None, link: float = LINK,
) -> Share:  # fmt: skip
    """`step_seconds` are those of one rank alone."""
    memory, plan = (
        estimate(stage, sizes, tokens, machine).memory_bytes,
        _gradients(stage, sizes, tokens, machine, ranks),
    )
    sent = 0 if plan is not None else None
    if plan is not None and plan.trained:
        if plan.in_parts is not None:
            sent, more = plan.in_parts
        else:
            sharded = getattr(stage.config, "shard_optimizer", False)
            sent = update_bytes(plan.trained, plan.passes, ranks, plan.apart, sharded)
            more = (ranks + 1) * plan.trained if plan.apart else min(plan.trained, BUCKET)
            more -= plan.moments * (ranks - 1) // ranks if sharded else 0
        memory = None if memory is None else memory + more
    seconds = None if step_seconds is None else step_seconds / ranks + (sent or 0) * _updates(stage) / link
    return Share(memory, sent, seconds)


def _updates(stage: Stage) -> int:
    """Of a step."""
    return getattr(stage.config, "num_mini_batches", 1) * getattr(stage.config, "num_iterations", 1)


@dataclass(frozen=True)
class _Gradients:
    """Bytes of those of all trained weights, 0 where nothing is trained; in how many micro-batches they are made; and
    whether those of each are kept apart. `moments`: bytes of Adam's. `in_parts`: of a model in parts, the bytes sent,
    and those of memory beside a whole one's."""

    trained: int
    passes: int
    apart: bool
    moments: int = 0
    in_parts: tuple[int, int] | None = None


def _gradients(
    stage: Stage, sizes: Mapping[str, ModelSize | None], tokens: Tokens, machine: Machine, ranks: int
) -> _Gradients | None:
    config = stage.config
    if not isinstance(config, OptimizerConfig):
        return _Gradients(0, 0, False)
    size = sizes.get(getattr(config, "model", "")) or sizes.get(f"@{stage.name}")
    if size is None:
        return None
    in_processes = by_processes(config.parallel, config.compile, size.parameters)
    apart = in_processes and not machine.accelerator and not config.fully_shard
    context = size.shape.max_position_embeddings if size.shape is not None else 1 << 30
    most, _ = step_tokens(vars(config), context, tokens)
    most_each = config.micro_batch_tokens
    budget = even_budget(most, most_each) if apart else shared_budget(most, most_each, ranks)
    passes = -(-most // budget)
    count = trained_count(vars(config), size)
    in_parts = _in_parts(stage, size, machine, ranks, passes) if config.fully_shard else None
    return _Gradients(4 * count, passes, apart, (2 if config.optim == "adamw_8bit" else 8) * count, in_parts)


def _in_parts(stage: Stage, size: ModelSize, machine: Machine, ranks: int, passes: int) -> tuple[int, int]:
    """Of a model in parts: what each rank sends in an update, and what it holds more, or less, than of a whole one.

    It holds its part of masters, gradients and moments, 16 bytes a weight over the ranks; what is put together at a
    time, which is the embedding, the head and two layers, with the gradients of one; and a whole copy where it samples.
    """
    config, count = vars(stage.config), size.parameters
    width = weight_bytes(config, machine)
    samples = stage.kind == "grpo" or config.get("mode") == "on_policy"
    away = machine.accelerator and config.get("engine") is not None  # in main memory
    copied = width * count if samples and not away else 0
    outside, layer = _put_together(size)
    held = 16 * count // ranks + width * (outside + 2 * layer) + (width + 4) * (outside + layer) + copied
    sent = sharded_bytes(count, width, passes, ranks, samples)
    return sent, held - trained_bytes(config, width, size)


def _put_together(size: ModelSize) -> tuple[int, int]:
    """The weights outside the layers, and those of a layer; of an unknown shape it is one layer."""
    shape = size.shape
    if shape is None:
        return 0, size.parameters
    outside = shape.hidden_size * (shape.vocab_size * (1 if shape.tie_word_embeddings else 2) + 1)
    return outside, max(0, size.parameters - outside) // shape.num_hidden_layers
