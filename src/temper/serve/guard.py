"""Who may ask: the host that was meant, the page that was served from here, who has the token, and not too much.

A server on loopback is reached by every page that the user's browser has open. A page of another site is told by its
`Origin` and `Sec-Fetch-Site`; a name that was made to point at 127.0.0.1 (DNS rebinding) by its `Host`.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
WILD = ("0.0.0.0", "::")  # addresses that stand for all of the machine's
MOST_BYTES = 2 << 20  # of a body
BURST = 3.0  # seconds of requests that may come at once
MOST_DRAINED = 64 << 20  # of a body that is refused for its length


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.3", "my.host")]
    [True, True, True, False, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def name_of(host: str) -> str:
    """The name in a `Host` header, without its port.

    >>> name_of("localhost:8000"), name_of("[::1]:8000"), name_of("Example.org."), name_of("::1")
    ('localhost', '::1', 'example.org', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name = host if host.count(":") > 1 else host.partition(":")[0]
    return name.lower().rstrip(".")


@dataclass(frozen=True)
class Rules:
    """`host` is the address that is listened at, `names` further names it may be called by, `token` what a request has
    to carry as `Authorization: Bearer …` (None: nothing), `rate` how many a second are answered (None: all)."""

    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    token: str | None = None
    most_bytes: int = MOST_BYTES
    rate: float | None = None

    def knows(self, name: str) -> bool:
        """Whether a request may have been meant for `name`. An address cannot be made to point elsewhere."""
        if name in (*LOCAL_NAMES, name_of(self.host), *self.names):
            return True
        return self.host in WILD and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(rules: Rules, method: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str] | None:
    """(status, why) of a request that is not answered, whatever it asks for; the token is not looked at."""
    told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    hosts = [value for name, value in headers if name.lower() == b"host"]
    host = told.get("host", "")
    if len(hosts) != 1 or not rules.knows(name_of(host)):
        return 421, f"this server is not called {host[:100]!r}: name it with --allow-host if it is"
    origin = told.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return 403, "a page of another site may not ask here"
    if told.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return 403, "a page of another site may not ask here"
    if method not in ("GET", "HEAD"):
        if told.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return 415, "the body must be sent as `Content-Type: application/json`"
        length = told.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "`Content-Length` is no number"
        if int(length[:20]) > rules.most_bytes:
            return 413, f"the body has {length[:20]} bytes, at most {rules.most_bytes}"
    return None


def bears(token: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request carries `token`; how long that takes tells nothing of it."""
    given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
    scheme, _, rest = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(rest.strip(), token.encode())


class Bucket:
    """Lets through `rate` a second, and as many at once as come in `BURST` seconds.

    >>> bucket = Bucket(2.0, lambda: 0.0)
    >>> [bucket.take() for _ in range(8)].count(True)
    6
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic):
        self.rate, self.now = rate, now
        self._left, self._seen = BURST * rate, now()

    def take(self) -> bool:
        now = self.now()
        self._left = min(BURST * self.rate, self._left + self.rate * (now - self._seen))
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """Answers what may not be asked itself; the rest it passes on, with a body that is no longer than allowed."""

    def __init__(self, app: App, rules: Rules, open_paths: Collection[str] = ()):
        """`open_paths` need no token."""
        self.app, self.rules, self.open_paths = app, rules, open_paths
        self.bucket = None if rules.rate is None else Bucket(rules.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = list(scope["headers"])
        refused = refusal(self.rules, scope["method"], headers)
        token = self.rules.token
        if refused is None and token is not None and scope["path"] not in self.open_paths and not bears(token, headers):
            refused = 401, "no token, or not the right one: send `Authorization: Bearer TOKEN`"
        if refused is None and self.bucket is not None and not self.bucket.take():
            refused = 429, f"more than {self.rules.rate:g} requests a second"
        if refused is not None:
            if refused[0] == 413:
                await drain(receive)
            await answer_error(send, *refused)
            return
        await self.app(scope, limited(receive, self.rules.most_bytes), send)


async def drain(receive: Receive) -> None:
    """Read on and forget: who is cut off while sending may not hear why."""
    seen = 0
    while seen < MOST_DRAINED:
        message = await receive()
        seen += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


class TooLong(Exception):
    """A body without a length turned out longer than allowed."""


def limited(receive: Receive, most: int) -> Receive:
    """`receive`, which raises TooLong once more than `most` bytes of body have come."""
    seen = 0

    async def next_message() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise TooLong(f"the body is longer than {most} bytes")
        return message

    return next_message


def error_body(status: int, why: str, key: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": why, "type": kind, "param": key, "code": code}}


async def answer_error(send: Send, status: int, why: str) -> None:
    body = json.dumps(error_body(status, why)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"retry-after", b"1")] if status == 429 else []
    headers += [(b"connection", b"close")] if status == 413 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
