"""Bodies of requests, checked key by key: what is asked for, or every fault in it. Nothing is ignored in silence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from temper.types import Message

MOST_CHOICES = 128  # replies of one request
MOST_LIKELIEST = 20  # alternatives to a token
MOST_STOPS = 16
Kind = Literal["chat", "text"]


class BadRequest(Exception):
    """What is wrong with a request; `key` is the first that is."""

    def __init__(self, faults: list[tuple[str, str]], status: int = 400, code: str | None = None):
        self.key, self.status, self.code = (faults[0][0] or None), status, code
        super().__init__("; ".join(f"`{key}`: {what}" if key else what for key, what in faults))


@dataclass(frozen=True)
class Defaults:
    """What holds where a request does not say."""

    max_tokens: int = 512
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """What a request asks for. `prompts` are conversations, texts or token ids; `likeliest` counts the alternatives
    shown for each token, None without log-probs; `echo` gives the prompt back before the reply."""

    kind: Kind
    prompts: tuple[Any, ...]
    model: str | None
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    n: int
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool
    likeliest: int | None
    echo: bool


def parse(kind: Kind, body: Any, defaults: Defaults) -> Ask:
    """Raises BadRequest with every fault.

    >>> body = {"messages": [{"role": "user", "content": "2+2?"}], "n": 2}
    >>> ask = parse("chat", body, Defaults())
    >>> ask.n, ask.temperature, ask.prompts[0][0].content
    (2, 0.6, '2+2?')
    >>> parse("chat", {**body, "n": 0, "tools": [{}]}, Defaults())
    Traceback (most recent call last):
        ...
    temper.serve.protocol.BadRequest: `n`: 0 is not a whole number from 1 to 128; `tools`: tools are not offered
    """
    if not isinstance(body, dict):
        raise BadRequest([("", "the body is not a JSON object")])
    read = Reader(body)
    prompts = read.conversation() if kind == "chat" else read.prompts()
    likeliest = read.chat_logprobs() if kind == "chat" else read.text_logprobs()
    echo = read.boolean("echo", False) if kind == "text" else False
    floor = 0 if kind == "text" else 1
    tokens = read.whole("max_tokens", None, floor, 1 << 30)
    if kind == "chat":
        tokens = read.whole("max_completion_tokens", tokens, floor, 1 << 30)
    options = read.object("stream_options")
    n = read.whole("n", 1, 1, MOST_CHOICES)
    ask = Ask(
        kind=kind,
        prompts=prompts,
        model=read.text("model"),
        max_tokens=defaults.max_tokens if tokens is None else tokens,
        temperature=read.number("temperature", defaults.temperature, 0, 10),
        top_p=read.number("top_p", defaults.top_p, 0, 1, above=True),
        top_k=read.whole("top_k", defaults.top_k, -1, 1 << 30),
        min_p=read.number("min_p", defaults.min_p, 0, 1),
        n=n or 1,
        stop=read.stops(defaults.stop),
        seed=read.whole("seed", None, -(1 << 63), (1 << 64) - 1),
        stream=read.boolean("stream", False),
        include_usage=bool(options.get("include_usage")),
        likeliest=likeliest,
        echo=echo,
    )
    read.neutral(kind, ask.n)
    read.no_others()
    if len(ask.prompts) * ask.n > MOST_CHOICES:
        read.fault("n", f"{len(ask.prompts)} prompts × {ask.n} replies are more than {MOST_CHOICES} in one request")
    if read.faults:
        raise BadRequest(read.faults)
    return ask


# Keys of the protocol that this server has nothing for: the values that ask for nothing, and what else would mean
NEUTRAL: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "tools are not offered"),
    "functions": (([],), "tools are not offered"),
    "tool_choice": (("none", "auto"), "tools are not offered"),
    "function_call": (("none", "auto"), "tools are not offered"),
    "response_format": (({"type": "text"},), "replies are text: no grammar holds them"),
    "logit_bias": (({},), "single tokens cannot be weighed"),
    "presence_penalty": ((0,), "there are no penalties"),
    "frequency_penalty": ((0,), "there are no penalties"),
    "modalities": ((["text"],), "replies are text"),
    "suffix": (("",), "nothing can be written into the middle of a text"),
}
UNREAD = {  # of no consequence for the reply
    "user", "store", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "parallel_tool_calls",
}  # fmt: skip


class Reader:
    """The keys of one body: each is read once, faults are collected."""

    def __init__(self, body: Mapping[str, Any]):
        self.body = body
        self.faults: list[tuple[str, str]] = []
        self._read: set[str] = set(UNREAD)

    def fault(self, key: str, what: str) -> None:
        self.faults.append((key, what))

    def take(self, key: str) -> Any:
        self._read.add(key)
        return self.body.get(key)

    def whole(self, key: str, default: int | None, low: int, high: int) -> Any:
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fault(key, f"{_short(value)} is not a whole number from {low} to {high}")
            return default
        return value

    def number(self, key: str, default: float, low: float, high: float, above: bool = False) -> float:
        value = self.take(key)
        if value is None:
            return default
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high or (above and value == low):
            span = f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"
            self.fault(key, f"{_short(value)} is not a number {span}")
            return default
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            self.fault(key, f"{_short(value)} is neither true nor false")
        return value if isinstance(value, bool) else default

    def text(self, key: str) -> str | None:
        value = self.take(key)
        if value is not None and not isinstance(value, str):
            self.fault(key, f"{_short(value)} is not text")
        return value if isinstance(value, str) else None

    def object(self, key: str) -> Mapping[str, Any]:
        value = self.take(key)
        if value is not None and not isinstance(value, dict):
            self.fault(key, f"{_short(value)} is not an object")
        return value if isinstance(value, dict) else {}

    def stops(self, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.take("stop")
        if value is None:
            return default
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
            self.fault("stop", "not a text or a list of texts, none of them empty")
            return default
        if len(found) > MOST_STOPS:
            self.fault("stop", f"{len(found)} texts, at most {MOST_STOPS}")
        return tuple(found)

    def chat_logprobs(self) -> int | None:
        wanted = self.boolean("logprobs", False)
        top = self.whole("top_logprobs", None, 0, MOST_LIKELIEST)
        if top is not None and not wanted:
            self.fault("top_logprobs", "needs `logprobs: true`")
        return (top or 0) if wanted else None

    def text_logprobs(self) -> int | None:
        return self.whole("logprobs", None, 0, MOST_LIKELIEST)

    def conversation(self) -> tuple[Any, ...]:
        turns = self.take("messages")
        if not isinstance(turns, list) or not turns:
            self.fault("messages", "not a list with at least one message")
            return ()
        return (tuple(filter(None, (self._message(i, turn) for i, turn in enumerate(turns)))),)

    def _message(self, number: int, turn: Any) -> Message | None:
        where = f"messages[{number}]"
        if not isinstance(turn, dict):
            self.fault(where, "not an object with `role` and `content`")
            return None
        role = {"developer": "system"}.get(str(turn.get("role")), turn.get("role"))
        if role not in ("system", "user", "assistant"):
            self.fault(f"{where}.role", f"{_short(turn.get('role'))} is none of system, developer, user, assistant")
            return None
        if turn.get("tool_calls"):
            self.fault(f"{where}.tool_calls", "tools are not offered")
        content = turn.get("content")
        if isinstance(content, list) and all(_is_text_part(part) for part in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            self.fault(f"{where}.content", "not text, nor a list of parts of type text")
            return None
        return Message(role, content)

    def prompts(self) -> tuple[Any, ...]:
        value = self.take("prompt")
        if _is_prompt(value):
            value = [value]
        if not isinstance(value, list) or not value or not all(map(_is_prompt, value)):
            self.fault("prompt", "not a text, a list of token ids, or a list of these; none may be empty")
            return ()
        return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in value)

    def neutral(self, kind: Kind, n: int) -> None:
        for key, (nothing, what) in NEUTRAL.items():
            value = self.take(key)
            if value is not None and value not in nothing:
                self.fault(key, what)
        best = self.take("best_of") if kind == "text" else None
        if best is not None and best != n:
            self.fault("best_of", "no reply is drawn that is not given: it must be as `n`")

    def no_others(self) -> None:
        for key in self.body:
            if key not in self._read:
                self.fault(str(key)[:100], "no such key here: it would have no effect")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
