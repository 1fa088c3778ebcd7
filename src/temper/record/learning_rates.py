"""What learning rates models of a size bear: bounds for advice, from what is reported to work.

RL of all weights: 1e-6 to 5e-6 from a billion parameters on (TRL's default and DAPO 1e-6, DeepSeek-R1 3e-6), 2e-5 at
135 million (`smol_135m`; 6e-5 was no good), 1.5e-4 to 7e-4 at a million (the shipped recipes; 1e-3 collapses).
Supervised: 1e-3 to 1.5e-3 at a million (the shipped recipes), 3e-5 at 135 million (`smol_135m`) to 1e-3 (SmolLM2), 3e-4
at 1.7 billion (SmolLM2), 1e-5 to 5e-5 at 7 billion (Open-R1). Between them straight lines of the logarithms. Adapters
bear ten times as much (LoRA Without Regret, 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from temper.record.metrics import RL_KINDS

SUPERVISED_KINDS = ("sft", "distill")
ADAPTERS = 10
Known = Sequence[tuple[float, float]]  # (parameters, learning rate), by size
# The lowest and the highest rates that are used.
RL_RATES: tuple[Known, Known] = (((1e6, 1.5e-4), (1e9, 1e-6)), ((1e6, 7e-4), (1e9, 5e-6)))
SUPERVISED_RATES: tuple[Known, Known] = (
    ((1e6, 1e-3), (135e6, 3e-5), (7e9, 1e-5)),
    ((1e6, 1.5e-3), (135e6, 1e-3), (1.7e9, 3e-4), (7e9, 5e-5)),
)


def usual(parameters: float, rl: bool, adapters: bool = False) -> tuple[float, float]:
    """The learning rates between which those lie that are used for a model of so many parameters.

    >>> [[float(f"{rate:.1g}") for rate in usual(count, rl=True)] for count in (1e6, 135e6, 7e9)]
    [[0.0001, 0.0007], [4e-06, 2e-05], [1e-06, 5e-06]]
    >>> usual(1e6, rl=False)
    (0.001, 0.0015)
    """
    more = ADAPTERS if adapters else 1
    low, high = (_between(known, parameters) * more for known in (RL_RATES if rl else SUPERVISED_RATES))
    return low, high


def _between(known: Known, parameters: float) -> float:
    """On the straight lines between the logarithms of what is known; beyond its ends what stands there."""
    for (size, rate), (larger, other) in pairwise(known):
        if parameters < larger:
            share = max(0.0, math.log(parameters / size) / math.log(larger / size))
            return rate * (other / rate) ** share
    return known[-1][1]


def highest(parameters: float, rl: bool, adapters: bool = False) -> float:
    """The learning rate that is high for a model of so many parameters.

    >>> [float(f"{highest(count, rl=True):.1g}") for count in (1e6, 135e6, 1.5e9, 7e9)]
    [0.001, 5e-05, 1e-05, 1e-05]
    >>> [float(f"{highest(count, rl=False):.1g}") for count in (1e6, 135e6, 7e9)]
    [0.01, 0.001, 0.0003]
    """
    millions = max(parameters / 1e6, 1.0)
    bound = max(1e-5, 1e-3 * millions**-0.63) if rl else max(1e-4, 1e-2 * millions**-0.4)
    return bound * (ADAPTERS if adapters else 1)


def advice(kind: str, config: Mapping[str, Any], parameters: float | None, so_far: str = "") -> str | None:
    """What there is to say against the learning rate of a stage; None where there is nothing. A model of unknown size
    is taken for one of a million parameters. `so_far` goes beside the rate.

    >>> advice("grpo", {"learning_rate": 1e-4}, 1.5e9)
    'learning_rate 0.0001 is high for RL of 1.5 billion parameters: policies collapse there; 1e-06 to 5e-06 is usual'
    """
    rate, rl = config.get("learning_rate"), kind in RL_KINDS
    if not isinstance(rate, (int, float)) or not (rl or kind in SUPERVISED_KINDS):
        return None
    adapters = config.get("lora") is not None
    bound = highest(parameters or 1e6, rl, adapters)
    if rate < bound * 0.999:
        return None
    low, high = usual(parameters or 1e6, rl, adapters)
    what = f"{'RL' if rl else 'training'}{' with adapters' if adapters else ''}"
    size = f" of {show_count(parameters)} parameters" if parameters else ""
    why = "policies collapse there" if rl else "what the model knows is lost there"
    return f"learning_rate {rate:g} is high for {what}{size}{so_far}: {why}; {low:.2g} to {high:.2g} is usual"


def show_count(count: float) -> str:
    """A number of parameters for the eye.

    >>> show_count(1_540_000_000), show_count(134_515_008), show_count(1_018_000), show_count(52_000)
    ('1.5 billion', '135 million', '1 million', '52 thousand')
    """
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if count >= size:
            return f"{count / size:.2g} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"
