"""A reward over HTTP: a batch a request, or NeMo-Gym's shape; what fails is counted, what hangs has a deadline."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from temper.errors import ConfigError
from temper.rewards import endpoint, load_rewards
from temper.rewards.score import Scorer
from temper.rewards.worker import Limits
from temper.stages.rewards import reward_label
from temper.text.reply import parse_reply
from temper.types import Message, Prompt

PROMPT = Prompt("1", "t", (Message("user", "2+3?"),), "5", row={"nums": [2, 3]})
PAIRS = [(PROMPT, parse_reply(text)) for text in ("five", "5", "no")]


@contextmanager
def serving(answer: Callable[[str, dict], Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = answer(self.path, body)
            sent = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(500 if sent == b"broken" else 200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()


def scores(url: str, pairs: list = PAIRS, timeout: float = 5) -> list:
    return Scorer(load_rewards([url], limits=Limits(timeout=timeout))).score_all(pairs)


def test_a_batch_is_one_request_with_all_that_there_is() -> None:
    asked = []

    def answer(path: str, body: dict) -> dict:
        asked.append((path, body))
        return {"rewards": [len(text) if "o" not in text else None for text in body["completions"]]}

    with serving(answer) as url:
        found = scores(f"{url}/score")
    assert [dict(score.rewards).get(f"{url}/score") for score in found] == [4.0, 1.0, None]
    ((path, body),) = asked
    assert path == "/score"
    assert body == {
        "prompts": [[{"role": "user", "content": "2+3?"}]] * 3, "completions": ["five", "5", "no"], "golds": ["5"] * 3,
        "rows": [{"nums": [2, 3]}] * 3,
    }  # fmt: skip


def test_nemo_gyms_servers_are_asked_a_reply_at_a_time() -> None:
    def answer(path: str, body: dict) -> dict:
        text = body["response"]["output"][0]["content"][0]["text"]
        assert body["responses_create_params"]["input"] == [{"role": "user", "content": "2+3?"}]
        return {**body, "reward": float(text == "5") + body["nums"][0]}

    with serving(answer) as url:
        assert [score.total for score in scores(f"{url}/verify")] == [2.0, 3.0, 2.0]


@pytest.mark.parametrize("said", [{"rewards": [1.0]}, {"rewards": ["a", "b", "c"]}, b"no json", {"other": 1}, [1.0]])
def test_an_answer_that_is_none_fails_the_replies(said: Any) -> None:
    with serving(lambda path, body: said) as url:
        assert all(score.failures for score in scores(url))


def test_what_breaks_or_hangs_is_tried_again_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.05)
    turns = iter([b"broken", {"rewards": [1.0, 1.0, 1.0]}])
    with serving(lambda path, body: next(turns)) as url:
        assert [score.total for score in scores(url)] == [1.0] * 3
    began = time.monotonic()
    with serving(lambda path, body: time.sleep(20)) as url:
        found = scores(url, timeout=0.2)
        assert time.monotonic() - began < 20
    assert "no answer within 0.2 s" in next(iter(found[0].reasons.values()))


@pytest.mark.parametrize("url", ["http://", "http://user:secret@host/x", "https:///path", "http://a b/"])
def test_an_address_that_cannot_be_is_refused_and_no_secret_shown(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_rewards([url])
    assert "secret" not in raised.value.render()


def test_an_address_is_called_by_host_and_path() -> None:
    assert reward_label("http://localhost:8000/verify") == "localhost:8000/verify"
