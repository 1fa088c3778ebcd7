"""The keys of every stage that samples, and what an engine makes of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from temper.config import StrictModel
from temper.rollout.engine import Sampling
from temper.text.chat import ChatFormat
from temper.text.stops import StopStrings
from temper.types import ReplyForm


class SamplingConfig(StrictModel):
    """How completions are drawn; the names are the field's."""

    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0  # only the k likeliest tokens; 0: all
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0  # no token below this share of the likeliest one's probability
    max_completion_length: Annotated[int, Field(ge=1)] = 256
    stop: list[Annotated[str, Field(min_length=1)]] = []  # texts that end a completion; they stay in it
    reply: ReplyForm | None = None  # the form in which replies are read, in place of their tasks' own


def sampling_of(config: SamplingConfig, chat: ChatFormat) -> Sampling:
    """The sampling of a stage whose replies `chat` decodes and ends."""
    return Sampling(
        config.max_completion_length,
        config.temperature,
        config.top_p,
        config.top_k,
        config.min_p,
        chat.eos_ids,
        StopStrings(chat.decode, config.stop) if config.stop else None,
    )
