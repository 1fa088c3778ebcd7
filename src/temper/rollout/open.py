"""The one place that chooses a sampler: by the model, by where it lies, and by what the recipe says."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.models.load import supports_shared_prefix
from temper.rollout.ahead import SnapshotEngine
from temper.rollout.compiled import freeze
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
    model: Any, version: Callable[[], int] = lambda: 0, remote: Remote | None = None, ahead: bool = False,
    frozen: bool = False,
) -> AbstractContextManager[Engine]:  # fmt: skip
    """The engine that suits `model`, to be used as a context; `version` says how many updates the weights have seen.
    `ahead`: it has to be an `AheadEngine`, which a model in main memory has on Linux, and servers have. `frozen`: the
    weights change no more."""
    if frozen:
        freeze(model)
    if remote is not None:
        from temper.rollout.agreement import agreement_with
        from temper.rollout.server import ServerEngine

        key = os.environ.get(remote.config.api_key_env) if remote.config.api_key_env else None
        agrees = agreement_with(model, remote.trains)
        return ServerEngine(model, remote.config, remote.folder, remote.source, version, key, agrees)
    own = NativeEngine if supports_shared_prefix(model) else PlainEngine
    if ahead:
        return SnapshotEngine(own(model, version=version))
    if own is PlainEngine:
        return nullcontext(PlainEngine(model, version=version))
    if model.device.type == "cpu":
        return ParallelEngine(NativeEngine(model, version=version))
    from temper.rollout.slots import SlotEngine

    return nullcontext(SlotEngine(model, version=version))


def cpu_seconds(engine: Engine) -> float:
    """The CPU seconds that an engine's own processes have used so far, beside this one's."""
    return engine.cpu_seconds if isinstance(engine, (ParallelEngine, SnapshotEngine)) else 0.0
