"""`temper serve MODEL`: an endpoint that OpenAI's clients, lm-eval and temper's own judge can talk to."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once

TOKEN = "TEMPER_TOKEN"  # the environment variable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    parser.add_argument("--name", help="what clients call the model (default: the last part of MODEL)")
    add_host_arguments(parser, 8000)
    text = "replies that may wait or be drawn at once; more are refused with status 429 (default: 1024)"
    parser.add_argument("--max-waiting", type=int, default=1024, metavar="N", help=text)
    add_sampling_arguments(parser)


def add_host_arguments(parser: argparse.ArgumentParser, port: int) -> None:
    """What `serve` and `ui` have in common."""
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, which only this machine reaches")
    parser.add_argument("--port", type=int, default=port, help=f"0 for any that is free (default: {port})")
    text = "a further name that the server may be called by; can be repeated"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=text)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted. The endpoint's address is standard output."""
    from temper.errors import ConfigError, Fault
    from temper.serve.protocol import Defaults
    from temper.serve.server import address_of, bind, check_installed, serve_app

    checked_sampling(args)
    faults = []
    if not 0 <= args.port <= 65535:
        faults.append(Fault(f"--port {args.port} is out of range", fix="from 0 (any) to 65535"))
    if args.max_waiting < 1:
        faults.append(Fault(f"--max-waiting {args.max_waiting} is out of range", fix="at least 1"))
    if faults:
        raise ConfigError(faults)
    check_installed()
    from temper.runs import resolve_model
    from temper.serve.app import make_app
    from temper.serve.guard import Guard, Rules
    from temper.serve.service import open_service

    path = resolve_model(args.model)
    defaults = Defaults(
        args.max_tokens, args.temperature, args.top_p, args.top_k, args.min_p, tuple(args.stop)
    )  # fmt: skip
    rules = Rules(args.host, tuple(name.lower() for name in args.allow_host), token_for(args.host))
    with bind(args.host, args.port) as bound:
        name = args.name or name_of(args.model, path)
        with open_service(path, name, defaults, args.reply or "tags", args.max_waiting, warn_once) as service:
            say_of_host(args.host, rules.token)
            print(f"`{name}` is served; Ctrl-C ends", file=sys.stderr)
            print(f"{address_of(bound, args.host)}/v1", flush=True)
            serve_app(Guard(make_app(service), rules, ("/health",)), bound)
    return 0


def token_for(host: str) -> str | None:
    """What requests must carry: the token of the environment; on a host that others reach, else one made for now."""
    from temper.serve.guard import is_loopback

    return os.environ.get(TOKEN) or (None if is_loopback(host) else secrets.token_urlsafe(24))


def say_of_host(host: str, token: str | None) -> None:
    """Warn of a host that others reach; a token that was made for now is told."""
    from temper.serve.server import warn_of_host

    if warning := warn_of_host(host):
        print(warning.render("warning"), file=sys.stderr)
        if not os.environ.get(TOKEN):
            print(f"requests must carry this token ({TOKEN} sets one): {token}", file=sys.stderr)


def name_of(reference: str, path: Path) -> str:
    """What a model is called by clients: no path of this machine.

    >>> name_of("runs/tiny-1a2b3c4d:final_rl", Path("…")), name_of("models/qwen/", Path("models/qwen"))
    ('tiny-1a2b3c4d:final_rl', 'qwen')
    """
    return Path(reference.rstrip("/")).name or path.resolve().name or "model"
