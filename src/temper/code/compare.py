"""Whether an output or a value is the expected one."""

from __future__ import annotations

import math
from typing import Any


def same_output(got: str, expected: str, tolerance: float | None = None) -> bool:
    """The same number of lines once the ends are stripped, and line by line the same words; with a tolerance, words
    that are numbers may differ by it (absolutely or relatively).

    >>> same_output("1  2 \\n3\\n\\n", "1 2\\n3"), same_output("1\\n", "1\\n2"), same_output("0.5001", "0.5", 1e-3)
    (True, False, True)
    """
    ours, theirs = got.rstrip().splitlines(), expected.rstrip().splitlines()
    if len(ours) != len(theirs):
        return False
    for mine, line in zip(ours, theirs, strict=True):
        words, wanted = mine.split(), line.split()
        if len(words) != len(wanted):
            return False
        if not all(_same_word(a, b, tolerance) for a, b in zip(words, wanted, strict=True)):
            return False
    return True


def _same_word(got: str, expected: str, tolerance: float | None) -> bool:
    if got == expected:
        return True
    if tolerance is None or len(got) > 400:
        return False
    try:
        return _close(float(got), float(expected), tolerance)
    except ValueError:
        return False


def _close(a: float, b: float, tolerance: float) -> bool:
    return math.isfinite(a) and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def _near(got: float, expected: float, tolerance: float) -> bool:
    try:
        return _close(float(got), float(expected), tolerance)
    except OverflowError:  # an integer larger than any float
        return False


def same_value(got: Any, expected: Any, tolerance: float | None = None) -> bool:
    """A value that a call gave against one from JSON: a tuple is a list, keys are text, True is not 1.

    >>> same_value((1, 2), [1, 2]), same_value({1: "a"}, {"1": "a"}), same_value(True, 1), same_value([1], [1, 2])
    (True, True, False, False)
    """
    if isinstance(got, bool) or isinstance(expected, bool) or got is None or expected is None:
        return got is expected
    if isinstance(got, (int, float)) and isinstance(expected, (int, float)):
        return got == expected or (tolerance is not None and _near(got, expected, tolerance))
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(
            same_value(a, b, tolerance) for a, b in zip(got, expected, strict=True)
        )
    if isinstance(got, dict) and isinstance(expected, dict):
        named = {_key(key): value for key, value in got.items()}
        wanted = {_key(key): value for key, value in expected.items()}
        return named.keys() == wanted.keys() and all(same_value(named[k], wanted[k], tolerance) for k in wanted)
    return type(got) is type(expected) and bool(got == expected)


def _key(key: Any) -> str:
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)
