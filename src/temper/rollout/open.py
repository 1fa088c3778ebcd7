"""The one place that chooses a sampler: by the model, and by where it lies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from temper.models.load import supports_shared_prefix
from temper.rollout.engine import Engine
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.rollout.workers import ParallelEngine


def open_engine(model: Any, version: Callable[[], int] = lambda: 0) -> AbstractContextManager[Engine]:
    """The engine that suits `model`, to be used as a context; `version` says how many updates the weights have seen."""
    if not supports_shared_prefix(model):
        return nullcontext(PlainEngine(model, version=version))
    if model.device.type == "cpu":
        return ParallelEngine(NativeEngine(model, version=version))
    from temper.rollout.slots import SlotEngine

    return nullcontext(SlotEngine(model, version=version))


def cpu_seconds(engine: Engine) -> float:
    """The CPU seconds that an engine's own processes have used so far, beside this one's."""
    return engine.cpu_seconds if isinstance(engine, ParallelEngine) else 0.0
