"""How much of a head's logits is kept for its backward pass (`head.py`); without torch, for plans."""

from __future__ import annotations

LEAST, MOST = 8 << 20, 512 << 20  # bytes


def kept_bytes(weight_bytes: int) -> int:
    """The most bytes of logits that are kept of a head whose weight takes so many.

    >>> [kept_bytes(number << 20) >> 20 for number in (1, 100, 1000)]
    [8, 200, 512]
    """
    return max(LEAST, min(2 * weight_bytes, MOST))
