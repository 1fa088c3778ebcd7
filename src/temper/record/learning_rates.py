"""What learning rates models of a size bear: bounds for advice, from what is reported to work.

RL of all weights: 1e-6 to 5e-6 from a billion parameters on (TRL's default and DAPO 1e-6, DeepSeek-R1 3e-6), 3e-4 to
7e-4 at a million (the shipped recipes; 1e-3 collapses). Supervised: 3e-4 at 1.7 billion and 1e-3 at 135 million
(SmolLM2), 1e-5 to 5e-5 at 7 billion (Open-R1). Between them straight lines of the logarithms. Adapters bear ten times
as much (LoRA Without Regret, 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temper.record.metrics import RL_KINDS

SUPERVISED_KINDS = ("sft", "distill")
ADAPTERS = 10


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
    low, high = (0.1, 0.5) if rl else (0.03, 0.3)
    what = f"{'RL' if rl else 'training'}{' with adapters' if adapters else ''}"
    size = f" of {show_count(parameters)} parameters" if parameters else ""
    why = "policies collapse there" if rl else "what the model knows is lost there"
    usual = f"{bound * low:.0e} to {bound * high:.0e} is usual"
    return f"learning_rate {rate:g} is high for {what}{size}{so_far}: {why}; {usual}"


def show_count(count: float) -> str:
    """A number of parameters for the eye.

    >>> show_count(1_540_000_000), show_count(134_515_008), show_count(1_018_000), show_count(52_000)
    ('1.5 billion', '135 million', '1 million', '52 thousand')
    """
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if count >= size:
            return f"{count / size:.2g} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"
