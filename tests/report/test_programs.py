"""Programs in lists, on the page and in a diagnosis: verdict, program and failing test, escaped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from temper.commands.samples import render
from temper.report.completions import card
from temper.report.explain import render as render_explained
from temper.report.programs import facts, program_card, verdict_tables, verdict_trend

ROW = {
    "stage": "rl", "prompt_id": "p:1", "sample": 0, "prompt": "Double it.", "gold": None, "reply": "…", "total": 0.0,
    "rewards": {"code": 0.0}, "tokens": 3,
    "code": {"verdict": "wrong", "passed": 1, "program": "print('<b>')\nprint(\x1b)", "failing": {
        "test": 2, "input": "2\n3", "expected": "<4>", "got": "<script>", "error": ""}},
}  # fmt: skip
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=8), of, max_size=3),
    max_leaves=6,
)


def test_a_sample_shows_program_verdict_and_failing_test_without_control_characters():
    text = render(ROW)
    for part in ("wrong (test 2)", "print('<b>')", "expected <4>", "got     <script>"):
        assert part in text
    assert "\x1b" not in text


def test_the_page_escapes_all_of_it():
    text = card("rl", "programs", ROW)
    assert "&lt;script&gt;" in text
    assert "&lt;4&gt;" in text
    assert "wrong (test 2)" in text
    assert "<script>" not in text
    assert "<b>'" not in text
    assert "\x1b" not in text


def test_a_program_that_printed_nothing_says_so():
    silent = {"code": {"verdict": "wrong", "program": "pass", "failing": {"test": 1, "expected": "4", "got": ""}}}
    assert ("got", "") in facts(silent)


@given(st.dictionaries(st.sampled_from(["verdict", "passed", "program", "failing"]), junk) | junk)
def test_whatever_stands_in_a_row_is_shown_or_left_out(code: object):
    assert isinstance(program_card({"code": code}), str)
    assert isinstance(render({**ROW, "code": code}), str)


def test_shares_of_verdicts_are_a_table_and_lines_of_a_diagnosis():
    rows = [{"code/passed": 0.0, "code/wrong": 1.0, "code/memory": 0.0}, {"code/passed": 0.5, "code/wrong": 0.5}]
    columns = {"step": [1, 2], "code/passed": [0.0, 0.5], "code/wrong": [1.0, 0.5], "code/memory": [0.0, None]}
    models = [{"stage": "rl", "tasks": {"<p>": {"verdicts": {"code/no_code": 1.0, "code/wrong": 0.0}}, "sums": {}}}]
    text = verdict_tables([{"name": "rl", "metrics": columns}], models)
    assert "rl, last steps" in text
    assert "no code" in text
    assert "held-out &lt;p&gt;" in text
    assert "memory" not in text
    assert verdict_tables([{"name": "rl", "metrics": {"step": [1]}}], []) == ""
    stage = {"stage": "rl", "kind": "GRPO", "step": 2, "of": 2, "flat": False, "trend": {}, "findings": []}
    assert "programs passed        0.00 -> 0.50" in render_explained({**stage, "verdicts": verdict_trend(rows)})
