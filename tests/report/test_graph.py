"""The pipeline picture puts every stage somewhere of its own, right of what it reads, whatever the recipe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from temper.report.charts import Series, line_chart, nice_ticks
from temper.report.graph import Edge, Node, cells, columns, pipeline_svg


@st.composite
def pipelines(draw) -> tuple[list[Node], list[Edge]]:
    count = draw(st.integers(1, 9))
    makes = st.sampled_from(["model", "dataset"])
    nodes = [Node(f"s{i}", draw(st.sampled_from(["sft", "grpo", "sample"])), draw(makes)) for i in range(count)]
    pairs = [(i, j) for j in range(count) for i in range(j)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
    edges = [Edge(f"s{i}", f"s{j}", "data" if nodes[i].makes == "dataset" else "model") for i, j in chosen]
    return nodes, edges


@given(pipelines())
def test_every_stage_has_its_own_place_right_of_what_it_reads(pipeline):
    nodes, edges = pipeline
    place = cells(nodes, columns(nodes, edges))
    assert len(set(place.values())) == len(nodes)
    assert all(place[edge.source][0] < place[edge.target][0] for edge in edges)
    svg = pipeline_svg(nodes, edges)
    assert all(f">{node.name}</text>" in svg for node in nodes)


def test_evaluations_stand_last_and_circles_do_not_hang():
    nodes = [Node("report", "evaluate", "evaluation"), Node("a", "sft", "model"), Node("b", "sft", "model")]
    column = columns(nodes, [Edge("a", "b", "model"), Edge("b", "a", "model"), Edge("a", "report", "model")])
    assert column["report"] > max(column["a"], column["b"])


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_ticks_cover_the_data_and_stay_few(low, span):
    high = low + span
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 12
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=50))
def test_any_finite_series_draws_with_finite_coordinates(values):
    svg = line_chart("x", [Series("", tuple(enumerate(map(float, values), 1)))])
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_series_of_one_point_draws_nothing():
    assert line_chart("x", [Series("", ((1, 1.0),))]) == ""
