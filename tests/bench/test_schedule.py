"""The simulator of a run's schedule: turns are sums, one step off hides the shorter half, staleness keeps its bound."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))

from schedule import Machines, foretold, long_tailed, simulate, told

STEPS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=6)
MACHINES = st.builds(
    Machines, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.5, 1.0]),
    st.sampled_from([0.0, 0.25]), st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.0, 3.0]),
)  # fmt: skip


@given(STEPS, MACHINES, st.integers(0, 3))
def test_nothing_is_faster_than_what_it_has_to_do_and_no_sample_older_than_allowed(steps, machines, staleness):
    found = simulate(lambda n: steps[n], len(steps), machines, staleness)
    total = found.seconds * len(steps)
    trained = sum(map(sum, steps)) * machines.token / machines.trainers
    longest = max(map(max, steps)) * (machines.base + machines.row)
    drawn = sum(map(sum, steps)) * (machines.base / machines.rows + machines.row) / machines.samplers
    slack = 1e-3 * len(steps)
    assert total >= max(trained + len(steps) * machines.transfer, longest, drawn) - slack
    assert found.staleness <= min(staleness, len(steps) - 1)
    assert found.trainer_idle == pytest.approx(1 - trained / total, abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=8))
def test_in_turns_a_step_is_the_sum_and_one_step_off_hides_the_shorter(steps):
    """Of one completion at a time the schedule can be written down."""
    sampling, training = [float(s) for s, _ in steps], [float(t) for _, t in steps]
    turns, off = foretold(sampling, training)
    count = len(steps)
    assert turns == pytest.approx(sum(sampling + training) / count, abs=2e-3)
    drawn, done = 0.0, [0.0, 0.0]
    for seconds, update in zip(sampling, training, strict=True):
        drawn = max(drawn, done[-2]) + seconds  # once the one before is drawn, and the one before that trained on
        done.append(max(drawn, done[-1]) + update)
    assert off == pytest.approx(done[-1] / count, abs=2e-3)


def test_a_long_tail_bounds_turns_and_not_what_runs_ahead():
    lengths = long_tailed(16, 8, 2000, 0.8, 16384)
    few, many = (simulate(lengths, 6, Machines(n, n)).seconds for n in (4, 64))
    longest = sum(max(lengths(n)) for n in range(6)) / 6 * 0.012
    assert many > longest
    assert many > 0.5 * few  # sixteen times as many do not halve it
    assert simulate(lengths, 6, Machines(32, 32), 4).seconds < 0.7 * many


def test_a_run_that_took_turns_is_told_what_one_step_off_would_make_of_it(tmp_path):
    rows = [{"step": n, "seconds": 5.0, "seconds/sampling": 3.0} for n in range(1, 5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert told(tmp_path) == "measured 5.00 s a step; in turns 5.00, one step off 3.50: 1.43 times as fast"
