"""The rows of a wave: who waits for it, and what has been drawn for whom.

Shapes: B rows in flight, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from temper.rollout.draw import draw_tokens, uniform
from temper.rollout.engine import Request, Sampling, StopRule, Watch
from temper.types import Completion


@dataclass(frozen=True)
class Pending:
    """A request that waits for its wave: `tokens` are its prompt and what was drawn before, `limit` what may come."""

    number: int
    tokens: tuple[int, ...]
    key: int
    drawn: int
    limit: int

    @property
    def begun(self) -> list[int]:
        """The tokens of its completion that were drawn before."""
        return list(self.tokens[len(self.tokens) - self.drawn :])


def plan_rows(requests: Sequence[Request], sampling: Sampling, context: int) -> list[Pending]:
    """Those with room for a token, those of one prompt side by side."""
    rows = []
    for number, request in enumerate(requests):
        tokens = request.prompt_ids + request.drawn
        wanted = sampling.max_tokens if request.max_tokens is None else request.max_tokens
        rows.append(Pending(number, tokens, request.key, len(request.drawn), min(wanted, context - len(tokens))))
    return sorted((row for row in rows if row.limit > 0), key=lambda row: (len(row.tokens), row.tokens, row.number))


@dataclass
class Flight:
    """What is drawn for the rows of a wave; the first `count` rows are still in flight."""

    wave: Sequence[Pending]
    row_B: Tensor  # the place in the wave of each row in flight
    keys_B: Tensor
    positions_B: Tensor  # of the next token in its completion
    limits_B: Tensor
    stop_ids: Tensor
    tokens: Tensor  # [rows of the wave, longest limit]
    logprobs: Tensor
    step: int = 0
    asked: int = 0  # the step after which the sampling's rule was asked last

    @staticmethod
    def of(wave: Sequence[Pending], sampling: Sampling) -> Flight:
        rows, longest = len(wave), max(row.limit for row in wave)
        return Flight(
            wave,
            torch.arange(rows),
            torch.tensor([row.key for row in wave]),
            torch.tensor([row.drawn for row in wave]),
            torch.tensor([row.limit for row in wave]),
            torch.tensor(sampling.stop_ids, dtype=torch.long),
            torch.zeros(rows, longest, dtype=torch.long),
            torch.zeros(rows, longest),
        )

    @property
    def count(self) -> int:
        return len(self.row_B)

    def draw(self, logits_BV: Tensor, sampling: Sampling) -> Tensor:
        """The next token of every row, written down."""
        tokens, logprobs = draw_tokens(logits_BV, uniform(self.keys_B, self.positions_B), sampling)
        self.tokens[self.row_B, self.step], self.logprobs[self.row_B, self.step] = tokens, logprobs
        self.positions_B += 1
        self.step += 1
        return tokens

    def ended(self, tokens_B: Tensor, sampling: Sampling, watch: Watch | None) -> tuple[Tensor, Tensor]:
        """Which rows in flight [B] the token just drawn stops, and which of them are finished with it."""
        stopped = torch.isin(tokens_B, self.stop_ids)
        if watch is not None:
            for row, token in zip(self.row_B.tolist(), tokens_B.tolist(), strict=True):
                watch(self.wave[row].number, token)
        if sampling.stop_rule is not None and not self.until_asked(sampling.stop_rule):
            self.asked = self.step
            drawn = zip(self.row_B.tolist(), self.tokens[self.row_B, : self.step].tolist(), strict=True)
            ends = [sampling.stop_rule.ends(self.wave[row].begun + tokens) for row, tokens in drawn]
            stopped |= torch.tensor(ends)
        return stopped, stopped | (self.limits_B <= self.step)

    def until_asked(self, rule: StopRule) -> int:
        """How many tokens may still be drawn before `rule` is asked; 0 after the first token of all."""
        return max(0, self.asked + getattr(rule, "stride", 1) - self.step) if self.asked else 0

    def keep(self, rows: Tensor) -> None:
        """Row i is from now on what row `rows[i]` was."""
        self.row_B, self.keys_B = self.row_B[rows], self.keys_B[rows]
        self.positions_B, self.limits_B = self.positions_B[rows], self.limits_B[rows]

    def completions(self, ended_B: Tensor, stopped_B: Tensor, version: int) -> Iterator[tuple[int, Completion]]:
        """Those of the rows that have just ended, with the numbers of their requests."""
        rows = self.row_B[ended_B]
        tokens, logprobs = self.tokens[rows, : self.step].tolist(), self.logprobs[rows, : self.step].tolist()
        for row, drawn, values, stopped in zip(
            rows.tolist(), tokens, logprobs, stopped_B[ended_B].tolist(), strict=True
        ):
            reason = "stop" if stopped else "length"
            yield self.wave[row].number, Completion(tuple(drawn), tuple(values), reason, version)


def fill_holes(ended_B: Tensor, living: int) -> Tensor:
    """For each of the `living` first places the row that goes there: itself, or, if it ended, one from further back."""
    rows = torch.arange(living)
    rows[ended_B[:living]] = living + (~ended_B[living:]).nonzero().squeeze(-1)
    return rows
