"""The page's paths: what the views ask for, as JSON; numbers for runs, names for stages, no path of this machine."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from temper.errors import TemperError
from temper.masking import masked
from temper.serve.app import HANDLERS as ENDPOINT_ERRORS
from temper.serve.app import complete
from temper.serve.guard import error_body
from temper.ui import actions, exports
from temper.ui.index import Index, connect
from temper.ui.library import Library, Unknown, curves, details, overview
from temper.ui.models import Models
from temper.ui.search import Reader, WrongFilter, read_filter
from temper.ui.starts import Starts

ASSETS = Path(__file__).parent / "assets"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Pages:
    """What other commands tell of a run, shown as pages here: a diagnosis, and two models on the same prompts."""

    explain: Callable[[Path], list[dict[str, Any]]]
    compare: Callable[[str, str, str | None, str | None], dict[str, Any]]


class Desk:
    """What one page server keeps: its runs, their indexes, the models that are open."""

    def __init__(self, library: Library, models: Models, pages: Pages, starts: Starts | None = None):
        """Without `starts` the page is read-only: it changes nothing, and writes nothing into runs."""
        self.library, self.models, self.pages, self.starts = library, models, pages, starts
        self._indexes: dict[Path, Index] = {}
        self._busy: set[Path] = set()
        self._lock = threading.Lock()
        self.closing = False

    def index(self, number: str) -> Index:
        """The index of a run, brought up to date in the background. Raises Unknown."""
        path = self.library.path(number)
        with self._lock:
            index = self._indexes.setdefault(path, Index(path, is_beside=self.starts is not None))
            if path not in self._busy:
                self._busy.add(path)
                threading.Thread(target=self._update, args=(number, path, index), daemon=True).start()
        return index

    @property
    def busy(self) -> bool:
        """Whether an index is being brought up to date."""
        with self._lock:
            return bool(self._busy)

    def unplaced(self, text: str) -> str:
        """A text with the names of runs where it had their places on this machine."""
        for path in self.library.paths().values():
            text = text.replace(str(path), path.name)
        return text

    def _update(self, number: str, path: Path, index: Index) -> None:
        try:
            index.update(self.library.sources(number), lambda: self.closing)
        except (OSError, sqlite3.Error, Unknown) as problem:  # shown beside what there is
            index.problem = str(problem)
        finally:
            with self._lock:
                self._busy.discard(path)


def answer(value: Any, status: int = 200) -> Response:
    """JSON without anything that looks like a secret."""
    body = json.dumps(plain(masked(value)), ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
    return Response(body.encode("utf-8", "backslashreplace"), status, media_type="application/json")


def plain(value: Any) -> Any:
    """A value as JSON has it: an infinity, or what is no number, as a text.

    >>> plain({"a": [1.5, float("-inf")], 3: float("nan")})
    {'a': [1.5, '-inf'], '3': 'nan'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def make_app(desk: Desk) -> Starlette:
    """The page of a desk, with no session or guard around it."""
    views: Mapping[str, Callable[[Desk, Request], Any]] = {
        "/api/page": lambda desk, _: {"read_only": desk.starts is None},
        "/api/models": lambda desk, _: desk.models.all(desk.library),
        "/api/runs": lambda desk, _: overview(desk.library),
        "/api/runs/{run}": run_details,
        "/api/runs/{run}/curves/{stage}": stage_curves,
        "/api/runs/{run}/explain": explain,
        "/api/runs/{run}/facets": facets,
        "/api/runs/{run}/completions": completions,
        "/api/runs/{run}/histogram": histogram,
        "/api/runs/{run}/group/{row:int}": group,
        "/api/runs/{run}/prompt": prompt,
        "/api/compare": compare,
    }
    routes = [Route(path, partial(_view, desk, view)) for path, view in views.items()]
    routes += [
        Route("/api/runs/{run}/export", partial(_export, desk)),
        Route("/api/runs/{run}/chat/{stage}", partial(_chat, desk), methods=["POST"]),
        *actions.routes(desk, answer),
        Route("/", asset),
        Route("/{name}", asset),
    ]

    async def fault(_: Request, error: Exception) -> Response:
        assert isinstance(error, TemperError)
        said = "; ".join(" – ".join(filter(None, (f.what, f.why))) for f in error.faults)
        return answer(error_body(409, desk.unplaced(said)), 409)

    return Starlette(routes=routes, exception_handlers={**HANDLERS, TemperError: fault})


async def _view(desk: Desk, view: Callable[[Desk, Request], Any], request: Request) -> Response:
    return answer(await run_in_threadpool(view, desk, request))


async def asset(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    path = ASSETS / name
    if "/" in name or path.suffix not in TYPES or not path.is_file():
        raise Unknown("no such page")
    return Response(path.read_bytes(), media_type=TYPES[path.suffix])


# -- runs -------------------------------------------------------------------------------------------------------------


def run_details(desk: Desk, request: Request) -> Any:
    number = request.path_params["run"]
    path = desk.library.path(number)
    return details(number, path, desk.library.snapshot(number))


def stage_curves(desk: Desk, request: Request) -> Any:
    try:
        after = int(request.query_params.get("after", "-1"))
    except ValueError:
        raise WrongFilter("`after` is a step") from None
    return curves(desk.library.snapshot(request.path_params["run"]), request.path_params["stage"], after)


def explain(desk: Desk, request: Request) -> Any:
    return desk.pages.explain(desk.library.path(request.path_params["run"]))


def compare(desk: Desk, request: Request) -> Any:
    """Two measured models, each by its run's number and its stage's name."""
    given = request.query_params
    sides = [f"{desk.library.path(given.get(f'{side}_run', ''))}:{given.get(f'{side}_stage', '')}" for side in "ab"]
    first, second = sides
    found = desk.pages.compare(first, second, given.get("task") or None, given.get("metric") or None)
    for side in "ab":
        found[side] = {"model": found[side]["model"], "run": given.get(f"{side}_run")}
    return found


# -- completions ------------------------------------------------------------------------------------------------------


def _read(desk: Desk, request: Request, ask: Callable[[Reader], dict[str, Any]]) -> dict[str, Any]:
    """What the index says, and how far it is; nothing yet where it has just been begun."""
    index = desk.index(request.path_params["run"])
    try:
        with closing(connect(index.path)) as connection:
            found = ask(Reader(connection))
    except sqlite3.OperationalError as problem:
        found = {"rows": [], "elsewhere": [], "total": 0, "empty": str(problem)}
    progress = index.progress
    about = {"done": progress.done, "of": progress.of, "rows": progress.rows, "problem": index.problem}
    return {**found, "indexed": about}


def facets(desk: Desk, request: Request) -> Any:
    return _read(desk, request, Reader.facets)


def completions(desk: Desk, request: Request) -> Any:
    wanted = read_filter(request.query_params)
    try:
        start = int(request.query_params.get("start", "0"))
    except ValueError:
        raise WrongFilter("`start` is a number") from None
    return _read(desk, request, lambda reader: reader.page(wanted, start))


def histogram(desk: Desk, request: Request) -> Any:
    wanted = read_filter(request.query_params)
    name = request.query_params.get("of", "total")
    return _read(desk, request, lambda reader: reader.histogram(wanted, name))


def group(desk: Desk, request: Request) -> Any:
    row = request.path_params["row"]
    return _read(desk, request, lambda reader: {"rows": reader.group(row), "elsewhere": reader.elsewhere(row)})


def prompt(desk: Desk, request: Request) -> Any:
    """Where the prompt of a completion of another run (`of`, `row`) was sampled in this one."""
    other = desk.index(request.query_params.get("of", ""))
    try:
        row = int(request.query_params.get("row", ""))
        with closing(connect(other.path)) as connection:
            [found] = Reader(connection).bodies([row])
    except (ValueError, OverflowError, sqlite3.OperationalError):
        raise Unknown("no such completion") from None
    key = [str(found.get(name) or "") for name in ("task", "prompt_id", "prompt")]
    return _read(desk, request, lambda reader: {"elsewhere": reader.of_prompt(*key)})


async def _export(desk: Desk, request: Request) -> Response:
    """What fits, as a file of at most so many completions: JSON Lines, or `as=eval` for Inspect's viewer."""
    wanted, kind = read_filter(request.query_params), request.query_params.get("as", "jsonl")
    run = desk.library.path(request.path_params["run"]).name

    def make() -> tuple[str, str, bytes]:
        def page(start: int, count: int) -> list[dict[str, Any]]:
            return _read(desk, request, lambda reader: reader.page(wanted, start, count))["rows"]

        return exports.as_file(kind, exports.collect(page), run, asdict(wanted))

    name, media, content = await run_in_threadpool(make)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=media, headers=headers)


# -- chat -------------------------------------------------------------------------------------------------------------


async def _chat(desk: Desk, request: Request) -> Response:
    """As `/v1/chat/completions` of `temper serve`, for a model of a run."""
    run, stage = request.path_params["run"], request.path_params["stage"]
    service = await run_in_threadpool(desk.models.of, run, stage, desk.library)
    return await complete(service, "chat", request)


# -- errors -----------------------------------------------------------------------------------------------------------


async def _unknown(_: Request, error: Exception) -> Response:
    return answer(error_body(404, str(error)), 404)


async def _wrong(_: Request, error: Exception) -> Response:
    return answer(error_body(400, str(error)), 400)


HANDLERS: dict[Any, Any] = {**ENDPOINT_ERRORS, Unknown: _unknown, WrongFilter: _wrong}
