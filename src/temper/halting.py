"""How a step under way is given up when the process must end soon, without losing the steps before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Halt(BaseException):
    """Raised in the main thread, wherever it is: the step under way is given up and will be taken again."""


_rescues: list[Callable[[], str]] = []
_shields: list[None] = []


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Within it, nobody raises Halt: what is being saved is saved."""
    _shields.append(None)
    try:
        yield
    finally:
        _shields.pop()


def is_shielded() -> bool:
    return bool(_shields)


@contextlib.contextmanager
def rescued_by(save: Callable[[], str]) -> Iterator[None]:
    """Within it, `save` is what keeps the work before the step under way; it says what it kept. A step that is given up
    never leaves it: `rescue` then calls `save`."""
    _rescues[:] = [save]
    yield
    _rescues.clear()


def rescue() -> str:
    """Save what was done before the step under way; what to say of it, "" where there is nothing to save."""
    saves, _rescues[:] = list(_rescues), []
    return saves[0]() if saves else ""
