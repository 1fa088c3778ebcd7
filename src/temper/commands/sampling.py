"""Sampling options of the command line, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temper.errors import ConfigError, Fault

if TYPE_CHECKING:
    from temper.rollout.engine import Sampling


def checked_sampling(temperature: float, top_p: float, max_tokens: int) -> Sampling:
    """Raises ConfigError with every fault."""
    from temper.rollout.engine import Sampling

    faults = []
    if not 0 <= temperature <= 10:
        faults.append(Fault(f"--temperature {temperature:g} is out of range", fix="between 0 (greedy) and 10"))
    if not 0 < top_p <= 1:
        faults.append(Fault(f"--top-p {top_p:g} is out of range", fix="above 0, at most 1"))
    if max_tokens < 1:
        faults.append(Fault(f"--max-tokens {max_tokens} is out of range", fix="at least 1"))
    if faults:
        raise ConfigError(faults)
    return Sampling(max_tokens, temperature, top_p)
