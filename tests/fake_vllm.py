"""A server with vLLM's routes as far as temper asks them, over a tiny model of its own, and every fault on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_models import tiny_model

from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine

Fault = Callable[["FakeVllm", str, dict[str, Any], Any], Any]  # (server, route, body, answer) -> another answer


class FakeVllm:
    """`fault` may change what is answered, raise `Status`, or hang; `lacks` are routes that are not there."""

    def __init__(
        self, model: Any = None, fault: Fault | None = None, lacks: tuple[str, ...] = (), context: int = 64
    ):
        self.model, self.context = tiny_model("llama") if model is None else model, context
        self.fault, self.lacks = fault, lacks
        self.version, self.paused, self.raw = "default", False, False
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, route: str, body: dict[str, Any]) -> Any:
        with self._lock:  # one forward at a time
            self.asked.append(route)
            if route in self.lacks:
                raise Status(404)
            said = self._answer(route, body)
        return said if self.fault is None else self.fault(self, route, body, said)

    def _answer(self, route: str, body: dict[str, Any]) -> Any:
        if route == "/v1/models":
            return {"data": [{"id": "policy", "max_model_len": self.context}]}
        if route == "/v1/completions":
            self.bodies.append(body)
            return self._complete(body)
        if route in ("/pause", "/resume"):
            self.paused = route == "/pause"
        elif route == "/collective_rpc":
            self.load(Path(body["kwargs"]["weights_path"]))
        elif route == "/update_weight_version":
            self.version = body["new_version"]
        elif route == "/weight_info":
            return {"weight_version": self.version}
        elif route == "/weight_checker":
            return {"checksums": self.checksums()}
        elif route not in ("/reset_prefix_cache", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            raise Status(404)
        return {}

    def load(self, folder: Path) -> None:
        assert (folder / "config.json").exists()
        self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)

    def checksums(self) -> dict[str, str]:
        state = self.model.state_dict().items()
        return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in state}

    @torch.no_grad()
    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.paused:
            raise Status(503)
        sampling = Sampling(
            body["max_tokens"], body["temperature"], body["top_p"], body["top_k"], body["min_p"],
            tuple(body["stop_token_ids"]),
        )  # fmt: skip
        [drawn] = NativeEngine(self.model).generate([Request(tuple(body["prompt"]), body["seed"])], sampling)
        values = list(drawn.sampler_logprobs)
        if self.raw:
            ids = torch.tensor([[*body["prompt"], *drawn.token_ids]])
            plain = tiny_model("llama", "eager")
            plain.load_state_dict(self.model.state_dict())
            logits = plain(input_ids=ids).logits[0, len(body["prompt"]) - 1 : -1].log_softmax(-1)
            values = [row[token].item() for row, token in zip(logits, drawn.token_ids, strict=True)]
        choice = {
            "index": 0, "text": "", "finish_reason": drawn.finish_reason, "token_ids": list(drawn.token_ids),
            "logprobs": {"token_logprobs": values},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(values)}],
        }  # fmt: skip
        return {"choices": [choice]}


class Status(Exception):
    """Answered with this HTTP status."""


class Cut(Exception):
    """Hang up without an answer."""


@contextmanager
def serving(*servers: FakeVllm) -> Iterator[list[str]]:
    """The addresses of the servers, on loopback."""
    running = []
    for server in servers:
        http = _Server(("127.0.0.1", 0), _handler(server))
        http.daemon_threads, http.block_on_close = True, False
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        running.append(http)
    try:
        yield [server.url for server in servers]
    finally:
        for http in running:
            http.shutdown()
            http.server_close()


def _handler(server: FakeVllm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            try:
                said = server.answer(self.path.partition("?")[0], body)
            except Status as status:
                self.send_error(int(str(status)))
                return
            except Cut:
                self.close_connection = True
                return
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            with contextlib.suppress(OSError):  # whoever asked may have hung up
                self.send_response(200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # all calls of a step may come at once


def hang(seconds: float = 60.0) -> None:
    time.sleep(seconds)
