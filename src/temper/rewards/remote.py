"""A reward over HTTP: `reward_funcs: ["http://localhost:8000/score"]`.

One request a batch of replies: `{"prompts": [[{"role", "content"}, …], …], "completions": […], "golds": […],
"rows": [{…}, …]}`, answered by `{"rewards": [number or null, …]}` (or the bare list), null where it does not apply. A
URL that ends with `/verify` is asked as NeMo-Gym's servers are, one request a reply: the row's columns,
`responses_create_params` and `response`, answered by `{"reward": number}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from temper.errors import ConfigError, Fault
from temper.rewards.endpoint import Endpoint, Limits, NoAnswer
from temper.rewards.returns import WrongReturn
from temper.types import Prompt, Reply

Pair = tuple[Prompt, Reply]
A_REQUEST = 64  # replies
RETRIES, CONCURRENCY = 2, 8


def is_remote(name: str) -> bool:
    """Whether the name of a reward is an address.

    >>> is_remote("http://localhost:8000/score"), is_remote("my.py:brevity")
    (True, False)
    """
    return name.startswith(("http://", "https://"))


class RemoteReward:
    """A reward for `Scorer`: its call and `batch`. A time-out, 429 or 5xx is tried again; what still fails counts as
    that reply's failure, and 16 failures in a row, or an address that refuses, stop the run (`endpoint.py`)."""

    overlaps = True  # it waits for a network; see rewards/score.py

    def __init__(self, url: str, timeout: float):
        """Raises ConfigError for a URL that names no host, or holds a user name. Opens no socket."""
        try:
            parts = urlsplit(url)
            good = bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
        except ValueError:
            parts, good = urlsplit("http://-"), False
        if not good or "@" in parts.netloc:
            why = "it holds a user name" if good else "it names no host"
            raise ConfigError(Fault("the address of a reward cannot be used", why=why))
        self._each = parts.path.rstrip("/").endswith("/verify")
        self._endpoint = _Json(url, None, Limits(timeout, RETRIES, CONCURRENCY), "", f"the reward {parts.netloc}")

    def __call__(self, prompt: Prompt, reply: Reply) -> float | None:
        """The reward of one reply. Raises NoAnswer, WrongReturn."""
        (value,) = self.batch([(prompt, reply)])
        if isinstance(value, Exception):
            raise value
        return value

    def batch(self, pairs: Sequence[Pair]) -> list[Any]:
        """The reward of each reply, None where it does not apply, or why there is none."""
        size = 1 if self._each else A_REQUEST
        parts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        body = _verify if self._each else _batch
        answers = self._endpoint.ask_all([body(part) for part in parts])
        return [value for part, answer in zip(parts, answers, strict=True) for value in _values(answer, len(part))]


class _Json(Endpoint):
    def _answer_in(self, raw: bytes, sent: int) -> str:
        return raw.decode("utf-8", "replace")


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _batch(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {
        "prompts": [_turns(prompt) for prompt, _ in pairs],
        "completions": [reply.text for _, reply in pairs],
        "golds": [prompt.gold for prompt, _ in pairs],
        "rows": [dict(prompt.row) for prompt, _ in pairs],
    }


def _verify(pairs: Sequence[Pair]) -> dict[str, Any]:
    ((prompt, reply),) = pairs
    text = {"type": "output_text", "text": reply.text, "annotations": []}
    message = {"id": "reply", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    response = {
        "id": "reply", "object": "response", "created_at": 0, "model": "policy", "output": [message],
        "parallel_tool_calls": False, "tool_choice": "none", "tools": [],
    }  # fmt: skip
    return {**prompt.row, "responses_create_params": {"input": _turns(prompt)}, "response": response}


def _values(answer: str | NoAnswer, count: int) -> Iterator[Any]:
    """What an answer says of each of its replies."""
    if isinstance(answer, NoAnswer):
        yield from [answer] * count
        return
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    if isinstance(said, Mapping):
        said = said["rewards"] if "rewards" in said else [said["reward"]] if "reward" in said else None
    if not isinstance(said, list) or len(said) != count:
        shown = " ".join(answer.split())[:100]
        yield from [WrongReturn(f'got {shown!r}, expected {{"rewards": […]}} with one number a reply')] * count
        return
    yield from said
