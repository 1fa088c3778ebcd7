"""A page server over run directories of its own, on a real socket."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_runs import make_run

from temper.serve.guard import Guard, Rules
from temper.serve.server import bind


class Page:
    """A server and one browser's cookie."""

    def __init__(self, port: int, links: list[str], desk: Any):
        self.port, self.links, self.desk, self.cookie = port, links, desk, ""

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """(status, what was said, headers)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        told = {"Cookie": self.cookie} if self.cookie else {}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        connection.request(method, path, None if body is None else json.dumps(body), told)
        answer = connection.getresponse()
        raw, given = answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        is_json = given.get("content-type", "").partition(";")[0] == "application/json" and raw
        return answer.status, json.loads(raw) if is_json else raw, given

    def raw(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie})
        return connection.getresponse().read()

    def get(self, path: str) -> Any:
        status, said, _ = self.ask(path)
        assert status == 200, said
        return said

    def enter(self) -> None:
        _, _, headers = self.ask(f"/enter?token={self.links[-1]}")
        self.cookie = re.match(r"[^;]+", headers["set-cookie"])[0]  # type: ignore[index]

    def indexed(self, run: str) -> Any:
        """The facets of a run, once all its completions are in the index."""
        for _ in range(1500):
            found = self.get(f"/api/runs/{run}/facets")
            if found["indexed"]["of"] and found["indexed"]["done"] == found["indexed"]["of"] and not self.desk.busy:
                return self.get(f"/api/runs/{run}/facets")
            threading.Event().wait(0.02)
        raise AssertionError(found)


@pytest.fixture(scope="module")
def serve_page() -> Iterator[Any]:
    """Starts a page over folders; all are ended with the module."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from temper.commands.ui import compare, explain
    from temper.ui.app import Desk, Pages, make_app
    from temper.ui.library import Library
    from temper.ui.models import Models
    from temper.ui.recipes import Recipes
    from temper.ui.session import Session
    from temper.ui.starts import Starts

    ends = []

    def start(*folders: Path, starts: Any = ..., directories: tuple[Path, ...] = ()) -> Page:
        models = Models(directories)
        links: list[str] = []
        library = Library(list(folders))
        starts = Starts(library, Recipes([], folders)) if starts is ... else starts
        desk = Desk(library, models, Pages(explain, compare), starts)
        bound = bind("127.0.0.1", 0)
        session = Session(make_app(desk), "temper_test", links.append)
        config = uvicorn.Config(Guard(session, Rules()), log_level="error", lifespan="off", ws="none",
                                timeout_graceful_shutdown=1)  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join()
            bound.close()
            models.__exit__()

        ends.append(end)
        return Page(bound.getsockname()[1], links, desk)

    yield start
    for end in ends:
        end()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "demo-1")
    make_run(folder / "demo-2", steps=(5,), state="running")
    return folder


@pytest.fixture(scope="module")
def page(serve_page, runs) -> Page:
    page = serve_page(runs)
    page.enter()
    return page
