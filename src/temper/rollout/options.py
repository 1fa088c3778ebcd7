"""The keys of every stage that samples, and what an engine makes of them."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

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


class ServerConfig(StrictModel):
    """Servers that sample in the place of this process: vLLM's, version 0.28 or later, all of one model."""

    servers: Annotated[list[str], Field(min_length=1)]  # what stands before a route, such as http://localhost:8000
    model: Annotated[str, Field(min_length=1)] | None = None  # its name there; the first one served if not given
    # `send`: each version of the policy is brought to them; `keep`: they were started with the stage's model
    weights: Literal["send", "keep"] = "send"
    directory: Annotated[str, Field(min_length=1)] | None = None  # for weights, read by all; in the run if not given
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64  # completions under way at each server
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 600.0  # seconds that one call may take
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3  # of a completion, at another server where there is one
    api_key_env: Annotated[str, Field(min_length=1)] | None = None  # the environment variable that holds the key

    @field_validator("servers")
    @classmethod
    def _are_urls(cls, urls: list[str]) -> list[str]:
        for url in urls:
            try:
                parts = urlsplit(url)
                good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
            except ValueError:
                parts, good = urlsplit(""), False
            if not good or " " in url or parts.query:
                raise ValueError("a server's address must begin with http:// or https:// and name a host")
            if "@" in parts.netloc:
                raise ValueError("a server's address holds a user name: put a key into the environment (api_key_env)")
        if len({url.rstrip("/") for url in urls}) < len(urls):
            raise ValueError("the same server is named twice")
        return urls


class ServedConfig(SamplingConfig):
    """A stage whose samples may come from servers. Which ones do not belong to what it makes (`planning/plan.py`)."""

    engine: ServerConfig | None = None  # this process samples if not given


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
