"""Plain progress lines, `Step 10/60: reward/total 0.83  policy/kl_divergence 0.004 …`, thinned for long stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

# Shown in this order where a row has them; every reward comes first, its total before its parts.
SHOWN = (
    "loss",
    "accuracy",
    "margin",
    "held_out/loss",
    "held_out/accuracy",
    "advantage/mean",
    "advantage/std",
    "policy/kl_divergence",
    "completion/length",
    "completion/truncated",
    "groups/dead",
    "prompts/unverifiable",
    "value/explained_variance",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
)
RL_HIDES = ("loss", "learning_rate", "gradient_norm")  # say little in RL: its loss is about 0 by construction
NOT_SHOWN = ("step", "of", "seconds", "cpu_seconds")
MOST_LINES = 60


def number(value: Any) -> str:
    """A metric for the eye: about three digits.

    >>> [number(v) for v in (0.8312, 0.0042, 41.3, 14200.4, 3e-06, 0, None)]
    ['0.83', '0.004', '41', '14200', '3e-06', '0.00', '-']
    """
    if not isinstance(value, (int, float)) or value != value:
        return "-"
    size = abs(value)
    if size >= 10:
        return f"{value:.0f}"
    if size < 5e-8:
        return "0.00"
    if size >= 0.1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(80), duration(3725.2), duration(0.4)
    ('1:20', '1:02:05', '0:00')
    """
    minutes, second = divmod(int(max(0.0, seconds) + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def shown_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of `metrics` a progress line shows, in order; of stages that do not train, every number but times.

    >>> shown_metrics({"reward/accuracy": 1, "loss": 0, "groups/dead": 0, "reward/total": 1, "seconds": 2})
    ['reward/total', 'reward/accuracy', 'groups/dead']
    >>> shown_metrics({"step": 3, "kept": 120, "seconds": 2})
    ['kept']
    """
    rewards = [name for name in metrics if name.startswith("reward/") and name != "reward/total"]
    is_rl = "reward/total" in metrics
    rest = [name for name in SHOWN if name in metrics and not (is_rl and name in RL_HIDES)]
    if not rewards and not rest and not is_rl:
        return [name for name, value in metrics.items() if name not in NOT_SHOWN and isinstance(value, (int, float))]
    return [name for name in ("reward/total",) if is_rl] + rewards + rest


def step_line(step: int, total: int, metrics: Mapping[str, Any], eta: float | None = None) -> str:
    """One progress line.

    >>> step_line(10, 60, {"reward/total": 0.83, "tokens_per_second": 14200.0}, eta=80)
    'Step 10/60: reward/total 0.83  tokens/s 14200  ETA 1:20'
    """
    parts = [
        f"{'tokens/s' if name == 'tokens_per_second' else name} {number(metrics[name])}"
        for name in shown_metrics(metrics)
    ]
    if eta is not None:
        parts.append(f"ETA {duration(eta)}")
    return f"Step {step}/{total}: {'  '.join(parts)}".rstrip(": ")


def stride(total: int) -> int:
    """How many steps apart the lines of a stage of `total` steps stand: 1, 2, 5, 10, 20 …, at most 60 lines.

    >>> stride(60), stride(250), stride(500), stride(12_000)
    (1, 5, 10, 200)
    """
    scale = 1
    while True:
        for digit in (1, 2, 5):
            if total <= MOST_LINES * digit * scale:
                return digit * scale
        scale *= 10


def spark(values: Iterable[Any], width: int = 24, ascii_only: bool = False) -> str:
    """The last values of a series as one line of blocks, scaled to their own range; "" for fewer than two.

    >>> spark([0, 1, 2, 3, 7]), spark([0, 1, 2, 3], ascii_only=True)
    ('▁▂▃▄█', '.-+#')
    """
    series = [float(v) for v in values if isinstance(v, (int, float)) and v == v]
    if len(series) < 2 or width < 2:
        return ""
    if len(series) > width:  # mean of equal slices: the whole history stays in sight
        cuts = [round(i * len(series) / width) for i in range(width + 1)]
        series = [sum(series[a:b]) / (b - a) for a, b in pairwise(cuts)]
    blocks = ".-+#" if ascii_only else "▁▂▃▄▅▆▇█"
    low, high = min(series), max(series)
    span = (high - low) or 1.0
    return "".join(blocks[min(len(blocks) - 1, int((v - low) / span * len(blocks)))] for v in series)
