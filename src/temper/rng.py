"""Randomness as a function: every draw has a name, so nothing depends on what was drawn before it."""

from __future__ import annotations

import hashlib


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed for the draw that `parts` name, such as (seed, stage, step, item).

    >>> seed_for(0, "reasoning_rl", 7) == seed_for(0, "reasoning_rl", 7) != seed_for(0, "reasoning_rl", 8)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
