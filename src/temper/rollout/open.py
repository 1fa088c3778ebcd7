"""The one place that chooses a sampler: by the model, by where it lies, and by what the recipe says."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.models.load import supports_shared_prefix
from temper.rollout.engine import Engine
from temper.rollout.native import NativeEngine
from temper.rollout.options import ServerConfig
from temper.rollout.plain import PlainEngine
from temper.rollout.workers import ParallelEngine


@dataclass(frozen=True)
class Remote:
    """Servers that sample, `source`, the directory the model was read from, and `folder`, where the weights of later
    versions may be written. `trains`: the log-probs have to be those that are trained on."""

    config: ServerConfig
    source: Path
    folder: Path
    trains: bool


def open_engine(
    model: Any, version: Callable[[], int] = lambda: 0, remote: Remote | None = None
) -> AbstractContextManager[Engine]:
    """The engine that suits `model`, to be used as a context; `version` says how many updates the weights have seen."""
    if remote is not None:
        from temper.rollout.agreement import agreement_with
        from temper.rollout.server import ServerEngine

        key = os.environ.get(remote.config.api_key_env) if remote.config.api_key_env else None
        agrees = agreement_with(model, remote.trains)
        return ServerEngine(model, remote.config, remote.folder, remote.source, version, key, agrees)
    if not supports_shared_prefix(model):
        return nullcontext(PlainEngine(model, version=version))
    if model.device.type == "cpu":
        return ParallelEngine(NativeEngine(model, version=version))
    from temper.rollout.slots import SlotEngine

    return nullcontext(SlotEngine(model, version=version))


def cpu_seconds(engine: Engine) -> float:
    """The CPU seconds that an engine's own processes have used so far, beside this one's."""
    return engine.cpu_seconds if isinstance(engine, ParallelEngine) else 0.0
