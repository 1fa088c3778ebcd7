"""Micro-batches: each example once, within the budget, evenly; every target where it stands."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from temper.data.batching import make_batch, packed_tokens, split_by_tokens
from temper.types import Example


@st.composite
def families(draw: st.DrawFn) -> list[Example]:
    """Examples of which some share a prefix, with masks of any kind."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        prefix = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=6)))
        for mask in draw(st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=5)):
            own = tuple(draw(st.integers(0, 3)) for _ in mask)
            made.append(Example(prefix + own, (False,) * len(prefix) + tuple(mask)))
    return made


@given(families())
def test_every_target_stands_behind_what_comes_before_it(examples: list[Example]) -> None:
    batch = make_batch(examples)
    tokens, found = batch.tokens.tolist(), []
    for row, (layout, one) in enumerate(zip(batch.layouts, examples, strict=True)):
        places = [*layout.prefix, *layout.own]
        assert [tokens[place] for place in places] == list(one.token_ids)
        assert batch.positions[places].tolist() == list(range(len(places)))
        targets = [i for i, is_target in enumerate(one.mask) if is_target]
        found += [(places[i - 1], one.token_ids[i], row, len(targets)) for i in targets]
    columns = batch.sources, batch.targets, batch.rows, batch.lengths
    assert [*zip(*(column.tolist() for column in columns), strict=True)] == found
    assert len(tokens) <= sum(len(one.token_ids) for one in examples)


@given(families(), st.integers(1, 60))
def test_micro_batches_hold_each_example_once_within_the_budget(examples: list[Example], budget: int) -> None:
    parts = split_by_tokens(examples, budget)
    assert sorted(i for part in parts for i in part) == list(range(len(examples)))
    assert all(len(part) == 1 or packed_tokens([examples[i] for i in part]) <= budget for part in parts)


@given(st.lists(st.integers(1, 8), min_size=16, max_size=200), st.integers(2, 8))
@example([8] * 64, 8)
def test_micro_batches_are_even(sizes: list[int], count: int) -> None:
    rows = [Example((i, *range(size)), (False, *(True,) * size)) for i, size in enumerate(sizes)]
    tokens = packed_tokens(rows)
    parts = split_by_tokens(rows, -(-tokens // count) + 9)  # room for one more in each
    held = [packed_tokens([rows[i] for i in part]) for part in parts]
    assert len(parts) <= count
    assert max(held) <= tokens / len(parts) + 9


def test_a_long_prefix_is_computed_once_and_a_short_one_fills_what_is_left() -> None:
    def family(first: int, prefix: int) -> list[Example]:
        own = ((i,) * 10 for i in range(8))
        return [Example((first,) * prefix + one, (False,) * prefix + (True,) * 10) for one in own]

    long, short = ([one for first in range(4) for one in family(first, prefix)] for prefix in (60, 2))
    assert split_by_tokens(long, 190) == [list(range(8 * i, 8 * i + 8)) for i in range(4)]
    assert len(split_by_tokens(short, 130)) == 3
