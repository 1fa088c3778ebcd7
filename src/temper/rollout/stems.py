"""Requests of one prompt that have drawn the same so far are one row of the model, a stem, until they draw otherwise.

A policy that is sure draws most completions of a prompt alike (of 16 on the default recipe's prompts, late in its RL,
one or two different ones), and after equal tokens a model says the same. Each request draws by its own key from what
its stem says, so every token and log-prob is the one it would have had in a row of its own: steps in C compute a row
to the same bits whoever is beside it. With torch's they may differ, so there every request keeps a row.

Shapes: B requests in flight, U stems, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from temper.rollout.cache import Cache
from temper.rollout.compiled import CompiledSteps
from temper.rollout.engine import Sampling
from temper.rollout.flight import Flight

SPARED = 8  # rows that stems have to save; for fewer, drawing step by step costs more than they do


class Stems:
    """The rows of `cache` and the requests that share them; to begin with, one row for each request."""

    def __init__(self, cache: Cache, steps: CompiledSteps | None, run_B: Tensor):
        """`run_B` numbers the prompt of each request, those of one prompt side by side."""
        self.cache, self.steps = cache, steps
        # The row of each request; None where each has its own
        self.row_B = torch.searchsorted(run_B, run_B) if steps is not None and len(run_B) > SPARED else None

    def keep(self, kept: Tensor) -> None:
        """Request i is from now on what request `kept[i]` was."""
        if self.row_B is None:
            self.cache.keep(kept)
        else:
            self.row_B = self.row_B[kept]

    def share(self, tokens_B: Tensor, vocabulary: int) -> Tensor | None:
        """The tokens [U] that the stems go on with, once their requests have drawn `tokens_B`; None where every request
        has a row of its own, from now on if not before."""
        if self.row_B is None:
            return None
        met, stem_B = (self.row_B * vocabulary + tokens_B).unique(return_inverse=True)
        parents = met.div(vocabulary, rounding_mode="floor")
        if len(met) > len(tokens_B) - SPARED:
            self._lay(self.row_B)
            self.row_B = None
            return None
        places = places_of(parents)
        rows = torch.empty_like(parents)
        rows[places] = parents
        self._lay(rows)
        self.row_B = places[stem_B]
        tokens_U = torch.empty_like(met)
        tokens_U[places] = met % vocabulary
        return tokens_U

    def _lay(self, rows: Tensor) -> None:
        """Row i of the cache is from now on what row `rows[i]` was; one may become several."""
        count = len(self.cache.positions_B)
        if len(rows) != count or not torch.equal(rows, torch.arange(count)):
            self.cache.keep(rows)
            if self.steps is not None:
                self.steps.look_anew()

    def draw(self, tokens_U: Tensor, flight: Flight, sampling: Sampling) -> Tensor:
        """The tokens [B] that the requests draw next."""
        assert self.steps is not None
        assert self.row_B is not None
        self.steps.logits_after(tokens_U, self.cache)
        return self.steps.draw(flight, self.row_B, sampling)


def places_of(parents: Tensor) -> Tensor:
    """Where the n stems go that grow from the rows `parents`, in rising order, so that few rows have to be copied: the
    first of a row stays there if that is among the first n, the others fill the gaps.

    >>> places_of(torch.tensor([0, 0, 1, 3])), places_of(torch.tensor([2, 5]))
    (tensor([0, 2, 1, 3]), tensor([0, 1]))
    """
    count = len(parents)
    first = torch.ones(count, dtype=torch.bool)
    first[1:] = parents[1:] != parents[:-1]
    stays = first & (parents < count)
    free = torch.ones(count, dtype=torch.bool)
    free[parents[stays]] = False
    places = parents.clone()
    places[~stays] = free.nonzero().squeeze(-1)
    return places
