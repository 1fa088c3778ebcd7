"""One optimiser step. The only place that divides: losses arrive as sums, the divisor counts the whole step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from temper.distributed.ranks import ranks
from temper.environment import keep_freed_memory
from temper.kernels.forwards import Forwards, in_place
from temper.kernels.layers import training_forwards
from temper.models.adapters import LoraConfig, dropouts, dropping_out
from temper.models.device import DeviceConfig, pick_dtype
from temper.models.forks import in_main_memory
from temper.text.tokenizer import one_line
from temper.train.checkpoint import read_whole
from temper.train.head import forget
from temper.train.losses import LossSum
from temper.train.optimizers import OptimizerName, load_optimizer_state, make_optimizer, optimizer_state, take_step
from temper.train.precision import Weights
from temper.train.sharding import Shards
from temper.train.sizes import by_processes, even_budget, shared_budget, wide_budget
from temper.train.summing import GradientSum
from temper.train.team import Team
from temper.train.turns import Turns


class OptimizerConfig(DeviceConfig):
    """The optimiser keys every training stage has. `dtype` is of the weights that are computed with: narrower ones than
    float32 are rounded copies of float32 masters, which are trained and, at the end, saved."""

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # optimiser updates in which the rate rises to its full height
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0  # the same as a share of all updates, rounded up
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, down to min_lr_ratio
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8  # MiniMax-M1 and ScaleRL: 1e-15, for tiny gradients
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 8192  # at most; speed and memory: the gradient is the same
    parallel: Literal["auto", "processes", "threads"] = "auto"  # on a CPU; auto: processes for a small model
    save_steps: Annotated[int, Field(ge=1)] = 20
    # Memory and time; the gradient is the same
    gradient_checkpointing: bool = False  # each layer is computed again in the backward pass: a third more time
    compile: bool = False  # the layers, by torch.compile: up to a minute at the start, then 5 to 15 % less time
    # Memory for exactness
    optim: OptimizerName = "adamw"  # adamw_8bit: Adam's moments in 2 bytes a weight instead of 8
    shard_optimizer: bool = False  # with several ranks: each holds Adam's moments of its part of the weights (ZeRO-1)
    fully_shard: bool = False  # with several ranks: each holds its part of weights, gradients and moments (FSDP2)
    lora: LoraConfig | None = None  # train low-rank adapters, keep the weights; they are merged at the end
    float32_head: bool = False  # logits of narrow weights in float32, in sampler and trainer alike (2506.13585, 3.2)

    @model_validator(mode="after")
    def _one_warmup(self) -> OptimizerConfig:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("warmup_steps and warmup_ratio: one of the two says how long the warm-up is")
        return self

    @model_validator(mode="after")
    def _sharded(self) -> OptimizerConfig:
        if not self.fully_shard:
            return self
        if self.shard_optimizer:
            raise ValueError("fully_shard and shard_optimizer: the first splits the moments, too; leave the second out")
        beside = {
            "lora": self.lora is not None and "adapters train with the weights whole at every rank",
            "compile": self.compile and "layers that are put together as they are computed are not compiled",
            "optim": self.optim != "adamw" and "only AdamW's moments can be split number by number",
            "dtype": self.dtype == "float16" and "use bfloat16 or float32",
            "parallel": self.parallel == "processes" and "each rank trains in one process",
        }
        if wrong := [f"{key}: {why}" for key, why in beside.items() if why]:
            raise ValueError("fully_shard does not go with " + "; nor with ".join(wrong))
        return self

    def warmup_updates(self, total: int) -> int:
        """How many of `total` updates the warm-up takes.

        >>> OptimizerConfig(learning_rate=1.0, warmup_ratio=0.03).warmup_updates(150)
        5
        """
        return self.warmup_steps or math.ceil(self.warmup_ratio * total - 1e-9)


class Learner:
    """A model and its optimiser; `step` counts the updates made."""

    def __init__(
        self,
        model: Any,
        config: OptimizerConfig,
        total_steps: int,
        seed: int = 0,
        warn: Callable[[str], None] = lambda text: None,
        device: torch.device | None = None,
        whole_on: torch.device | None = None,
    ):
        """`model` comes with its weights as they are stored: they are rounded to `config.dtype` here. `seed` is that of
        the adapters' dropout. A model that is sharded comes on any device and lies on `device` afterwards; `whole_on`
        names another for a whole copy to sample from."""
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        self.is_moving = False  # while an update changes weights and moments
        place: torch.device = device or next(model.parameters()).device
        dtype = getattr(torch, pick_dtype(config.dtype, place))
        early = self._find_forwards() if dtype == torch.float32 else None  # found on whole layers
        self.is_sharded = config.fully_shard and ranks().size > 1
        if self.is_sharded:
            from temper.train.fully_sharded import ShardedWeights

            self.weights: Weights = ShardedWeights(model, dtype, place, whole_on)
            self._forwards = self._find_forwards() if early is None else early
            self.turns = Turns(self.weights, self._forwards)
        else:
            self.weights, self.turns = Weights(model, dtype), None
            self._forwards = self._find_forwards() if early is None else early
        betas = (config.adam_beta1, config.adam_beta2)
        self.shards = Shards(self.weights.masters) if config.shard_optimizer and ranks().size > 1 else None
        self.moved = self.weights.masters if self.shards is None else self.shards.own
        self._settled: tuple[int, dict[str, Tensor]] | None = None  # state of all ranks after so many updates
        self.optimizer = make_optimizer(
            config.optim, self.moved, config.learning_rate, betas, config.weight_decay, config.adam_epsilon
        )
        self.team = None  # one process with all its threads
        if not self.is_sharded and in_processes(model, config):
            self.team = Team(1 if ranks().size > 1 else None)
        if in_main_memory(model):
            keep_freed_memory(forks=self.team is not None)
        if self.team is None and config.parallel == "processes" and not config.compile:
            warn("`parallel: processes` needs Linux, a model in main memory and no CUDA device: one process trains")
        self.summing = GradientSum(self.weights, self.team, self.turns)
        self._dropouts = dropouts(model)
        self._to_compile = config.compile
        self._seed, self._warn = seed, warn

    def _find_forwards(self) -> Forwards:
        return training_forwards(self.model, self.config.gradient_checkpointing, self.config.compile)

    @property
    def whole(self) -> Any:
        """What to sample from: the model, or the copy of it that is whole."""
        return self.model if self.turns is None else self.turns.weights.whole

    @property
    def asked_by(self) -> Team | Turns | None:
        """Who shares out passes of the model without gradient."""
        return self.turns or self.team

    def budget(self, tokens: int) -> int:
        """The most tokens of a micro-batch, in a step of `tokens`."""
        most = self.config.micro_batch_tokens
        if self.team is not None:
            return even_budget(tokens, most)
        if ranks().size > 1:
            return shared_budget(tokens, most, ranks().size)
        return wide_budget(tokens, most) if in_main_memory(self.model) else most

    def update(self, losses: Iterable[Callable[[], LossSum]], divisor: float) -> dict[str, float]:
        """Back-propagate each loss divided by `divisor`, clip, step. An empty `losses` is a step with gradient 0.

        Raises FloatingPointError, before any weight changes, if the gradient is not finite; one that is too large for
        float16 is computed again from a smaller loss.
        """
        makers, sent = list(losses), ranks().sent
        compiling = self._compile(makers[0]) if makers and self._to_compile else {}
        while True:
            metrics = self._gather_gradients(makers, divisor)
            norm = self.weights.norm()
            if math.isfinite(norm):
                break
            scale = self.weights.scale
            if scale is None or not math.isfinite(metrics["loss"]) or not scale.lower():
                raise FloatingPointError(self.weights.first_not_finite())
        rate = learning_rate(self.config, self.step, self.total_steps)
        self._move_weights(norm, rate)
        if ranks().size > 1:
            metrics["bytes_sent"] = ranks().sent - sent
        return {**metrics, **compiling, "gradient_norm": float(norm), "learning_rate": rate}

    def _gather_gradients(self, makers: Sequence[Callable[[], LossSum]], divisor: float) -> dict[str, float]:
        """Of all losses together, in the masters; what is to be logged comes back divided."""
        passes = [partial(self._pass, number, make_loss, divisor) for number, make_loss in enumerate(makers)]
        with in_place(self._forwards):
            parts = self.summing.gather(passes, partial(self._pass, 0, makers[0], math.inf) if makers else None)
        sums: dict[str, float] = {}
        peaks: dict[str, float] = {}
        for part in parts:
            for name, value in part.sums.items():
                sums[name] = sums.get(name, 0.0) + value
            for name, value in part.peaks.items():
                peaks[name] = max(peaks.get(name, value), value)
        total, count = sum(float(part.loss) for part in parts), sum(part.count for part in parts)
        return {"loss": total / divisor, **{name: value / count for name, value in sums.items()}, **peaks}

    def _pass(self, number: int, make_loss: Callable[[], LossSum], divisor: float) -> LossSum:
        """Micro-batch `number` forward and backward."""
        with dropping_out(self._dropouts, (self._seed, self.step, number)):
            part = make_loss() if self.turns is None else self.turns.loss(make_loss)
            self.weights.back(part.loss / divisor)
        return replace(part, loss=part.loss.detach())

    def _move_weights(self, norm: Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.is_moving = True
        take_step(self.optimizer, self.weights.masters.values(), norm, self.config.max_grad_norm)
        if self.shards is not None:
            self.shards.tell_moved()
        self.weights.round_into_model()
        if self.weights.scale is not None:
            self.weights.scale.count()
        self.step, self._settled = self.step + 1, None
        self.is_moving = False

    def _compile(self, make_loss: Callable[[], LossSum]) -> dict[str, float]:
        """Compile by a first pass, forward and backward, whose gradient is thrown away; without a compiler go on."""
        self._to_compile = False
        began = time.perf_counter()
        try:
            self._gather_gradients([make_loss], 1.0)
        except Exception as problem:  # of many kinds: no C++ compiler, no Triton, an architecture it cannot follow
            self._forwards = training_forwards(self.model, self.config.gradient_checkpointing, compiled=False)
            forget(self.model)
            self._warn(f"the layers are not compiled, since here they cannot be: {one_line(problem)}")
            return {}
        return {"seconds/compiling": time.perf_counter() - began}

    def gather_state(self) -> None:
        """Have the whole of `state` at rank 0. Every rank calls it before the first one saves."""
        if self.shards is not None:
            self._settled = (self.step, self.shards.gathered(optimizer_state(self.optimizer, self.moved)))

    @property
    def is_whole(self) -> bool:
        """Whether `state` is all there is: of a split optimiser only after `gather_state`, of a sharded model never."""
        if self.is_sharded:
            return False
        return self.shards is None or (self._settled is not None and self._settled[0] == self.step)

    def state(self) -> dict[str, Tensor]:
        """Everything an exact resume needs, by name; weights that are not trained are not in it."""
        if self._settled is not None and self._settled[0] == self.step:
            return self.weights.state() | self._settled[1]
        return self.weights.state() | optimizer_state(self.optimizer, self.moved)

    def parts(self) -> dict[str, Tensor]:
        """What of a checkpoint is in parts at the ranks, beside `state`."""
        return {} if self.turns is None else self.turns.weights.spread(self.optimizer.state)

    def load_state(self, tensors: Mapping[str, Tensor], step: int, folder: Path | None = None) -> None:
        """Go on from `state()` as saved after `step` updates, and from what `parts` left in `folder`."""
        if self.turns is not None:
            tensors = self.turns.weights.read(tensors, folder)
        else:
            tensors = {**tensors, **(read_whole(folder) if folder is not None else {})}
            self.weights.load_state(tensors)
        load_optimizer_state(self.optimizer, self.moved, tensors)
        self.step, self._settled = step, None

    def trained_model(self) -> Any:
        """The model with the masters as its weights, in float32; of a sharded one at rank 0 alone. Every rank calls it,
        and no update can follow."""
        return self.weights.widened()


def in_processes(model: Any, config: OptimizerConfig) -> bool:
    """Whether `model` is trained by one-thread processes."""
    if torch.cuda.is_available() or not in_main_memory(model):  # autograd's threads for a device bear no fork
        return False
    return by_processes(config.parallel, config.compile, sum(weight.numel() for weight in model.parameters()))


def over_updates(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of several updates as one: means, and the largest of what ends in `_max`.

    >>> over_updates([{"loss": 1.0, "gap_max": 0.1}, {"loss": 2.0, "gap_max": 0.3}])
    {'loss': 1.5, 'gap_max': 0.3}
    """
    found: dict[str, list[float]] = {}
    for metrics in history:
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    return {name: max(v) if name.endswith("_max") else sum(v) / len(v) for name, v in found.items()}


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of update number `step` (from 0): a linear warm-up, then the schedule.

    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=2, lr_scheduler_type="linear", min_lr_ratio=0.0)
    >>> [learning_rate(config, step, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    warmup = config.warmup_updates(total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    if config.lr_scheduler_type == "constant":
        left = 1.0
    elif config.lr_scheduler_type == "linear":
        left = 1.0 - done
    else:
        left = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * left)
