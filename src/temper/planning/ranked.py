"""What a stage takes of each of several ranks: memory, what it sends in an update, and the time of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from temper.distributed.ranks import BUCKET
from temper.planning.estimate import Machine, estimate, step_tokens, trained_count
from temper.planning.lengths import Tokens
from temper.planning.shapes import ModelSize
from temper.recipe.recipe import Stage
from temper.train.learner import OptimizerConfig
from temper.train.sizes import by_processes, even_budget
from temper.train.summing import update_bytes

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
        sharded = getattr(stage.config, "shard_optimizer", False)
        sent = update_bytes(plan.trained, plan.passes, ranks, plan.apart, sharded)
        beside = (ranks + 1) * plan.trained if plan.apart else min(plan.trained, BUCKET)
        elsewhere = plan.moments * (ranks - 1) // ranks if sharded else 0
        memory = None if memory is None else memory + beside - elsewhere
    seconds = None if step_seconds is None else step_seconds / ranks + (sent or 0) * _updates(stage) / link
    return Share(memory, sent, seconds)


def _updates(stage: Stage) -> int:
    """Of a step."""
    return getattr(stage.config, "num_mini_batches", 1) * getattr(stage.config, "num_iterations", 1)


@dataclass(frozen=True)
class _Gradients:
    """Bytes of those of all trained weights, 0 where nothing is trained; in how many micro-batches they are made; and
    whether those of each are kept apart. `moments`: bytes of Adam's."""

    trained: int
    passes: int
    apart: bool
    moments: int = 0


def _gradients(
    stage: Stage, sizes: Mapping[str, ModelSize | None], tokens: Tokens, machine: Machine, ranks: int
) -> _Gradients | None:
    config = stage.config
    if not isinstance(config, OptimizerConfig):
        return _Gradients(0, 0, False)
    size = sizes.get(getattr(config, "model", "")) or sizes.get(f"@{stage.name}")
    if size is None:
        return None
    apart = not machine.accelerator and by_processes(config.parallel, config.compile, size.parameters)
    context = size.shape.max_position_embeddings if size.shape is not None else 1 << 30
    most, _ = step_tokens(vars(config), context, tokens)
    passes = -(-most // even_budget(most, config.micro_batch_tokens, 1 if apart else ranks))
    count = trained_count(vars(config), size)
    return _Gradients(4 * count, passes, apart, (2 if config.optim == "adamw_8bit" else 8) * count)
