"""Kinds of stages that do next to nothing, to test the pipeline with: no torch, a step is a hash.

`python -m fakes run RECIPE …` is the command line with these kinds added.
"""

from __future__ import annotations

from temper.stages import STAGES, StageKind

KINDS = {
    "fake_data": StageKind("fakes.data", "dataset", "data.jsonl"),
    "fake_train": StageKind("fakes.train", "model", "config.json"),
    "fake_measure": StageKind("fakes.measure", "evaluation", "evaluation.json"),
}


def install() -> None:
    STAGES.update(KINDS)


RECIPE = """\
name: fake
seed: 7
tasks:
  sums: {train: "@data", test: "@data/test.jsonl"}
stages:
  data: {stage: fake_data, rows: 3}
  first: {stage: fake_train, data: "@data", steps: 6}
  second: {stage: fake_train, model: "@first", tasks: [sums], steps: 6, learning_rate: 1e-4}
  report: {stage: fake_measure, models: ["@first", "@second"]}
"""
