"""What any sampler promises: token ids in; token ids, log-probs and a finish reason out. It knows nothing of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from temper.types import Completion


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy. `top_p` and `top_k` cut the tail after the temperature."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """One completion wanted: `key` names its random draws, so the same key gives the same completion in any batch."""

    prompt_ids: tuple[int, ...]
    key: int


class Engine(Protocol):
    """A sampler."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion a request, in order. The log-probs are of the distribution at `sampling.temperature`,
        before any cut of the tail."""
        ...
