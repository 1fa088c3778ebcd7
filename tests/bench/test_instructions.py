"""Instructions of the hot loops: a loop that got slower is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import instructions


@pytest.mark.parametrize(
    ("counts", "told"), [({"a": 105}, 0), ({"a": 106}, 1), ({"a": 90}, 0), ({"b": 10**9}, 0), ({"a": 200, "c": 20}, 2)]
)
def test_growth_beyond_five_percent_is_told(counts: dict[str, int], told: int) -> None:
    assert len(instructions.grown(counts, {"a": 100, "c": 10})) == told


@pytest.mark.skipif(instructions.possible() != "", reason="needs gcc and valgrind on x86-64")
def test_a_loop_counts_alike_each_time(tmp_path: Path) -> None:
    first, second = (instructions._count(tmp_path, "LAYERS", rows) for rows in (16, 16))
    assert 0 < first == second
    assert instructions._count(tmp_path, "LAYERS", 32) > first
