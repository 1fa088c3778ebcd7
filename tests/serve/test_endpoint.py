"""The endpoint over a socket: what clients read, who is refused, and that many at once get what each would alone."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from doc_pages import snippets
from model_zoo import make

from temper.cli import main
from temper.commands.serve import token_for
from temper.errors import TemperError
from temper.serve.guard import Guard, Rules
from temper.serve.protocol import Defaults
from temper.serve.server import bind, check_installed
from temper.serve.service import Service, open_service

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

ASK = {"messages": [{"role": "user", "content": "What is 2+2?"}], "seed": 1, "max_tokens": 12}
TOKEN = "a-token"


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    path = make("qwen2", tmp_path_factory.mktemp("serve") / "m")
    with open_service(path, "m", Defaults(8, 1.0, 1.0), "tags", 256, lambda text: None) as service:
        yield service


def serving(service: Service, rules: Rules) -> Iterator[int]:
    from temper.serve.app import make_app

    config = uvicorn.Config(
        Guard(make_app(service), rules, ("/health",)), log_level="error", lifespan="off", ws="none",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(service) -> Iterator[int]:
    yield from serving(service, Rules())


@pytest.fixture(scope="module")
def guarded(service) -> Iterator[int]:
    yield from serving(service, Rules(token=TOKEN))


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """(status, JSON) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    told = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, told)
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, json.loads(raw) if raw.startswith(b"{") else raw.decode()


def chat(port: int, **more: Any) -> Any:
    status, said = ask(port, "/v1/chat/completions", {**ASK, **more})
    assert status == 200, said
    return said


