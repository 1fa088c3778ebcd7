"""The endpoint's paths over a service: bodies in, answers or streams of pieces out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from temper.serve.batcher import Full
from temper.serve.guard import Receive, Scope, Send, TooLong, error_body
from temper.serve.protocol import Ask, BadRequest, Kind, parse

if TYPE_CHECKING:
    from temper.serve.service import Choice, Service

OBJECTS: dict[Kind, str] = {"chat": "chat.completion", "text": "text_completion"}
DRAW = random.Random()  # names of answers: no secrets
BODY_SECONDS = 30.0  # in which a body must have come


def make_app(service: Service) -> Starlette:
    """The endpoint of one model, with no guard around it."""

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(service)]})

    async def model(request: Request) -> Response:
        if request.path_params["name"] != service.name:
            raise BadRequest([("model", f"the model here is {service.name!r}")], 404, "model_not_found")
        return JSONResponse(_model(service))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": service.batcher.load})

    async def chat(request: Request) -> Response:
        return await complete(service, "chat", request)

    async def text(request: Request) -> Response:
        return await complete(service, "text", request)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", text, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)


STARTED = int(time.time())


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": STARTED, "owned_by": "temper"}


# ---- errors --------------------------------------------------------------------------------------------------------


def _bad(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return JSONResponse(error_body(error.status, str(error), error.key, error.code), error.status)


def _full(_: Request, error: Exception) -> Response:
    return JSONResponse(error_body(429, str(error)), 429, {"Retry-After": "1"})


def _too_long(_: Request, error: Exception) -> Response:
    return JSONResponse(error_body(413, str(error)), 413, {"Connection": "close"})


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "no such path: /v1/chat/completions, /v1/completions and /v1/models are here"}
    body = error_body(error.status_code, what.get(error.status_code, error.detail))
    return JSONResponse(body, error.status_code, error.headers)


def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse(error_body(500, f"the reply could not be drawn: {type(error).__name__}: {error}"), 500)


def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)


HANDLERS: dict[Any, Any] = {
    BadRequest: _bad, Full: _full, TooLong: _too_long, HTTPException: _http, ClientDisconnect: _gone,
    Exception: _broken,
}  # fmt: skip


# ---- replies -------------------------------------------------------------------------------------------------------


class Waiter:
    """Wakes one request when the sampler's thread has something for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._rung = False

    def told(self) -> None:
        """Called on the sampler's thread."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._event.set)

    def wake(self) -> None:
        """Called on the loop's thread."""
        self._event.set()

    async def wait(self) -> None:
        """Until something was told since the last call returned."""
        await self._event.wait()
        self._event.clear()
        self._rung = False


async def read_body(request: Request) -> Any:
    """The JSON of a request. Raises BadRequest for what is none, or does not come."""
    try:
        body = await asyncio.wait_for(request.body(), BODY_SECONDS)
    except TimeoutError:
        raise BadRequest([("", f"the body did not come within {BODY_SECONDS:g} s")], 408) from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadRequest([("", f"the body is not JSON: {problem}")]) from None


async def complete(service: Service, kind: Kind, request: Request) -> Response:
    ask = parse(kind, await read_body(request), service.defaults)
    waiter = Waiter()
    choices = service.choices(ask, waiter.told)
    service.batcher.submit([choice.job for choice in choices if choice.job.done is None])
    name = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{DRAW.getrandbits(128):032x}"
    head = {"id": name, "created": int(time.time())}
    if ask.stream:
        return Events(service, ask, choices, waiter, {**head, "model": service.name})
    try:
        await _until_over(request, choices, waiter)
        scored = [await _scored(service, ask, choice) for choice in choices]
    finally:
        cancel(choices)
    bodies = [service.choice_body(ask, choice, found) for choice, found in zip(choices, scored, strict=True)]
    body = {**head, "object": OBJECTS[kind], "model": service.name, "choices": bodies}
    return JSONResponse({**body, "usage": service.usage(choices, ask.n)})


