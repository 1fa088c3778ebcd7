"""Charts as inline SVG: no script, no external request. Colours are CSS variables, so light, dark and print agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from temper.record.lines import number

WIDTH, HEIGHT = 360, 196
LEFT, TOP, BOTTOM = 42, 12, 34
LABEL_WIDTH = 6.3  # of one character at the label size, for margins
MOST_POINTS = 240
COLOURS = 6  # --c1 … --c6 in the style sheet

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line: its label and its (x, y) points, x rising, every number finite."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axis:
    """A linear axis: data range, pixel range, where the ticks stand."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round numbers that cover [low, high], about `count` of them.

    >>> nice_ticks(0, 1), nice_ticks(3, 61)
    ((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 20.0, 40.0, 60.0, 80.0))
    """
    size = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * size else size or 1.0
    raw = max(span / max(1, count), 1e-300)  # the logarithm of what is smaller is none
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(float(f"{i * step:.10g}") for i in range(first, max(last, first + 1) + 1))


def tick_text(value: float) -> str:
    """A tick label.

    >>> [tick_text(v) for v in (0.2, 40.0, 14000, 0.00025, 2e-06, 0.0)]
    ['0.2', '40', '14k', '2.5e-4', '2e-6', '0']
    """
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:g}"


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` points: means of equal runs, the x of each run's last point.

    >>> thin([(1, 1), (2, 3), (3, 5), (4, 7)], most=2)
    ((2, 2.0), (4, 6.0))
    """
    if len(points) <= most:
        return tuple(points)
    cuts = [round(i * len(points) / most) for i in range(most + 1)]
    runs = [points[a:b] for a, b in pairwise(cuts)]
    return tuple((run[-1][0], sum(y for _, y in run) / len(run)) for run in runs)


def smooth(points: Sequence[Point], window: int) -> tuple[Point, ...]:
    """Centred moving mean; the window shrinks at both ends, so no point is made up.

    >>> smooth([(1, 0.0), (2, 3.0), (3, 6.0)], window=3)
    ((1, 0.0), (2, 3.0), (3, 6.0))
    """
    half = window // 2
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        near = points[i - reach : i + reach + 1]
        out.append((x, sum(y for _, y in near) / len(near)))
    return tuple(out)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    unit: str = "",
    x_label: str = "step",
    y_from: float | None = 0.0,
    y_to: float | None = None,
    limit: float | None = None,
    limit_label: str = "",
    smoothed: bool = True,
) -> str:
    """A figure with one line a series, its last value at its end; a single series shows its raw course as well.

    `y_from`/`y_to` widen the y axis to at least that value (None: to the data). `limit` draws a dashed line.
    Returns "" when no series has two points.
    """
    drawn = [Series(s.label, thin(s.points)) for s in series if len(s.points) > 1]
    if not drawn:
        return ""
    right = max(len(number(s.points[-1][1])) for s in drawn) * LABEL_WIDTH + 12
    x_axis, y_axis = _axes(drawn, right, y_from, y_to, limit)
    parts = [_grid(x_axis, y_axis, x_label)]
    if limit is not None:
        y = y_axis.at(limit)
        parts.append(f'<line class="limit" x1="{x_axis.start:.1f}" x2="{x_axis.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="limit-label" x="{x_axis.start + 4:.1f}" y="{y - 4:.1f}">{escape(limit_label)}</text>'
        )
    for index, one in enumerate(drawn):
        parts.append(_line(one, index, x_axis, y_axis, smoothed, alone=len(drawn) == 1))
    parts.append(_end_labels(drawn, x_axis, y_axis))
    parts.append(_hover(drawn, x_axis, y_axis, x_label))
    key = key_row([one.label for one in drawn]) if len(drawn) > 1 else ""
    return figure(title, unit, "".join(parts), _described(title, drawn), key=key)


