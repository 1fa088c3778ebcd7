"""The table at the end of a run: every model and claim, aligned, in any width and encoding."""

from __future__ import annotations

import re

import pytest

from temper.report.gather import gather
from temper.report.table import render


@pytest.fixture(scope="module")
def data(finished_run) -> dict:
    return gather(finished_run)


def test_every_model_has_a_row_and_every_claim_its_verdict(data):
    lines = render(data, encoding="utf-8").splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert re.search(r"final_rl\s+0\.958 ±0\.02\s+0\.998\s+0\.988\s+0\.930 ±0\.04\s+0\.020\s+42$", rows["final_rl"])
    assert sum(line.startswith("✓ ") for line in lines) == 6
    assert sum(line.startswith("✗ ") for line in lines) == 1
    assert lines[-1] == "6 of 7 claims hold"


def test_columns_are_aligned(data):
    lines = render(data, encoding="utf-8").split("\n\n")[0].splitlines()
    starts = [[match.start() for match in re.finditer(r"(?<=  )\S", line)] for line in lines]
    assert len({tuple(s[:4]) for s in starts}) == 1


@pytest.mark.parametrize("width", [20, 40, 60, 79, 200])
def test_a_narrow_terminal_gets_one_block_a_model(data, width):
    table = render(data, width=width, encoding="utf-8").split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= max(width, 34)
    assert all(stage in table for stage in ("base", "cold_start", "reasoning_rl", "second_sft", "final_rl"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_signs_fall_back_where_the_encoding_lacks_them(data, encoding):
    text = render(data, encoding=encoding)
    text.encode(encoding)
    assert "wanted >= 0.92" in text


def test_colour_changes_nothing_but_colour(data):
    coloured = render(data, color=True, encoding="utf-8")
    assert re.sub(r"\x1b\[[0-9]+m", "", coloured) == render(data, encoding="utf-8")
    assert "\x1b[" not in render(data, encoding="utf-8")


def test_an_evaluation_without_models_or_claims_is_an_empty_table():
    assert render({"models": [], "claims": []}) == ""
