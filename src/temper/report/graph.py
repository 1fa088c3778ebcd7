"""The pipeline as a picture: stages are boxes, references are lines (a model solid, data dashed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN, SIDE = 136, 62, 40, 40, 14, 1
BUS_FROM = 3  # a data set with this many readers is drawn as one line with branches
ARC = 24
STATE_MARKS = {"done": "✓", "cached": "✓", "running": "…", "failed": "✗"}


@dataclass(frozen=True)
class Node:
    """A stage: what it makes decides its lane, `detail` is its second and third line."""

    name: str
    kind: str
    makes: Literal["model", "dataset", "evaluation"]
    detail: tuple[str, ...] = ()
    state: str = ""


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    carries: Literal["model", "data"]


def columns(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, int]:
    """The column of each node: one right of everything it reads; evaluations stand last. Cycles are cut.

    >>> a, b, c = Node("a", "sft", "model"), Node("b", "grpo", "model"), Node("c", "sample", "dataset")
    >>> columns([a, b, c], [Edge("a", "b", "model"), Edge("b", "c", "model")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    names = {node.name for node in nodes}
    reads: dict[str, list[str]] = {name: [] for name in names}
    for edge in edges:
        if edge.source in names and edge.target in names:
            reads[edge.target].append(edge.source)
    found: dict[str, int] = {}

    def place(name: str, above: frozenset[str]) -> int:
        if name not in found:
            sources = [place(s, above | {name}) for s in reads[name] if s not in above and s != name]
            found[name] = max(sources, default=-1) + 1
        return found[name]

    for node in nodes:
        place(node.name, frozenset())
    last = max((found[n.name] for n in nodes if n.makes != "evaluation"), default=-1)
    evaluated = {n.name: last + 1 for n in nodes if n.makes == "evaluation"}
    return {node.name: evaluated.get(node.name, found[node.name]) for node in nodes}


def cells(nodes: Sequence[Node], column: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """(column, row) of each node: models and evaluations from the top, data sets below them."""
    taken: set[tuple[int, int]] = set()
    placed: dict[str, tuple[int, int]] = {}
    trunk = [node for node in nodes if node.makes != "dataset"]
    for lane in (trunk, [node for node in nodes if node.makes == "dataset"]):
        floor = 1 + max((row for _, row in placed.values()), default=0) if lane is not trunk and placed else 0
        for node in lane:
            row = floor
            while (column[node.name], row) in taken:
                row += 1
            taken.add((column[node.name], row))
            placed[node.name] = (column[node.name], row)
    return placed


def pipeline_svg(nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """The picture, "" for no nodes. Evaluations are joined to the last model only: their box says what they read."""
    if not nodes:
        return ""
    place = cells(nodes, columns(nodes, edges))
    edges = [e for e in edges if e.source in place and e.target in place]
    makes = {node.name: node.makes for node in nodes}
    shared = {n for n in place if sum(e.source == n and e.carries == "data" for e in edges) >= BUS_FROM}
    top = MARGIN + ARC * _arcs_above(edges, place, makes)
    rows = max(row for _, row in place.values()) + 1
    height = top + rows * BOX_H + (rows - 1) * GAP_Y + MARGIN + (16 * len(shared))
    width = 2 * SIDE + (max(c for c, _ in place.values()) + 1) * (BOX_W + GAP_X) - GAP_X
    corner = {n: (SIDE + c * (BOX_W + GAP_X), top + r * (BOX_H + GAP_Y)) for n, (c, r) in place.items()}
    lines = [_bus(n, [e.target for e in edges if e.source == n], corner, height - MARGIN - 4) for n in sorted(shared)]
    above = 0
    for edge in _drawn(edges, makes, shared):
        (c0, r0), (c1, r1) = place[edge.source], place[edge.target]
        if r0 == r1 == 0 and c1 - c0 > 1:
            above += 1
            lines.append(_arc(edge, corner, top - ARC * above))
        else:
            lines.append(_straight(edge, corner))
    boxes = "".join(_box(node, corner[node.name]) for node in nodes)
    label = escape("pipeline: " + "; ".join(f"{e.source} to {e.target} ({e.carries})" for e in edges))
    size = f'viewBox="0 0 {width} {height}" style="min-width:{width * 0.78:.0f}px;max-width:{width * 1.1:.0f}px"'
    svg = f'<svg class="pipeline" {size} role="img" aria-label="{label}">'
    return f"{svg}{_heads()}{''.join(lines)}{boxes}</svg>"


def _drawn(edges: Sequence[Edge], makes: Mapping[str, str], shared: set[str]) -> list[Edge]:
    """The edges drawn one by one: no bus edges, and of an evaluation's models only the last."""
    kept: list[Edge] = []
    for edge in edges:
        if edge.source in shared and edge.carries == "data":
            continue
        if makes[edge.target] == "evaluation":
            kept = [e for e in kept if e.target != edge.target]
        kept.append(edge)
    return kept


def _arcs_above(edges: Sequence[Edge], place: Mapping[str, tuple[int, int]], makes: Mapping[str, str]) -> int:
    return sum(
        place[e.source][1] == place[e.target][1] == 0 and place[e.target][0] - place[e.source][0] > 1
        for e in _drawn(edges, makes, set())
    )


def _heads() -> str:
    """Arrow heads, one a line style."""
    shape = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    return (
        "<defs>"
        + "".join(
            f'<marker id="head-{kind}" {shape}><path class="head {kind}" d="M0,0.5 L7.5,4 L0,7.5 z"/></marker>'
            for kind in ("model", "data")
        )
        + "</defs>"
    )


def _path(carries: str, d: str) -> str:
    return f'<path class="edge {carries}" d="{d}" marker-end="url(#head-{carries})"/>'


def _straight(edge: Edge, corner: Mapping[str, tuple[float, float]]) -> str:
    (x0, y0), (x1, y1) = corner[edge.source], corner[edge.target]
    x0, y0, y1 = x0 + BOX_W, y0 + BOX_H / 2, y1 + BOX_H / 2
    bend = max(18.0, (x1 - x0) / 2)
    return _path(edge.carries, f"M{x0},{y0} C{x0 + bend:.1f},{y0} {x1 - bend:.1f},{y1} {x1 - 1},{y1}")


def _arc(edge: Edge, corner: Mapping[str, tuple[float, float]], y: float) -> str:
    """Over the boxes in between: up, along, down."""
    (x0, y0), (x1, y1) = corner[edge.source], corner[edge.target]
    x0, x1 = x0 + BOX_W * 0.72, x1 + BOX_W * 0.28
    d = f"M{x0:.1f},{y0} C{x0:.1f},{y:.1f} {x0 + 6:.1f},{y:.1f} {x0 + 26:.1f},{y:.1f} L{x1 - 26:.1f},{y:.1f} "
    return _path(edge.carries, f"{d}C{x1 - 6:.1f},{y:.1f} {x1:.1f},{y:.1f} {x1:.1f},{y1 - 1}")


def _bus(source: str, targets: Sequence[str], corner: Mapping[str, tuple[float, float]], y: float) -> str:
    """One line under everything, with a branch up to each reader."""
    x0, y0 = corner[source][0] + BOX_W / 2, corner[source][1] + BOX_H
    ends = sorted({(corner[t][0] + BOX_W / 2, corner[t][1] + BOX_H) for t in targets})
    far = max(x for x, _ in ends)
    trunk = f'<path class="edge data" d="M{x0},{y0} L{x0},{y} L{far},{y}"/>'
    return trunk + "".join(_path("data", f"M{x},{y} L{x},{top + 1}") for x, top in ends)


def _box(node: Node, at: tuple[float, float]) -> str:
    x, y = at
    mark = STATE_MARKS.get(node.state, "")
    state = f'<text class="state" x="{BOX_W - 10}" y="20" text-anchor="end">{mark}</text>' if mark else ""
    details = "".join(
        f'<text class="detail" x="14" y="{36 + 15 * i}">{escape(line)}</text>' for i, line in enumerate(node.detail[:2])
    )
    name = node.name if len(node.name) <= 16 else node.name[:15] + "…"
    title = f"<title>{escape(node.name)}: {escape(node.kind)}, {escape(node.state or 'not run')}</title>"
    waiting = "" if node.state in ("done", "cached") else " waiting"
    return (
        f'<g class="stage k-{escape(node.kind)}{waiting}" transform="translate({x},{y})">{title}'
        f'<rect class="box" width="{BOX_W}" height="{BOX_H}" rx="7"/>'
        f'<rect class="strip" width="4" height="{BOX_H - 14}" x="0" y="7" rx="2"/>'
        f'<text class="name" x="14" y="20">{escape(name)}</text>{state}{details}</g>'
    )
