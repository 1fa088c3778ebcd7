"""A web application on a port of this machine: bound first, so that a port that is taken is one clear error."""

from __future__ import annotations

import errno
import socket
from typing import Any

from temper.errors import ConfigError, Exit, Fault, ResourceError, TemperError
from temper.serve.guard import is_loopback

MOST_CONNECTIONS = 1024
GRACE = 5  # seconds that open answers have once the server is to end


def check_installed() -> None:
    """Raise TemperError (exit code 9) where what a server needs is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        what = f"a server needs {' and '.join(missing)}, not installed here"
        raise TemperError(Fault(what, fix='pip install "temper-rl[ui]"'), Exit.OPTIONAL_PART)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ConfigError for a host that is none of this machine, ResourceError for a port that
    is taken or not allowed."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as problem:
        raise ConfigError(Fault(f"--host {host}: no address of this machine", why=str(problem))) from None
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as problem:
        found.close()
        if problem.errno == errno.EADDRINUSE:
            fault = Fault(f"port {port} is taken", fix="another --port, or 0 for any that is free")
            raise ResourceError(fault) from None
        if problem.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(Fault(f"--host {host}: no address of this machine", why=str(problem))) from None
        why, fix = str(problem), "another --port, above 1023"
        raise ResourceError(Fault(f"port {port} cannot be listened at", why=why, fix=fix)) from None
    found.listen(MOST_CONNECTIONS)  # who comes before the server answers waits
    found.setblocking(False)
    return found


def address_of(bound: socket.socket, host: str) -> str:
    """Where a browser on this machine finds it.

    >>> with bind("127.0.0.1", 0) as bound:
    ...     address_of(bound, "127.0.0.1").startswith("http://127.0.0.1:")
    True
    """
    port = bound.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def warn_of_host(host: str) -> Fault | None:
    """What to say of a host that others reach."""
    if is_loopback(host):
        return None
    why = "whoever reaches this machine can send requests; they and the token go over the network unencrypted"
    return Fault(f"--host {host} listens beyond this machine", why=why, fix="an SSH tunnel to 127.0.0.1 does without")


def serve_app(app: Any, bound: socket.socket) -> None:
    """Answer until an interrupt or SIGTERM comes; open answers then have a few seconds."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[bound])
