"""Process supervision's advantages are the paper's, written out in full, whatever the order of the completions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from temper.algorithms.advantages import EPSILON, standardised
from temper.algorithms.process import process_advantages

rewards = st.sampled_from([0.0, 1.0, 0.25, -1.0, 0.1])


@st.composite
def groups(draw):
    """(steps, lengths) of two to five completions, some without a step, some with two that end on one token."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    steps = [sorted(draw(st.lists(st.tuples(st.integers(0, length - 1), rewards), max_size=5))) for length in lengths]
    return steps, lengths


def written_out(steps, lengths):
    """A_it = Σ over the steps j of i with index(j) ≥ t of (r_j − mean(R)) / std(R), as the paper writes it."""
    pool = [reward for of_completion in steps for _, reward in of_completion]
    if len(set(pool)) < 2:
        return [[0.0] * length for length in lengths]
    mean = sum(pool) / len(pool)
    std = (sum((reward - mean) ** 2 for reward in pool) / (len(pool) - 1)) ** 0.5
    return [
        [sum((reward - mean) / (std + EPSILON) for end, reward in of_completion if end >= t) for t in range(length)]
        for of_completion, length in zip(steps, lengths, strict=True)
    ]


@given(groups())
def test_they_are_the_papers_sums(group):
    for ours, theirs in zip(process_advantages(*group), written_out(*group), strict=True):
        assert torch.allclose(ours, torch.tensor(theirs, dtype=torch.float64), atol=1e-9)


@given(groups(), st.randoms(use_true_random=False))
def test_the_order_of_completions_and_of_steps_does_not_matter(group, random):
    steps, lengths = group
    order = list(range(len(lengths)))
    random.shuffle(order)
    mixed = [random.sample(steps[i], len(steps[i])) for i in order]
    plain = process_advantages(steps, lengths)
    for place, advantages in zip(order, process_advantages(mixed, [lengths[i] for i in order]), strict=True):
        assert torch.allclose(advantages, plain[place], atol=1e-9)


@given(groups())
def test_a_completion_without_steps_changes_nothing_for_the_others(group):
    steps, lengths = group
    *others, alone = process_advantages([*steps, []], [*lengths, 4])
    assert alone.tolist() == [0.0] * 4
    assert all(torch.equal(a, b) for a, b in zip(others, process_advantages(steps, lengths), strict=True))


@given(st.lists(st.tuples(st.integers(1, 9), rewards), min_size=2, max_size=6))
def test_one_step_that_ends_with_its_completion_is_outcome_supervision(completions):
    lengths = [length for length, _ in completions]
    outcome = standardised(torch.tensor([reward for _, reward in completions], dtype=torch.float64))
    process = process_advantages([[(length - 1, reward)] for length, reward in completions], lengths)
    for of_tokens, of_completion in zip(process, outcome, strict=True):
        assert torch.allclose(of_tokens, of_completion.expand(len(of_tokens)))


@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3])
def test_equal_rewards_are_no_signal_exactly(reward):
    steps = [[(0, reward), (2, reward)], [(1, reward)], [(0, reward), (1, reward), (3, reward)]]
    assert not any(a.any() for a in process_advantages(steps, [3, 2, 4]))
    assert not process_advantages([[(0, reward)], []], [1, 2])[0].any()  # one step alone has nothing to differ from


@pytest.mark.parametrize("end", [-1, 3])
def test_a_step_that_ends_outside_its_completion_is_refused(end):
    with pytest.raises(ValueError, match="outside its completion of 3 tokens"):
        process_advantages([[(end, 1.0)], []], [3, 1])
