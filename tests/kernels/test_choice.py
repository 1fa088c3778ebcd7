"""Two ways to compute the same: the faster is taken, and what was taken once stays so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from temper.kernels import choice, product


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice.pin("auto")
    yield tmp_path / "temper"
    choice.pin("auto")


def spend(seconds: float) -> Callable[[], None]:
    def work() -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    return work


def ways(plain: float, onednn: float) -> Callable[[], tuple[Callable[[], None], Callable[[], None]]]:
    return lambda: (spend(plain), spend(onednn))


def never() -> tuple[Callable[[], None], Callable[[], None]]:
    raise AssertionError("it is known already")


@pytest.mark.parametrize(("plain", "onednn", "expected"), [(0.02, 0.002, "onednn"), (0.002, 0.02, "default")])
def test_the_faster_way_is_taken_and_tried_once(plain: float, onednn: float, expected: str) -> None:
    assert choice.chosen("3x5", ways(plain, onednn)) == expected
    assert choice.chosen("3x5", never) == expected
    assert choice.table()["3x5"]["way"] == expected


def test_the_plain_way_is_taken_where_both_are_alike() -> None:
    assert choice.chosen("3x5", ways(0.01, 0.01)) == "default"


def test_another_process_takes_what_the_first_found(cache: Path) -> None:
    choice.chosen("3x5", ways(0.02, 0.001))
    choice.pin("auto")  # forgets what this process has looked up
    assert choice.chosen("3x5", never) == "onednn"


def test_what_was_written_down_first_counts(cache: Path) -> None:
    choice.chosen("1x1", ways(0.001, 0.001))
    [file] = cache.glob("products-*.jsonl")
    line = {"shape": "3x5", "way": "default", "default_ms": 1, "onednn_ms": 2}

    def meanwhile() -> tuple[Callable[[], None], Callable[[], None]]:
        with file.open("a") as lines:  # another process measures at the same time
            lines.write(json.dumps(line) + "\n")
        return spend(0.02), spend(0.001)

    assert choice.chosen("3x5", meanwhile) == "default"
    assert file.read_text().count("3x5") == 1


DAMAGED = ["", "{", "[]\n", '{"shape": "3x5"}\n', '{"shape": "3x5", "way": "faster"}\n', "\x00\n"]


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_lines_do_not_count(cache: Path, damage: str) -> None:
    choice.chosen("1x1", ways(0.001, 0.001))
    [file] = cache.glob("products-*.jsonl")
    file.write_text(damage)
    assert choice.chosen("3x5", ways(0.02, 0.001)) == "onednn"


def test_without_a_place_to_remember_the_plain_way_is_taken(cache: Path) -> None:
    cache.write_text("a file stands where the folder belongs")
    assert choice.chosen("3x5", ways(0.02, 0.001)) == "default"


@pytest.mark.parametrize("way", choice.WAYS)
def test_a_pinned_way_is_not_measured(way: str) -> None:
    choice.pin(way)
    assert choice.chosen("3x5", never) == way
    assert choice.table() == {}


def test_a_run_that_goes_on_abides_by_its_record(cache: Path) -> None:
    choice.chosen("3x5", ways(0.02, 0.001))
    record = json.loads(json.dumps(choice.table()))
    for file in cache.glob("*.jsonl"):
        file.unlink()
    choice.pin("auto", {**record, "7x7": "nonsense", "8x8": {"way": "none"}})
    assert choice.chosen("3x5", never) == "onednn"
    assert set(choice.table()) == {"3x5"}


@pytest.mark.skipif(not product.has_onednn(), reason="this build of torch has no oneDNN")
def test_both_ways_make_the_same_product() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(700, 65, generator=draw), torch.randn(33, 65, generator=draw, requires_grad=True)
    gradients = []
    for way in choice.WAYS:
        choice.pin(way)
        weight.grad = None
        product.linear(x, weight).square().sum().backward()
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not product.has_onednn(), reason="this build of torch has no oneDNN")
def test_a_layer_is_tried_on_its_own_shape() -> None:
    product.linear(torch.ones(300, 24), torch.ones(40, 24))
    assert set(choice.table()) == {"24x40"}
