"""One server of a model, spoken to in JSON over HTTP: a deadline on every call, and every failure has its name."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from temper.errors import Fault

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_ANSWER = 256 << 20  # bytes
A_READ = 1 << 16


class Trouble(Exception):
    """Why a call had no answer. `passing`: the same call may be answered later or elsewhere; `gone`: nobody was
    reached, or nothing came in time, and the next call would fare no better."""

    def __init__(self, reason: str, passing: bool = True, gone: bool = False, status: int = 0):
        super().__init__(reason)
        self.passing, self.gone, self.status = passing, gone, status


class Server:
    """`url` is what stands before a route: `http://localhost:8000`. The key goes into the header and nowhere else."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 600.0):
        parts = urlsplit(url)
        self.url, self.timeout = url.rstrip("/"), timeout
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self._key = key
        self._live: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def get(self, route: str) -> Any:
        return self._call("GET", route, None)

    def post(self, route: str, body: Any = None) -> Any:
        """What is answered, as JSON; None where the answer is empty. Raises Trouble."""
        return self._call("POST", route, json.dumps({} if body is None else body).encode())

    def hang_up(self) -> None:
        """End the calls under way, whatever thread waits for them."""
        with self._lock:
            for line in self._live:
                if (end := getattr(line, "sock", None)) is not None:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def _call(self, method: str, route: str, body: bytes | None) -> Any:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        line = kind(self._host, self._port, timeout=self.timeout)
        with self._lock:
            self._live.add(line)
        try:
            status, raw = self._exchange(line, method, route, body)
        except TimeoutError:
            raise Trouble(f"no answer within {self.timeout:g} s", gone=True) from None
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(f"{type(error).__name__}: {error}", gone=True) from None
        finally:
            with self._lock:
                self._live.discard(line)
            line.close()
        if status >= 300:
            said = " ".join(raw[:2_000].decode("utf-8", "replace").split())[:300]
            raise Trouble(f"HTTP {status}: {said}".removesuffix(": "), status in BUSY, status=status)
        try:
            return json.loads(raw) if raw.strip() else None
        except ValueError:
            raise Trouble(f"{method} {route} was answered by no JSON: {raw[:60]!r}") from None

    def _exchange(
        self, line: http.client.HTTPConnection, method: str, route: str, body: bytes | None
    ) -> tuple[int, bytes]:
        until = time.monotonic() + self.timeout
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        line.request(method, self._base + route, body, headers)
        answer = line.getresponse()
        parts, size = [], 0
        while piece := answer.read1(A_READ):
            parts.append(piece)
            size += len(piece)
            if time.monotonic() > until:
                raise TimeoutError
            if size > MAX_ANSWER:
                raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER >> 20} MB")
        if answer.length:  # what was announced and did not come
            raise http.client.IncompleteRead(b"", answer.length)
        return answer.status, b"".join(parts)


def told(server: Server, what: str, why: str, fix: str = "") -> Fault:
    """A fault of one server."""
    return Fault(what, server.url, why, fix)