def stacked_chart(title: str, labels: Sequence[str], columns: Sequence[tuple[float, Sequence[float]]]) -> str:
    """Shares that sum to 1 at each x, stacked; `columns` are (x, shares), one share a label. "" for fewer than two."""
    rows = [(x, shares) for x, shares in columns if len(shares) == len(labels) and sum(shares) > 0]
    if len(rows) < 2:
        return ""
    rows = rows[:: max(1, len(rows) // MOST_POINTS)]
    right = max(map(len, labels)) * LABEL_WIDTH + 12
    x_axis = Axis(rows[0][0], rows[-1][0], LEFT, WIDTH - right, _x_ticks(rows[0][0], rows[-1][0]))
    y_axis = Axis(0, 1, HEIGHT - BOTTOM, TOP, (0.0, 0.25, 0.5, 0.75, 1.0))
    parts, marks = [_grid(x_axis, y_axis, "step")], []
    floors = [0.0] * len(rows)
    for index, label in enumerate(labels):
        tops = [f + shares[index] / sum(shares) for f, (_, shares) in zip(floors, rows, strict=True)]
        upper = [(x_axis.at(x), y_axis.at(t)) for (x, _), t in zip(rows, tops, strict=True)]
        lower = [(x_axis.at(x), y_axis.at(f)) for (x, _), f in zip(rows, floors, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in upper + lower[::-1])
        parts.append(f'<polygon class="share s{index + 1}" points="{path}"><title>{escape(label)}</title></polygon>')
        marks.append(((upper[-1][1] + lower[-1][1]) / 2, label, f"share-label s{index + 1}"))
        floors = tops
    parts.append(_side_labels(marks[::-1], x_axis.end + 6))  # from the top: equal heights keep their order
    return figure(title, "share of groups", "".join(parts), title)


def figure(
    title: str,
    unit: str,
    inside: str,
    description: str,
    width: float = WIDTH,
    height: float = HEIGHT,
    key: str = "",
) -> str:
    """A titled <figure> around an SVG drawing; `key` stands under the title."""
    caption = f"<figcaption>{escape(title)}{f' <span>{escape(unit)}</span>' if unit else ''}</figcaption>"
    svg = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">{inside}</svg>'
    return f'<figure class="chart">{caption}{key}{svg}</figure>'


def whisker(value: float | None, interval: Sequence[float] | None, width: int = 88) -> str:
    """A number in [0, 1] as a dot on a line, its interval as a bar: a cell's picture.

    >>> whisker(None, None)
    ''
    """
    if value is None:
        return ""
    x = 3 + min(1.0, max(0.0, value)) * (width - 6)
    bar = ""
    if interval is not None and len(interval) == 2 and None not in interval:
        low, high = (3 + min(1.0, max(0.0, v)) * (width - 6) for v in interval)
        bar = f'<line class="range" x1="{low:.1f}" x2="{max(high, low + 0.5):.1f}" y1="5" y2="5"/>'
    rule = f'<line class="rule" x1="3" x2="{width - 3}" y1="5" y2="5"/>'
    dot = f'<circle cx="{x:.1f}" cy="5" r="2.6"/>'
    size = f'viewBox="0 0 {width} 10" width="{width}" height="10"'
    return f'<svg class="whisker" {size} aria-hidden="true">{rule}{bar}{dot}</svg>'


# -- parts of a chart -------------------------------------------------------------------------------------------------


def _axes(
    drawn: Sequence[Series], right: float, y_from: float | None, y_to: float | None, limit: float | None
) -> tuple[Axis, Axis]:
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    low = min(ys) if y_from is None else min(y_from, *ys)
    high = max(ys) if y_to is None else max(y_to, *ys)
    high = high if limit is None or limit > 20 * (high or 1) else max(high, limit)
    y_ticks = nice_ticks(low, high, 4)
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - right, _x_ticks(min(xs), max(xs)))
    return x_axis, Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, y_ticks)


def _x_ticks(low: float, high: float) -> tuple[float, ...]:
    inside = [t for t in nice_ticks(low, high, 5) if low <= t <= high and t == int(t)]
    return tuple(inside) or (low, high)


def _grid(x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    parts = []
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line class="grid" x1="{x_axis.start:.1f}" x2="{x_axis.end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{x_axis.start - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick)}</text>'
        )
    base = y_axis.at(y_axis.low)
    for tick in x_axis.ticks:
        x = x_axis.at(tick)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{base:.1f}" y2="{base + 4:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{base + 17:.1f}" text-anchor="middle">{tick_text(tick)}</text>'
        )
    parts.append(f'<line class="base" x1="{x_axis.start:.1f}" x2="{x_axis.end:.1f}" y1="{base:.1f}" y2="{base:.1f}"/>')
    middle = (x_axis.start + x_axis.end) / 2
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _path(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    return " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)


def _line(one: Series, index: int, x_axis: Axis, y_axis: Axis, smoothed: bool, alone: bool) -> str:
    colour = f"c{index % COLOURS + 1}"
    window = max(3, len(one.points) // 10) | 1
    if len(one.points) < 8 or not smoothed:
        return f'<polyline class="line {colour}" points="{_path(one.points, x_axis, y_axis)}"/>'
    raw = f'<polyline class="raw {colour}" points="{_path(one.points, x_axis, y_axis)}"/>' if alone else ""
    return f'{raw}<polyline class="line {colour}" points="{_path(smooth(one.points, window), x_axis, y_axis)}"/>'


def key_row(labels: Sequence[str]) -> str:
    """The name of each line beside a piece of it."""
    names = []
    for index, label in enumerate(labels):
        sample = f'<polyline class="line c{index % COLOURS + 1}" points="0,4 18,4"/>'
        names.append(f'<span><svg viewBox="0 0 18 8" aria-hidden="true">{sample}</svg>{escape(label)}</span>')
    return f'<p class="key-row">{"".join(names)}</p>'


def _end_labels(drawn: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    marks = [
        (y_axis.at(s.points[-1][1]), number(s.points[-1][1]), f"end c{i % COLOURS + 1}") for i, s in enumerate(drawn)
    ]
    return _side_labels(marks, x_axis.end + 6)


def _side_labels(marks: Sequence[tuple[float, str, str]], x: float, gap: float = 13) -> str:
    """Labels right of the plot at the heights given, pushed apart where they would overlap."""
    ordered = sorted(marks, key=lambda mark: mark[0])
    heights: list[float] = []
    for y, _, _ in ordered:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    overflow = heights[-1] - (HEIGHT - BOTTOM) if heights else 0.0
    for i in range(len(heights) - 1, -1, -1):  # too low: push back up
        ceiling = HEIGHT - BOTTOM if i == len(heights) - 1 else heights[i + 1] - gap
        heights[i] = min(heights[i], ceiling) if overflow > 0 else heights[i]
    return "".join(
        f'<text class="{css}" x="{x:.1f}" y="{y + 4:.1f}">{escape(label)}</text>'
        for y, (_, label, css) in zip(heights, ordered, strict=True)
    )


def _hover(drawn: Sequence[Series], x_axis: Axis, y_axis: Axis, x_label: str) -> str:
    """Invisible columns whose <title> tells the values there: a tooltip without script."""
    values: dict[float, list[str]] = {}
    for one in drawn:
        for x, y in thin(one.points, 80):
            values.setdefault(x, []).append(f"{one.label} {number(y)}" if one.label else number(y))
    xs = sorted(values)
    width = (x_axis.end - x_axis.start) / max(1, len(xs))
    height = y_axis.start - y_axis.end
    return "".join(
        f'<rect class="hit" x="{x_axis.at(x) - width / 2:.1f}" y="{y_axis.end:.0f}" width="{width:.1f}" '
        f'height="{height:.0f}"><title>{escape(x_label)} {x:g}: {escape(", ".join(values[x]))}</title></rect>'
        for x in xs
    )


def _described(title: str, drawn: Sequence[Series]) -> str:
    ends = [f"{s.label} {number(s.points[0][1])} to {number(s.points[-1][1])}".strip() for s in drawn]
    return f"{title}: {', '.join(ends)}"
