"""Makes evaluation.json."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from temper.config import ModelRef, StrictModel
from temper.stages.context import StageContext

VERSION = 1


class Config(StrictModel):
    models: Annotated[list[ModelRef], Field(min_length=1)]
    k: int = 4
    accuracy: dict[str, float] = {}  # by what a model is called; 0.5 if not given


def run(config: Config, ctx: StageContext) -> None:
    scores = {"n": 2, "k": config.k, "temperature": 1.0, "accuracy_interval": [0.1, 0.9],
              "format": 1.0, "language_consistency": None, "truncated": 0.0, "mean_tokens": 3.0}  # fmt: skip
    called = ctx.labels(config.models).values()
    right = {name: {"accuracy": config.accuracy.get(name, 0.5)} for name in called}
    models = [{"stage": name, "tasks": {"sums": {**scores, **right[name]}}} for name in called]
    value = {"temperature": 1.0, "top_p": 1.0, "k": config.k, "models": models, "claims": []}
    (ctx.out / "evaluation.json").write_text(json.dumps(value), encoding="utf-8")
