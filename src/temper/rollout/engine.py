"""What any sampler promises: token ids in; token ids, log-probs, a finish reason and the policy's version out.

It knows nothing of text: a stop string reaches it as a `StopRule` (made in `text/stops.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from temper.types import Completion

Watch = Callable[[int, int], None]  # called with (number of the request, token) as soon as the token is drawn
# Called with (number of the request, its completion) as soon as that is finished, once, on whatever thread.
Finished = Callable[[int, Completion], None]


class StopRule(Protocol):
    """Ends a completion by more than its last token.

    One with an attribute `stride` need not be asked after every token, but after so many at most; a completion that it
    ends may then be longer than the one it was asked about."""

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether the completion that now reads `token_ids` is finished. Asked after every token."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when a completion ends.

    Temperature 0 is greedy. `top_k`, `min_p` (a share of the likeliest token's probability) and `top_p` cut the tail
    after the temperature, in this order. A stop token stays in the completion and is its last.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop_ids: tuple[int, ...] = ()
    stop_rule: StopRule | None = None


@dataclass(frozen=True)
class Request:
    """One completion wanted: `key` names its random draws, so the same key gives the same completion in any batch.

    A partial completion is continued by giving its tokens as `drawn`: what comes back are the tokens after them, those
    that an uninterrupted draw would have had. `max_tokens`, where given, replaces the sampling's for this request.
    """

    prompt_ids: tuple[int, ...]
    key: int
    drawn: tuple[int, ...] = ()
    max_tokens: int | None = None


class Engine(Protocol):
    """A sampler."""

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        """One completion a request, in order. The log-probs are of the distribution at `sampling.temperature`,
        before any cut of the tail; at temperature 0 they are of the distribution at temperature 1. A request that has
        room for no token is answered, and `finished` is not told of it."""
        ...


class Drawing(Protocol):
    """Completions that are being drawn."""

    def result(self) -> list[Completion]:
        """As `Engine.generate` returns them. To be asked once, on the thread that began."""
        ...


@runtime_checkable
class AheadEngine(Engine, Protocol):
    """A sampler that draws while others work."""

    def begin(self, requests: Sequence[Request], sampling: Sampling, finished: Finished | None = None) -> Drawing:
        """Begin to draw with the weights as they are now, whatever becomes of them meanwhile. One drawing at a time."""
        ...
