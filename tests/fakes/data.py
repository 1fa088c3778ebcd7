"""Makes data.jsonl and test.jsonl."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from temper.config import StrictModel
from temper.rng import seed_for
from temper.stages.context import StageContext

VERSION = 1


class Config(StrictModel):
    rows: Annotated[int, Field(ge=1)] = 3


def run(config: Config, ctx: StageContext) -> None:
    for name in ("data", "test"):
        rows = [{"text": str(seed_for(ctx.seed, ctx.name, name, i))} for i in range(config.rows)]
        (ctx.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
