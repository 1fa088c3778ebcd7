"""Sampling at servers: the completions that this process would have drawn, from the policy's weights or not at all."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import Cut, FakeVllm, Status, hang, serving
from rollout.test_sampler import STOPS, requests
from tiny_models import tiny_model

from temper.errors import ConfigError, ResourceError, TemperError
from temper.rollout.agreement import agreement_with
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.options import ServerConfig
from temper.rollout.server import ServerEngine
from temper.text.stops import StopStrings

SAMPLING = Sampling(8, 0.9, stop_ids=STOPS)


def engine(urls: list[str], tmp_path: Path, model: Any = None, version: Any = lambda: 0, **more: Any) -> ServerEngine:
    config = ServerConfig(**{"servers": urls, "timeout": 5.0, "max_retries": 2, "concurrency": 4, **more})
    model = tiny_model("llama") if model is None else model
    return ServerEngine(model, config, tmp_path / "weights", None, version, None, agreement_with(model, scaled=True))


def tokens(completions: Any) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def test_completions_are_those_of_this_process(tmp_path: Path) -> None:
    wanted = requests(prompts=4, samples=3)
    expected = NativeEngine(tiny_model("llama")).generate(wanted, SAMPLING)
    told = []
    first, second = FakeVllm(), FakeVllm()
    with serving(first, second) as urls, engine(urls, tmp_path) as sampler:
        found = sampler.generate(wanted, SAMPLING, None, lambda number, completion: told.append(number))
    assert tokens(found) == tokens(expected)
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.finish_reason == theirs.finish_reason
        assert torch.allclose(torch.tensor(ours.sampler_logprobs), torch.tensor(theirs.sampler_logprobs), atol=1e-4)
    assert sorted(told) == list(range(12))
    at_first = {tuple(body["prompt"]) for body in first.bodies}
    assert at_first.isdisjoint({tuple(body["prompt"]) for body in second.bodies})  # all samples of a prompt together
    assert len(at_first) == 2
    assert not list((tmp_path / "weights").glob("*"))  # nothing is left behind


def test_new_weights_are_brought_before_anything_is_drawn(tmp_path: Path) -> None:
    model, step, server = tiny_model("llama"), 0, FakeVllm()
    with torch.no_grad():
        for parameter in server.model.parameters():
            parameter.mul_(-1)  # it was started with other weights
    with serving(server) as urls, engine(urls, tmp_path, model, lambda: step) as sampler:
        for step in range(3):
            with torch.no_grad():
                model.model.layers[1].mlp.up_proj.weight.add_(0.05 * step)
            found = sampler.generate(requests(), SAMPLING)
            assert tokens(found) == tokens(NativeEngine(model).generate(requests(), SAMPLING))
            assert {completion.policy_version for completion in found} == {step}
    assert server.asked.count("/collective_rpc") == 3
    order = ["/pause", "/collective_rpc", "/reset_prefix_cache", "/resume"]
    assert [route for route in server.asked if route in order][:4] == order


def test_stop_strings_context_and_continuations(tmp_path: Path) -> None:
    rule = StopStrings(lambda ids: "".join(map(chr, ids)), ["a", "b", "c"])
    sampling = Sampling(20, 1.0, stop_rule=rule)
    wanted = [*requests(prompts=2, samples=4), Request(tuple(range(5, 5 + 60)), 3), Request(tuple(range(5, 70)), 4)]
    wanted.append(Request((5, 6), 9, drawn=(7, 8)))
    expected = NativeEngine(tiny_model("llama")).generate(wanted[:8], sampling)
    with serving(FakeVllm()) as urls, engine(urls, tmp_path) as sampler:
        found = sampler.generate(wanted, sampling)
    assert tokens(found[:8]) == tokens(expected)
    assert [completion.finish_reason for completion in found[:8]] == [c.finish_reason for c in expected]
    assert len(found[8].token_ids) <= 4  # the server's context is 64 tokens
    assert found[9].token_ids == ()
    assert found[10].token_ids


def choice(ids: Any = (5,), values: Any = (-1.0,), reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": values}, "finish_reason": reason}]}


BROKEN = {
    "an error in the middle": Status(500),
    "busy": Status(503),
    "cut off": Cut(),
    "truncated": b'{"choices": [{"token_ids": [5',
    "none of the choices": {"choices": []},
    "more choices than asked": {"choices": [{}, {}]},
    "no ids": choice(None),
    "a log-prob too few": choice([5, 6]),
    "no number": choice([5], [None]),
    "aborted": choice(reason="abort"),
    "ends without an end": choice([50]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_answer_is_asked_for_again(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.rollout.server.FIRST_PAUSE", 0.01)
    broken = iter([BROKEN[what]])

    def fault(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        other = next(broken, None) if route == "/v1/completions" else None
        if isinstance(other, Exception):
            raise other
        return said if other is None else other

    with serving(FakeVllm(fault=fault)) as urls, engine(urls, tmp_path) as sampler:
        found = sampler.generate(requests(), SAMPLING)
    assert tokens(found) == tokens(NativeEngine(tiny_model("llama")).generate(requests(), SAMPLING))


def test_what_stays_broken_is_told_of_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.rollout.server.FIRST_PAUSE", 0.01)

    def fault(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        return b"no" if route == "/v1/completions" else said

    with (
        serving(FakeVllm(fault=fault)) as urls,
        engine(urls, tmp_path) as sampler,
        pytest.raises(ResourceError, match="did not answer") as raised,
    ):
        sampler.generate(requests(), SAMPLING)
    assert raised.value.faults[0].where == urls[0]


def test_a_server_that_dies_or_hangs_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.rollout.server.FIRST_PAUSE", 0.01)
    expected = tokens(NativeEngine(tiny_model("llama")).generate(requests(), SAMPLING))

    def dies(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if len(server.bodies) > 1:
            raise Cut
        return said

    def hangs(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if route == "/v1/completions":
            hang()
        return said

    for fault in (dies, hangs):
        with serving(FakeVllm(fault=fault), FakeVllm()) as urls, engine(urls, tmp_path, timeout=4.0) as sampler:
            assert tokens(sampler.generate(requests(), SAMPLING)) == expected


def test_a_server_that_lost_its_weights_is_given_them_again(tmp_path: Path) -> None:
    server = FakeVllm()
    with serving(server) as urls, engine(urls, tmp_path, version=lambda: 7) as sampler:
        sampler.generate(requests(), SAMPLING)
        server.version, server.model = "default", tiny_model("llama")  # it was started again
        server.model.lm_head.weight.data.mul_(-1)
        found = sampler.generate(requests(), SAMPLING)
    assert tokens(found) == tokens(NativeEngine(tiny_model("llama")).generate(requests(), SAMPLING))


def test_stale_weights_are_never_drawn_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.rollout.server.FIRST_PAUSE", 0.01)

    def restarted(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if route == "/v1/completions":
            said["choices"][0]["weight_versions"] = [{"version": "default", "start": 0, "end": 1}]
        return said

    def restarted_in_silence(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if route == "/v1/completions":
            server.version = "default"
            said["choices"][0].pop("weight_versions")
        return said

    both = {restarted: "was drawn with the weights `default`", restarted_in_silence: "lost the policy"}
    for fault, match in both.items():
        with serving(FakeVllm(fault=fault)) as urls, engine(urls, tmp_path) as sampler:
            with pytest.raises(TemperError) as raised:
                sampler.generate(requests(), SAMPLING)
            assert match in f"{raised.value.faults[0].what} {raised.value.faults[0].why}"


def test_weights_that_never_arrive_are_found_out(tmp_path: Path) -> None:
    model, step = tiny_model("llama"), 0

    class Deaf(FakeVllm):
        def load(self, folder: Path) -> None:
            pass

    with serving(Deaf()) as urls, engine(urls, tmp_path, model, lambda: step) as sampler:
        sampler.generate(requests(), SAMPLING)
        with torch.no_grad():
            model.lm_head.weight.add_(1e-4)
        step = 1
        with pytest.raises(ResourceError, match="never arrived"):
            sampler.generate(requests(), SAMPLING)


def test_two_servers_of_different_weights_are_found_out(tmp_path: Path) -> None:
    class Deaf(FakeVllm):
        def load(self, folder: Path) -> None:
            self.model.lm_head.weight.data.mul_(2)

    with (
        serving(FakeVllm(), Deaf()) as urls,
        engine(urls, tmp_path) as sampler,
        pytest.raises(ResourceError, match="different weights"),
    ):
        sampler.generate(requests(), SAMPLING)


def test_another_model_or_unscaled_logprobs_are_found_out(tmp_path: Path) -> None:
    other = FakeVllm()
    other.model.lm_head.weight.data.mul_(-1)
    is_other = pytest.raises(ConfigError, match="does not answer with the stage's model")
    with serving(other) as urls, engine(urls, tmp_path, weights="keep") as sampler, is_other:
        sampler.generate(requests(), SAMPLING)
    raw = FakeVllm()
    raw.raw = True
    is_raw = pytest.raises(ConfigError, match="before the temperature")
    with serving(raw) as urls, engine(urls, tmp_path) as sampler, is_raw:
        sampler.generate(requests(), Sampling(8, 0.5))


def test_a_kept_server_that_was_gone_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temper.rollout.server.FIRST_PAUSE", 0.01)
    gone = iter([True])

    def once(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if route == "/v1/completions" and next(gone, False):
            raise Cut
        return said

    first, second = FakeVllm(fault=once), FakeVllm()
    with serving(first, second) as urls, engine(urls, tmp_path, weights="keep") as sampler:
        for _ in range(2):
            asked = len(first.bodies)
            sampler.generate(requests(), SAMPLING)
        assert len(first.bodies) > asked


def test_kept_weights_need_none_of_the_development_routes(tmp_path: Path) -> None:
    server = FakeVllm(lacks=("/pause", "/collective_rpc", "/weight_info", "/weight_checker", "/update_weight_version"))
    with serving(server) as urls, engine(urls, tmp_path, weights="keep") as sampler:
        found = sampler.generate(requests(), SAMPLING)
    assert tokens(found) == tokens(NativeEngine(tiny_model("llama")).generate(requests(), SAMPLING))
    lacking = pytest.raises(ConfigError)
    with serving(FakeVllm(lacks=("/pause",))) as urls, engine(urls, tmp_path) as sampler, lacking as raised:
        sampler.generate(requests(), SAMPLING)
    assert "VLLM_SERVER_DEV_MODE=1" in raised.value.faults[0].fix


def test_servers_that_are_not_there_or_serve_something_else(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be asked"), engine(["http://127.0.0.1:9"], tmp_path):
        pass
    config = {"servers": [], "model": "mine"}
    with serving(FakeVllm()) as config["servers"], pytest.raises(ConfigError, match="no model `mine`"):
        ServerEngine(tiny_model("llama"), ServerConfig(**config), tmp_path).__enter__()


def test_an_interrupt_ends_the_calls_under_way(tmp_path: Path) -> None:
    hanging = threading.Event()

    def hangs(server: FakeVllm, route: str, body: dict, said: Any) -> Any:
        if route == "/v1/completions":
            hanging.set()
            hang()
        return said

    def interrupt() -> None:
        hanging.wait()
        time.sleep(0.1)  # until it is waited for
        os.kill(os.getpid(), signal.SIGINT)

    before = threading.active_count()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background may ignore it
    try:
        with serving(FakeVllm(fault=hangs)) as urls, engine(urls, tmp_path, timeout=60.0) as sampler:
            sampler._servers[0].post("/v1/models")
            threading.Thread(target=interrupt, daemon=True).start()
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                sampler.generate(requests(), SAMPLING)
            assert time.monotonic() - began < 30
    finally:
        signal.signal(signal.SIGINT, handler)
    assert threading.active_count() <= before + 12  # of the fake server's own


WRONG = [[], ["localhost:8000"], ["http://"], ["ftp://a"], ["http://me:x@a"], ["http://a", "http://a/"], ["http://a b"]]


@pytest.mark.parametrize("urls", WRONG)
def test_addresses_that_cannot_be_ones_are_refused(urls: list[str]) -> None:
    with pytest.raises(ValueError, match=r"server|at least 1"):
        ServerConfig(servers=urls)