def cancel(choices: Sequence[Choice]) -> None:
    """Nobody waits for these any more."""
    for choice in choices:
        if not choice.job.is_over:
            choice.job.cancelled = True


async def _until_over(request: Request, choices: Sequence[Choice], waiter: Waiter) -> None:
    """Until every reply is. Raises ClientDisconnect where the client has gone, or what went wrong."""
    gone = asyncio.ensure_future(_disconnected(request.receive))
    gone.add_done_callback(lambda _: waiter.wake())
    try:
        while not all(choice.job.is_over for choice in choices):
            await waiter.wait()
            if gone.done():
                raise ClientDisconnect
    finally:
        gone.cancel()
    for choice in choices:
        if choice.job.failed is not None:
            raise choice.job.failed


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _scored(service: Service, ask: Ask, choice: Choice) -> Any:
    """What the model says of a reply's tokens beyond what the sampler did; None where that is not asked for."""
    if not service.needs_scores(ask):
        return None
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(found: Any) -> None:
        if not future.cancelled():
            future.set_exception(found) if isinstance(found, BaseException) else future.set_result(found)

    def told(found: Any) -> None:
        loop.call_soon_threadsafe(settle, found)

    service.batcher.run(lambda: service.score(ask, choice.job), told)
    return await future


class Events(Response):
    """A reply in pieces, as server-sent events; a client that goes away ends the drawing."""

    def __init__(self, service: Service, ask: Ask, choices: Sequence[Choice], waiter: Waiter, head: dict[str, Any]):
        super().__init__()
        self.service, self.ask, self.choices, self.waiter = service, ask, choices, waiter
        self.head = {**head, "object": OBJECTS[ask.kind] + (".chunk" if ask.kind == "chat" else "")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        gone = asyncio.ensure_future(_disconnected(receive))
        writing = asyncio.ensure_future(self._write(send, headers))
        try:
            await asyncio.wait((gone, writing), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                with contextlib.suppress(OSError):
                    writing.result()
        finally:
            writing.cancel()
            gone.cancel()
            cancel(self.choices)

    async def _write(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._events():
            data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            body = f"data: {data}\n\n".encode("utf-8", "replace")
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncIterator[Any]:
        pieces = {choice.index: self.service.pieces(self.ask) for choice in self.choices}
        taken = dict.fromkeys(pieces, 0)
        for choice in self.choices:
            start = {"role": "assistant", "content": ""} if self.ask.kind == "chat" else {}
            yield self._chunk(choice, start or {"content": self.service.echoed(self.ask, choice.job)})
        left = list(self.choices)
        while left:
            for choice in list(left):
                is_over, tokens = choice.job.is_over, choice.job.tokens[taken[choice.index] :]
                if choice.job.failed is not None:
                    yield error_body(500, f"the reply could not be drawn: {choice.job.failed}")
                    return
                taken[choice.index] += len(tokens)
                found = pieces[choice.index].push(tokens) + (pieces[choice.index].end() if is_over else [])
                for kind, text in found:
                    yield self._chunk(choice, {kind: text})
                if is_over:
                    left.remove(choice)
                    scored = await _scored(self.service, self.ask, choice)
                    logprobs = self.service.logprobs(self.ask, choice.job, scored)
                    yield self._chunk(choice, {}, choice.job.done, logprobs)
            if left:
                await self.waiter.wait()
        if self.ask.include_usage:
            yield {**self.head, "choices": [], "usage": self.service.usage(self.choices, self.ask.n)}
        yield "[DONE]"

    def _chunk(self, choice: Choice, delta: dict[str, str], reason: str | None = None, logprobs: Any = None) -> Any:
        body: dict[str, Any] = {"index": choice.index, "logprobs": logprobs, "finish_reason": reason}
        body |= {"delta": delta} if self.ask.kind == "chat" else {"text": delta.get("content", "")}
        return {**self.head, "choices": [body]}
