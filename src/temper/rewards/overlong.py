"""A penalty that grows as a completion nears the length limit: a function of its tokens, so an option and not a reward
by name (`overlong_cache`)."""

from __future__ import annotations


def overlong(length: int, limit: int, cache: int) -> float:
    """0 up to limit − cache tokens, then ((limit − cache) − length) / cache, −1 past the limit (DAPO 2503.14476,
    equation 13).

    >>> overlong(60, 100, 20), overlong(90, 100, 20), overlong(100, 100, 20), overlong(101, 100, 20)
    (0.0, -0.5, -1.0, -1.0)
    """
    over = length - (limit - cache)
    return 0.0 if over <= 0 else -1.0 if length > limit else -over / cache