def events(port: int, path: str, body: Any) -> list[Any]:
    status, said = ask(port, path, {**body, "stream": True})
    assert status == 200
    assert said.endswith("data: [DONE]\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in said.split("\n\n") if line[6:7] == "{"]


def test_the_model_is_listed_by_a_name_that_is_no_path(port) -> None:
    _, listed = ask(port, "/v1/models")
    assert [model["id"] for model in listed["data"]] == ["m"]
    assert ask(port, "/v1/models/m")[1]["id"] == "m"
    assert ask(port, "/v1/models/other")[0] == 404
    assert ask(port, "/health")[1] == {"status": "ok", "waiting": 0}


def test_a_seed_gives_the_same_replies_and_n_of_them(port) -> None:
    said = chat(port, n=3)
    assert said == {**chat(port, n=3), "id": said["id"], "created": said["created"]}
    texts = [choice["message"]["content"] for choice in said["choices"]]
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert chat(port, n=1)["choices"][0]["message"]["content"] == texts[0]
    assert said["usage"]["completion_tokens"] <= 36
    assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] + said["usage"]["completion_tokens"]


def test_streamed_pieces_joined_are_the_reply(port) -> None:
    whole = chat(port, n=2, max_tokens=30)
    chunks = events(port, "/v1/chat/completions",
                    {**ASK, "n": 2, "max_tokens": 30, "stream_options": {"include_usage": True}})  # fmt: skip
    assert chunks[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
    body = {"prompt": "Once", "seed": 3, "max_tokens": 20, "echo": True}
    _, text = ask(port, "/v1/completions", body)
    streamed = events(port, "/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == text["choices"][0]["text"]


def test_a_reply_ends_before_its_stop_string(port) -> None:
    whole = ask(port, "/v1/completions", {"prompt": "Once", "seed": 3, "max_tokens": 30})[1]["choices"][0]["text"]
    stop = whole[6:8]
    body = {"prompt": "Once", "seed": 3, "max_tokens": 30, "stop": [stop, "never"]}
    [choice] = ask(port, "/v1/completions", body)[1]["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == whole[: whole.index(stop)]
    assert "".join(c["choices"][0]["text"] for c in events(port, "/v1/completions", body)) == choice["text"]


def test_logprobs_are_those_of_the_tokens(port) -> None:
    [choice] = chat(port, logprobs=True, top_logprobs=3, temperature=0)["choices"]
    rows = choice["logprobs"]["content"]
    assert rows
    for row in rows:
        assert row["top_logprobs"][0]["logprob"] == pytest.approx(row["logprob"], abs=1e-3)  # greedy: the likeliest
        assert row["top_logprobs"][0]["token"] == row["token"]
        assert bytes(row["bytes"]).decode() == row["token"]
    [plain] = chat(port, logprobs=True, temperature=0)["choices"]
    assert [row["logprob"] for row in plain["logprobs"]["content"]] == pytest.approx([r["logprob"] for r in rows])
    last = events(port, "/v1/chat/completions", {**ASK, "logprobs": True, "temperature": 0})[-1]
    assert last["choices"][0]["logprobs"] == plain["logprobs"]


def test_the_likelihood_of_a_given_text(port, service) -> None:
    """As lm-eval asks for it: the prompt given back, with its log-probs, and nothing drawn, or one token."""
    ids = list(service.chat.tokenizer.encode("The answer is 4."))
    body = {"prompt": ids, "echo": True, "logprobs": 1, "temperature": 0}
    [nothing] = ask(port, "/v1/completions", {**body, "max_tokens": 0})[1]["choices"]
    [one] = ask(port, "/v1/completions", {**body, "max_tokens": 1})[1]["choices"]
    told = nothing["logprobs"]
    assert nothing["text"] == "The answer is 4." == "".join(told["tokens"])
    assert [len(told[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [len(ids)] * 4
    assert told["token_logprobs"][0] is None
    assert one["logprobs"]["token_logprobs"][1 : len(ids)] == pytest.approx(told["token_logprobs"][1:], abs=1e-4)
    assert max(one["logprobs"]["top_logprobs"][-1].values()) == pytest.approx(one["logprobs"]["token_logprobs"][-1])


def test_many_at_once_get_what_each_would_alone(port) -> None:
    bodies = [
        {"prompt": f"{i}", "seed": i, "max_tokens": 3 + i % 20, "temperature": i % 2, "stream": i % 7 == 0}
        for i in range(24)
    ]  # fmt: skip

    def text(body: dict) -> str:
        if body["stream"]:
            return "".join(chunk["choices"][0]["text"] for chunk in events(port, "/v1/completions", body))
        return ask(port, "/v1/completions", body)[1]["choices"][0]["text"]

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(text, bodies))
    assert together == [text(body) for body in bodies]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/chat/completions", {**ASK, "model": "gpt-9"}, 404, "'m'"),
        ("/v1/chat/completions", {**ASK, "n": 0}, 400, "`n`"),
        ("/v1/chat/completions", b"{", 400, "JSON"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "JSON"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * 2000}]}, 400, "context"),
        ("/v1/chat/completions", {**ASK, "messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ("/v1/completions", {"prompt": [10**6]}, 400, "no token"),
        ("/v1/completions", {"prompt": "x " * 2000}, 400, "context"),
        ("/v1/embeddings", {}, 404, "no such path"),
        ("/v1/chat/completions", None, 405, ""),
        ("/v1/completions", b" " * (3 << 20), 413, "bytes"),
        ("/v1/completions", {"prompt": ["a"] * 100, "n": 2}, 400, "more than"),
    ],
)
def test_what_cannot_be_answered_is_told_as_clients_read_it(port, path, body, status, said) -> None:
    found, answer = ask(port, path, body)
    assert found == status
    assert said in answer["error"]["message"]


def test_too_many_are_told_to_come_again(port, service, monkeypatch) -> None:
    monkeypatch.setattr(service.batcher, "capacity", 2)
    assert ask(port, "/v1/chat/completions", {**ASK, "n": 3})[0] == 429


def test_pages_of_other_sites_and_other_names_are_refused(port) -> None:
    assert ask(port, "/v1/chat/completions", ASK, Origin="http://evil.example")[0] == 403
    assert ask(port, "/v1/models", Host="evil.example")[0] == 421
    assert ask(port, "/v1/chat/completions", ASK, Content_Type="text/plain")[0] == 415


def test_with_a_token_nothing_is_answered_without_it(guarded) -> None:
    assert ask(guarded, "/v1/models")[0] == 401
    assert ask(guarded, "/v1/models", Authorization="Bearer nonsense")[0] == 401
    assert ask(guarded, "/v1/models", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(guarded, "/health")[0] == 200


def test_a_client_that_goes_away_ends_its_drawing(port, service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"prompt": "Once", "max_tokens": 480, "stream": True, "n": 8}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read(200)
    answer.close()
    connection.close()
    for _ in range(600):
        if service.batcher.load == 0:
            break
        time.sleep(0.05)
    assert service.batcher.load == 0


def test_the_official_client(port) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["m"]
        whole = client.chat.completions.create(model="m", **ASK, n=2, logprobs=True)
        pieces: dict[int, str] = {0: "", 1: ""}
        for chunk in client.chat.completions.create(model="m", **ASK, n=2, stream=True):
            for choice in chunk.choices:
                pieces[choice.index] += choice.delta.content or ""
        assert list(pieces.values()) == [choice.message.content for choice in whole.choices]
        assert whole.choices[0].logprobs.content
        text = client.completions.create(model="m", prompt=["a", "b"], max_tokens=3, seed=1)
        assert len(text.choices) == 2
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", **ASK)
        with pytest.raises(openai.BadRequestError, match="no such key"):
            client.chat.completions.create(model="m", **ASK, extra_body={"no_such_key": 1})


def test_the_example_of_the_page(port, capsys) -> None:
    pytest.importorskip("openai")
    (text,) = (text for page, text in snippets("python") if page == "serve.md")
    here = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("tiny-…", "m")
    assert here.count(str(port)) == 1
    names: dict[str, Any] = {}
    exec(compile(here, "serve.md", "exec"), names)
    names["client"].close()
    message = names["reply"].choices[0].message
    assert capsys.readouterr().out == f"{message.reasoning_content} {message.content}\n"


def test_our_own_judge_can_ask(port) -> None:
    from temper.rewards.endpoint import Endpoint, Limits

    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", None, Limits(timeout=60, max_retries=0, concurrency=2))
    [answer] = endpoint.ask_all([{"model": "m", **ASK}])
    assert answer == chat(port)["choices"][0]["message"]["content"]


def test_a_host_that_others_reach_gets_a_token(monkeypatch) -> None:
    monkeypatch.delenv("TEMPER_TOKEN", raising=False)
    assert token_for("127.0.0.1") is None
    assert len(token_for("0.0.0.0") or "") > 20
    monkeypatch.setenv("TEMPER_TOKEN", TOKEN)
    assert token_for("127.0.0.1") == TOKEN


def test_options_that_cannot_be_are_named_together(capsys) -> None:
    assert main(["serve", "tiny-base", "--port", "70000", "--max-waiting", "0"]) == 2
    err = capsys.readouterr().err
    assert "--port" in err
    assert "--max-waiting" in err
    assert main(["serve", "tiny-base", "--host", "no.such.host.invalid", "--port", "0"]) == 2


def test_a_port_that_is_taken_is_one_error(capsys) -> None:
    with bind("127.0.0.1", 0) as bound:
        assert main(["serve", "tiny-base", "--port", str(bound.getsockname()[1])]) == 4
    assert "is taken" in capsys.readouterr().err


def test_without_the_extra_it_is_named(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TemperError, match="starlette and uvicorn") as caught:
        check_installed()
    assert caught.value.code == 9
