"""Which side of the fence a problem stands on: decided by its text alone."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "test"]


def split_of(problem: str) -> Split:
    """One problem in eight is held out, whatever the seed and whoever asks.

    >>> split_of("38+33+19-49")
    'train'
    """
    return "test" if hashlib.blake2b(problem.encode(), digest_size=4).digest()[0] % 8 == 0 else "train"
