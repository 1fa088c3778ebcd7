"""Bodies of requests: nothing is ignored in silence. Pieces of replies: however they are cut, they are the reply."""

from __future__ import annotations

import asyncio
import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.serve.guard import Guard, Rules, bears, refusal
from temper.serve.protocol import BadRequest, Defaults, parse
from temper.serve.replies import ReplyPieces, StopCut, joined, token_texts

CHAT = {"messages": [{"role": "user", "content": "2+2?"}]}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "messages", "prompt", "model", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p",
    "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs", "echo", "tools", "logit_bias", "best_of",
]  # fmt: skip


@given(kind=st.sampled_from(["chat", "text"]), body=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6))
def test_any_body_is_an_ask_or_a_bad_request(kind, body) -> None:
    ask = None
    with contextlib.suppress(BadRequest):  # and no other
        ask = parse(kind, body, Defaults())
    if ask is not None:
        assert 0 < ask.n * len(ask.prompts) <= 128
        assert 0 <= ask.temperature <= 10


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"temprature": 1}, "temprature"),
        ({"n": True}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["", "a"]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(more, key) -> None:
    with pytest.raises(BadRequest) as caught:
        parse("chat", {**CHAT, **more}, Defaults())
    assert caught.value.key == key


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {"tools": [], "response_format": {"type": "text"}, "presence_penalty": 0, "logit_bias": {}, "user": "me",
               "stop": None, "seed": None, "temperature": None}  # fmt: skip
    assert parse("chat", {**CHAT, **nothing}, Defaults()) == parse("chat", CHAT, Defaults())
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
    assert parse("chat", {"messages": [{"role": "user", "content": parts}]}, Defaults()).prompts == (
        parse("chat", CHAT, Defaults()).prompts
    )


@pytest.mark.parametrize(("prompt", "prompts"), [("a", ("a",)), ([1, 2], ((1, 2),)), (["a", [3]], ("a", (3,)))])
def test_prompts_of_every_form(prompt, prompts) -> None:
    assert parse("text", {"prompt": prompt, "max_tokens": 0}, Defaults()).prompts == prompts


LETTERS = st.text(alphabet="ab<>/ \n", max_size=30)
PIECES = ["<think>", "</think>", "<answer>", "</answer>", "ab", " ", "\n", "é", "5", "ba"]


def decode(ids) -> str:
    return bytes(ids).decode("utf-8", "replace")


STRINGS = st.lists(st.text("ab", min_size=1), max_size=2)


@given(text=LETTERS, cuts=st.lists(st.integers(1, 4), max_size=30), strings=STRINGS)
def test_text_in_pieces_ends_at_the_first_stop_string(text, cuts, strings) -> None:
    cut, shown, rest = StopCut(strings), "", text
    for length in cuts:
        shown += cut.push(rest[:length])
        rest = rest[length:]
    shown += cut.push(rest) + cut.end()
    complete = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in strings)]
    ended = text[: complete[0]] if complete else text
    assert shown == ended[: len(ended) - max((len(s) for s in strings if ended.endswith(s)), default=0)]


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    form=st.sampled_from(["tags", "think", "plain", None]),
    stop=st.sampled_from([[], ["ab"], ["\n", "ba5"]]),
    opened=st.booleans(),
)
def test_a_streamed_reply_is_the_whole_reply(text, form, stop, opened) -> None:
    tokens = list(text.encode())
    pieces = ReplyPieces(decode, stop, form, opened)
    streamed = [piece for token in tokens for piece in pieces.push([token])] + pieces.end()
    whole = ReplyPieces(decode, stop, form, opened).whole(tokens)
    assert joined(streamed) == whole
    if form is not None:
        assert whole["content"] == whole["content"].strip()
    assert "".join(token_texts(decode, tokens)) == text


def test_thinking_and_content_stand_apart() -> None:
    reply = ReplyPieces(decode, [], "tags").whole(b"<think> 2+3 </think>\n<answer> 5 </answer>")
    assert reply == {"reasoning_content": "2+3", "content": "5"}
    reply = ReplyPieces(decode, [], "think", thinking_opened=True).whole(b"2+3</think>It is 5.")
    assert reply == {"reasoning_content": "2+3", "content": "It is 5."}


def headers(**more: str) -> list[tuple[bytes, bytes]]:
    told = {"host": "127.0.0.1:8000", "content-type": "application/json", "content-length": "10"}
    told |= {name.replace("_", "-"): value for name, value in more.items()}
    return [(name.encode(), value.encode()) for name, value in told.items() if value]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, None),
        ({"host": "localhost"}, None),
        ({"host": "[::1]:8000"}, None),
        ({"host": "evil.example:8000"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://127.0.0.1:8000"}, None),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "same-origin"}, None),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_length": str(3 << 20)}, 413),
        ({"content_length": "9" * 5000}, 413),
        ({"content_length": "-1"}, 400),
    ],
)
def test_who_may_post(more, status) -> None:
    found = refusal(Rules(), "POST", headers(**more))
    assert (found and found[0]) == status


def test_names_beyond_this_machine_are_those_allowed() -> None:
    rules = Rules("0.0.0.0", ("my.host",))
    assert refusal(rules, "GET", headers(host="my.host:80")) is None
    assert refusal(rules, "GET", headers(host="10.0.0.7:80")) is None  # an address cannot be made to point elsewhere
    assert refusal(rules, "GET", headers(host="other.host:80")) is not None
    assert refusal(Rules(), "GET", headers(host="10.0.0.7:80")) is not None
    assert refusal(Rules(), "GET", [*headers(), (b"host", b"localhost")]) is not None


@given(st.text(alphabet=string.printable, max_size=20))
def test_only_the_token_is_the_token(text) -> None:
    given = [(b"authorization", f"Bearer {text}".encode())]
    assert bears("secret", given) == (text.strip() == "secret")
    assert not bears("secret", [])


def test_more_requests_than_the_rate_are_told_to_come_again() -> None:
    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    answers: list[tuple[int, dict]] = []

    async def send(message) -> None:
        if message["type"] == "http.response.start":
            answers.append((message["status"], dict(message["headers"])))

    async def ask() -> None:
        guard = Guard(app, Rules(rate=1.0))
        for host in (*[b"evil.example"] * 9, *[b"localhost"] * 9):
            await guard({"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host)]}, None, send)

    asyncio.run(ask())
    statuses = [status for status, _ in answers]
    assert statuses[:9] == [421] * 9  # of another site: not counted
    assert statuses[9:12] == [200] * 3
    assert statuses[-1] == 429
    assert answers[-1][1][b"retry-after"] == b"1"
