"""Who sees the page: whoever opened the link that the terminal shows, once, in one browser.

The link carries a token that is exchanged for a cookie and then worth nothing; each exchange prints a new link. The
cookie is no script's to read and no other site's to send. Every answer forbids all that the page does not need.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs

from temper.serve.guard import App, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
ENTER = "/enter"
HEAD = b'<!doctype html><meta charset="utf-8"><title>temper</title><link rel="icon" href="data:,">'
ENTERED = HEAD + b'<meta http-equiv="refresh" content="0; url=/">'
CLOSED = (
    HEAD + b'<p>This page opens with the link that '
    b"<code>temper ui</code> shows in its terminal. A link opens one browser; it has shown a new one since."
)


class Session:
    """Lets through who has the cookie; `offer` is told of each new token, the first one at once."""

    def __init__(self, app: App, name: str, offer: Callable[[str], None]):
        """`name` is the cookie's: cookies of one host are sent to all its ports."""
        self.app, self.name, self.offer = app, name, offer
        self._secret = secrets.token_urlsafe(32)
        self._token = ""
        self._renew()

    def _renew(self) -> None:
        self._token = secrets.token_urlsafe(24)
        self.offer(self._token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == ENTER:
            await self._enter(scope, send)
        elif self.knows(scope):
            await self.app(scope, receive, _with_headers(send))
        else:
            await _answer(send, 401, CLOSED)

    def knows(self, scope: Scope) -> bool:
        """Whether a request carries the cookie."""
        for name, value in scope["headers"]:
            for part in value.split(b";") if name.lower() == b"cookie" else ():
                key, _, given = part.strip().partition(b"=")
                if key == self.name.encode() and hmac.compare_digest(given, self._secret.encode()):
                    return True
        return False

    async def _enter(self, scope: Scope, send: Send) -> None:
        """Exchange a token; a page that goes on by itself is sent, since a redirect would count as the other site's
        where the link was followed from one."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and self.knows(scope):
            await _answer(send, 200, ENTERED)
        elif scope["method"] == "GET" and hmac.compare_digest(given.encode(), self._token.encode()):
            self._renew()
            cookie = f"{self.name}={self._secret}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 200, ENTERED, [(b"set-cookie", cookie.encode())])
        else:
            await _answer(send, 401, CLOSED)


async def _answer(send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS, *(more or [])]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return send_on
