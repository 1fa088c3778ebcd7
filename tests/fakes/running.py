"""Running recipes of fake stages inside the test's own process; what is made lands in `out`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import fakes.train
from temper.pipeline.run import Result, run_recipe


def run(recipe: Path, *settings: str, changed: bool = False) -> Result:
    return run_recipe(str(recipe), settings, Path("out"), changed)


def weights(result: Result, stage: str) -> Path:
    return Path("out/artifacts", result.record["stages"][stage]["fingerprint"], "model.safetensors")


def interrupt_after(monkeypatch, stage: str, step: int, error: BaseException | None = None) -> None:
    """Make one stage stop after one of its steps, once."""
    run_stage, done = fakes.train.run, []

    def stopping_run(config, ctx):
        if ctx.name != stage or done:
            return run_stage(config, ctx)
        done.append(True)
        log = ctx.log.step

        def stop_after(number, total, metrics):
            log(number, total, metrics)
            if number == step:
                if error is not None:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)

        ctx.log.step = stop_after
        return run_stage(config, ctx)

    monkeypatch.setattr(fakes.train, "run", stopping_run)
