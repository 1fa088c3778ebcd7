"""Large work spaces serve again once nothing refers to them, and none that is free outlives a fork."""

from __future__ import annotations

import gc
import os
import sys

import pytest

from temper.environment import give_back_memory
from temper.kernels import spaces
from temper.kernels.spaces import HUGE, space

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ordinary memory elsewhere")
LARGE = HUGE // 4


@pytest.fixture(autouse=True)
def none_free():
    gc.collect()
    spaces.forget()
    yield
    spaces.forget()


def test_a_space_serves_again_only_once_nothing_refers_to_it():
    first = space(LARGE)
    second, part = space(LARGE), first[:7]
    at = first.data_ptr()
    assert second.data_ptr() != at
    del first
    third = space(LARGE)
    assert third.data_ptr() != at  # a part of it is in use
    del part
    assert space(LARGE).data_ptr() == at


def test_the_least_that_has_room_is_taken_and_none_that_has_not():
    small, large = space(LARGE), space(3 * LARGE)
    places = small.data_ptr(), large.data_ptr()
    del small, large
    assert space(LARGE).data_ptr() == places[0]
    assert space(LARGE + 1).data_ptr() == places[1]
    whole = space(4 * LARGE)
    whole.fill_(1)
    assert whole.sum() == 4 * LARGE


def test_one_that_is_far_too_large_is_left_for_who_asks_for_more():
    large = space(5 * LARGE)
    at = large.data_ptr()
    del large
    assert space(LARGE).data_ptr() != at
    assert space(5 * LARGE).data_ptr() == at


def test_what_is_in_use_survives_a_fork_and_what_is_free_does_not():
    kept, freed = space(LARGE).fill_(2), space(LARGE)
    del freed
    assert len(spaces._free) == 1
    child = os.fork()
    if child == 0:  # as little as may be is done here
        os._exit(0 if not spaces._free and float(kept[-1]) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not spaces._free


def test_free_ones_go_back_to_the_system_with_the_rest():
    space(LARGE)
    assert spaces._free
    give_back_memory()
    assert not spaces._free


def test_small_ones_are_ordinary_memory():
    assert space(10).shape == (10,)
    assert not spaces._free
