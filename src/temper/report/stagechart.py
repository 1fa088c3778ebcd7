"""The story of a run in one picture: how each score moves from stage to stage, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from temper.report.charts import COLOURS, LABEL_WIDTH, Axis, figure, key_row, tick_text

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LABEL_GAP = 980, 310, 40, 18, 34, 15
Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """One line: a score in [0, 1] a stage, None where it was not measured, and intervals where they are known."""

    label: str
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...]


def stage_chart(title: str, stages: Sequence[str], scores: Sequence[Score]) -> str:
    """A figure with the stages along the bottom and one line a score; "" for fewer than two stages."""
    scores = [score for score in scores if sum(value is not None for value in score.values) > 1]
    if len(stages) < 2 or not scores:
        return ""
    right = max(len(f"{score.label} 0.00") for score in scores) * (LABEL_WIDTH + 0.7) + 18
    end = WIDTH - right
    x_axis = Axis(0, len(stages) - 1, LEFT + 44, end - 16, tuple(range(len(stages))))
    y_axis = Axis(0, 1, HEIGHT - BOTTOM, TOP, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    parts = [_frame(stages, x_axis, y_axis, end)]
    labels: list[tuple[float, float, str, str]] = []
    for index, score in enumerate(scores):
        colour = f"c{index % COLOURS + 1}"
        shift = (index - (len(scores) - 1) / 2) * 5  # intervals side by side, not on top of each other
        parts.append(_score(score, colour, shift, x_axis, y_axis))
        last = max(i for i, value in enumerate(score.values) if value is not None)
        value = score.values[last] or 0.0
        labels.append((y_axis.at(value), value, score.label, colour))
    parts.append(_labels(labels, end + 4))
    spoken = "; ".join(f"{s.label}: {', '.join('-' if v is None else f'{v:.2f}' for v in s.values)}" for s in scores)
    key = f'<div class="narrow">{key_row([score.label for score in scores])}</div>'  # the labels are out of sight there
    return figure(title, "", "".join(parts), f"{', '.join(stages)}. {spoken}", WIDTH, HEIGHT, key)


def _frame(stages: Sequence[str], x_axis: Axis, y_axis: Axis, end: float) -> str:
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>')
    for index, stage in enumerate(stages):
        x = x_axis.at(index)
        parts.append(
            f'<text class="stage-name" x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(stage)}</text>'
        )
    return "".join(parts)


def _score(score: Score, colour: str, shift: float, x_axis: Axis, y_axis: Axis) -> str:
    parts, path = [], []
    for index, (value, interval) in enumerate(zip(score.values, score.intervals, strict=True)):
        if value is None:
            continue
        x, y = x_axis.at(index) + shift, y_axis.at(value)
        path.append(f"{x:.1f},{y:.1f}")
        if interval is not None:
            low, high = (y_axis.at(bound) for bound in interval)
            parts.append(f'<line class="interval {colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        known = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
        title = f"<title>{escape(score.label)} {value:.3f}{known}</title>"
        parts.append(f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.2">{title}</circle>')
    return f'<polyline class="line {colour}" points="{" ".join(path)}"/>{"".join(parts)}'


def _labels(labels: Sequence[tuple[float, float, str, str]], x: float) -> str:
    """Names and last values at the right, pushed apart; nothing leaves the plot."""
    ordered = sorted(labels)
    heights: list[float] = []
    for y, *_ in ordered:
        heights.append(max(y, heights[-1] + LABEL_GAP) if heights else max(y, TOP))
    excess = max(0.0, heights[-1] - (HEIGHT - BOTTOM))
    return "".join(
        f'<text class="end {colour}" x="{x:.1f}" y="{y - excess + 4:.1f}">{escape(label)} '
        f'<tspan class="value">{value:.2f}</tspan></text>'
        for y, (_, value, label, colour) in zip(heights, ordered, strict=True)
    )
