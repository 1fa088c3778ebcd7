"""What a reward may say of a reply, and how it is told what it said instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

ONLY = "only"  # of a call with many replies: where it fails, each is not asked alone
LARGEST = 1e9  # beyond it no number is a reward: squared and summed over a step it would drown every other


class WrongReturn(TypeError):
    """A reward returned something that is not a finite number."""


class Unknown(Exception):
    """A reward could not find out what a reply is worth, through no fault of the reply: it says nothing of it, neither
    good nor bad."""


class RewardFailure(Exception):
    """A reward of a user's own failed in its process: the message says how, `where` in which file and line; `ended` if
    the process went with it."""

    def __init__(self, said: str, where: str = "", ended: bool = False):
        super().__init__(said)
        self.where, self.ended = where, ended


def describe(error: BaseException) -> str:
    """An exception in one line: its type and what it says.

    >>> describe(KeyError("answer"))
    "KeyError: 'answer'"
    """
    try:
        said = str(error)
    except Exception:
        said = "(its message cannot be shown)"
    if isinstance(error, RewardFailure):
        return f"{said} ({error.where})" if error.where else said
    return f"{type(error).__name__}: {said}".removesuffix(": ")[:500]


def checked(value: object) -> float:
    """The reward as a float. Raises WrongReturn for anything but a finite real number (a Boolean is one) of at most
    `LARGEST` either way.

    >>> checked(True), checked(0.5)
    (1.0, 0.5)
    >>> checked("1")
    Traceback (most recent call last):
        ...
    temper.rewards.returns.WrongReturn: got a str, expected one finite float
    """
    if isinstance(value, Real) and -LARGEST <= value <= LARGEST:  # pyright: ignore[reportOperatorIssue]  # nan is not
        return float(value)
    if isinstance(value, Exception):  # a batch says so where it failed on one reply
        raise value
    if isinstance(value, Real):
        finite = isinstance(value, int) or math.isfinite(value)
        bound = f", between -{LARGEST:g} and {LARGEST:g}" if finite else ""
        shown = f"{value:.4g}" if isinstance(value, float) else "a number" if finite else str(value)
        raise WrongReturn(f"got {shown}, expected one finite float{bound}")
    shown = "None" if value is None else f"a {type(value).__qualname__}"
    if hasattr(value, "__len__") and not isinstance(value, str):
        shown += " (rewards are scored one reply at a time)"
    raise WrongReturn(f"got {shown}, expected one finite float")


def applied(value: object) -> float | None:
    """`checked`, but for None: the reward does not apply to that reply.

    >>> applied(None), applied(1)
    (None, 1.0)
    """
    return None if value is None else checked(value)


def checked_all(values: object, count: int) -> Sequence[object]:
    """What a batch returned, if that is one value a reply. Raises WrongReturn for anything else.

    >>> checked_all([1.0, 0.5], 2)
    [1.0, 0.5]
    >>> checked_all([1.0], 2)
    Traceback (most recent call last):
        ...
    temper.rewards.returns.WrongReturn: got 1 values for 2 replies
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        shown = "None" if values is None else f"a {type(values).__qualname__}"
        raise WrongReturn(f"got {shown}, expected a list with one finite float a reply")
    if len(values) != count:
        raise WrongReturn(f"got {len(values)} values for {count} replies")
    return values
