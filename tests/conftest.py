"""Tests are hermetic: helper modules beside them are importable, nothing reaches the network."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from temper.environment import wait_passively

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parent))
wait_passively()  # as the command does: recipes run inside a test, two threads each, beside other tests

# The same examples each time, so that a red run is the change's doing; `--hypothesis-profile=roam` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("roam", deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def threads_as_they_were() -> Iterator[None]:
    """A recipe run inside a test sets torch's threads; with more than the runner asked for, they wait for one another
    in every small operation of all tests after it."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS", 0))
    yield
    torch = sys.modules.get("torch")
    if torch and before and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    """By the end of the suite millions of objects belong to imported libraries and collected tests. The collector would
    walk them all after each stage of each little pipeline, two seconds a run; what is set aside stays so, or it would
    walk them here, before each of the modules."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or extensions would complain of what is left when the process ends


@pytest.fixture(autouse=True, scope="module")
def rewards_have_no_process_left() -> Iterator[None]:
    """The process of rewards stays until the trainer ends; tests that count processes are in the same one."""
    yield
    if worker := sys.modules.get("temper.rewards.worker"):
        worker.WORKER.close()


@pytest.fixture
def fake_kinds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recipes may name the kinds of stages in `fakes`; the test stands in an empty folder."""
    import fakes

    from temper.stages import STAGES

    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and no test in this process can tell


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of fake stages."""
    import fakes

    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE, encoding="utf-8")
    return path
