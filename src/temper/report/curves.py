"""Which curves a stage gets, chosen by the metrics it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temper.record.metrics import RL_KINDS
from temper.record.warnings import HIGHEST_KL
from temper.report.charts import Series, line_chart, stacked_chart

PASS_RATES = ("0–20 %", "20–40 %", "40–60 %", "60–80 %", "80–100 %")
LOSS = ("Loss", "loss", "nats a token")
JUDGED_LOSS = ("Loss", "loss", "nats a pair, reply or step")
NORM = ("Gradient norm", "gradient_norm", "before clipping")
RATE = ("Learning rate", "learning_rate")
SPEED = ("Speed", "tokens_per_second", "tokens a second")
ADVANTAGE = ("Advantage, standard deviation", "advantage/std")
CLIPPED = ("Clipped", "policy/clip_fraction", "share of tokens")
VALUE_LOSS = ("Value loss", "value/loss", "half the squared error of a return")
MISMATCH = ("Sampler against trainer", "policy/mismatch_max", "largest difference of a log-prob")
DRAWN = tuple(name for _, name, *_ in (LOSS, NORM, RATE, SPEED))
RL_DRAWN = (
    *DRAWN, *(name for _, name, *_ in (ADVANTAGE, CLIPPED, VALUE_LOSS, MISMATCH)), "advantage/mean",
    "completion/length", "completion/truncated", "groups/dead", "groups/pass_rate", "policy/kl_divergence",
    "policy/entropy", "reflection_words", "value/explained_variance",
)  # fmt: skip
QUIET = ("step", "of", "seconds", "cpu_seconds", "memory/", "policy/parameters", "reward/")  # told elsewhere
Metrics = Mapping[str, Sequence[Any]]  # columns, as `gather` gives them


def points(metrics: Metrics, name: str) -> tuple[tuple[float, float], ...]:
    """(step, value) wherever the metric is a number."""
    pairs = zip(metrics.get("step", ()), metrics.get(name, ()), strict=False)
    return tuple((x, y) for x, y in pairs if isinstance(y, (int, float)) and not isinstance(y, bool))


def main_curves(kind: str, metrics: Metrics) -> list[str]:
    """The figures that tell how the stage went."""
    if kind in RL_KINDS:
        charts = rl_curves(metrics)
    else:
        loss = JUDGED_LOSS if kind == "reward_model" else LOSS
        charts = [_single(metrics, *curve) for curve in (loss, NORM, RATE)] + other_curves(metrics, DRAWN)
    return [chart for chart in charts if chart]


def rl_curves(metrics: Metrics) -> list[str]:
    parts = [name for name in metrics if name.startswith("reward/") and name != "reward/total"]
    shares = metrics.get("groups/pass_rate", ())
    rates = [(x, y) for x, y in zip(metrics.get("step", ()), shares, strict=False) if isinstance(y, list)]

    def one(title: str, name: str, unit: str, **more: Any) -> str:
        return _single(metrics, title, name, unit, **more)

    return [
        one("Reward, total", "reward/total", unit="weighted sum"),
        line_chart(
            "Reward, by component",
            [Series(name.removeprefix("reward/").replace("_", " "), points(metrics, name)) for name in parts],
            unit="mean, unweighted",
            y_to=1.0,
        ),
        one("Completion length", "completion/length", unit="tokens", y_from=None),
        one(
            "KL to the reference",
            "policy/kl_divergence",
            unit="nats a token",
            limit=HIGHEST_KL,
            limit_label=f"{HIGHEST_KL}: drift",
        ),
        one("Dead groups", "groups/dead", unit="share of groups with equal rewards", y_to=1.0),
        stacked_chart("Pass rate of the groups", PASS_RATES, rates),
        one("Entropy", "policy/entropy", unit="nats a token"),
        one("Reflection words", "reflection_words", unit="per completion"),
        one("Truncated", "completion/truncated", unit="share of completions"),
        one("Reward of a step", "steps/reward", unit="weighted sum, mean over steps"),
        one("Steps", "steps/count", unit="per completion"),
        one("Value model, explained variance", "value/explained_variance", unit="share of that of the returns"),
    ]


def other_curves(metrics: Metrics, drawn: Sequence[str]) -> list[str]:
    """A figure for every metric that is a number and has none yet, under its own name: what a kind of stage that this
    file does not know has to tell."""
    names = [name for name in metrics if name not in drawn and not name.startswith(QUIET)]
    return [_single(metrics, name, name, y_from=None) for name in names]


def more_curves(kind: str, metrics: Metrics) -> list[str]:
    """What one looks at when something is wrong."""
    if kind not in RL_KINDS:
        charts = [_single(metrics, *SPEED)]
    else:
        loss = _single(metrics, "Loss", "loss", "about 0 by construction at one update a rollout", y_from=None)
        others = (ADVANTAGE, CLIPPED, VALUE_LOSS, MISMATCH, NORM, RATE, SPEED)
        charts = [loss, *(_single(metrics, *curve) for curve in others)]
        charts += other_curves(metrics, RL_DRAWN)
    return [chart for chart in charts if chart]


def _single(metrics: Metrics, title: str, name: str, unit: str = "", **more: Any) -> str:
    smoothed = name != "learning_rate"  # a schedule has no noise, and its corners should show
    return line_chart(title, [Series("", points(metrics, name))], unit=unit, smoothed=smoothed, **more)
