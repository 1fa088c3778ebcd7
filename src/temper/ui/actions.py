"""What the page can do beside showing: plan, start and stop runs. None of it where the page is read-only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.serve.app import read_body
from temper.serve.guard import error_body
from temper.ui.recipes import describe, told
from temper.ui.starts import Refused, Starts

if TYPE_CHECKING:
    from temper.ui.app import Desk

Answer = Callable[..., Response]


def routes(desk: Desk, answer: Answer) -> list[Route]:
    """The paths; `answer` makes JSON that tells no secret."""

    def get(path: str, ask: Callable[[Starts, Request], Any]) -> Route:
        return Route(path, partial(_ask, desk, answer, ask))

    def post(path: str, do: Callable[[Starts, Request, Any], Any]) -> Route:
        return Route(path, partial(_do, desk, answer, do), methods=["POST"])

    return [
        get("/api/recipes", lambda starts, _: [
            {"id": known.number, "name": known.name, "from": known.shown} for known in starts.recipes.all()]),
        get("/api/recipes/{recipe}", lambda starts, asked: describe(
            starts.recipes.known(asked.path_params["recipe"]))),
        get("/api/started", lambda starts, _: starts.started()),
        post("/api/plan", lambda starts, _, body: starts.plan(_text(body, "recipe"), body.get("settings", []))),
        post("/api/start", lambda starts, _, body: starts.start(_text(body, "plan"), body.get("changed") is True)),
        post("/api/runs/{run}/stop", lambda starts, asked, _: starts.stop(asked.path_params["run"])),
    ]  # fmt: skip


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise ConfigError(Fault(f"`{key}` is missing"))
    return value


async def _ask(desk: Desk, answer: Answer, ask: Callable[[Starts, Request], Any], request: Request) -> Response:
    try:
        return answer(await run_in_threadpool(ask, _allowed(desk), request))
    except (TemperError, Refused) as error:
        return refusal(desk, answer, error)


async def _do(desk: Desk, answer: Answer, do: Callable[[Starts, Request, Any], Any], request: Request) -> Response:
    try:
        starts = _allowed(desk)
        body = await read_body(request)
        if not isinstance(body, dict):
            raise ConfigError(Fault("the body is not a JSON object"))
        return answer(await run_in_threadpool(do, starts, request, body))
    except (TemperError, Refused) as error:
        return refusal(desk, answer, error)


class ReadOnly(TemperError):
    """The page was started so that it changes nothing."""


def _allowed(desk: Desk) -> Starts:
    if desk.starts is None:
        raise ReadOnly(Fault("this page is read-only", fix="start `temper ui` without --read-only"))
    return desk.starts


def refusal(desk: Desk, answer: Answer, error: TemperError | Refused) -> Response:
    """What was wrong, with every fault; a run's directory is called by its name."""
    faults = [told(fault) for fault in error.faults] if isinstance(error, TemperError) else []
    code = error.code if isinstance(error, TemperError) else Exit.CONFIG
    status = 403 if isinstance(error, ReadOnly) else 423 if code == Exit.LOCKED else 422
    said = error_body(status, desk.unplaced(str(error)))
    faults = [{key: desk.unplaced(text) for key, text in fault.items()} for fault in faults]
    return answer({**said, "faults": faults}, status)
