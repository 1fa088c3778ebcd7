"""Stages whose samples may come from servers: what has to be so before anything runs, and how they are opened."""

from __future__ import annotations

import os
from pathlib import Path

from temper.errors import Fault
from temper.rng import seed_for
from temper.rollout.open import Remote
from temper.rollout.options import ServedConfig
from temper.stages.context import StageContext


def check_served(config: ServedConfig) -> list[Fault]:
    """Faults of the stage's `engine` that can be known before anything runs. Opens no socket."""
    variable = config.engine.api_key_env if config.engine is not None else None
    if variable is None:
        return []
    key = os.environ.get(variable, "").strip()
    if key and key.isascii() and key.isprintable():
        return []
    what = "holds no key: it has characters that a header cannot have" if key else "is not set"
    return [Fault(f"the servers' key: the variable {variable} {what}", fix=f"export {variable}=…")]


def remote_of(config: ServedConfig, model: str, ctx: StageContext, trains: bool = False) -> Remote | None:
    """What `open_engine` has to know of the servers that sample for `model`, as the config names it; None without."""
    if config.engine is None:
        return None
    folder = ctx.work / "weights"
    if config.engine.directory is not None:  # others may keep theirs there, and what is ours is removed
        own = f"{ctx.name}-{seed_for(str(ctx.work.resolve())):016x}"
        folder = Path(config.engine.directory).expanduser() / own
    return Remote(config.engine, ctx.inputs[model], folder, trains)
