"""Sampling options of the command line, checked."""

from __future__ import annotations

import argparse
from functools import cache
from typing import TYPE_CHECKING, get_args

from temper.errors import ConfigError, Fault, tell
from temper.types import ReplyForm

if TYPE_CHECKING:
    from temper.rollout.engine import Sampling


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """What `chat` and `eval` have in common."""
    parser.add_argument("--temperature", type=float, default=0.6, help="default: 0.6, R1's setting; 0 is greedy")
    parser.add_argument("--top-p", type=float, default=0.95, help="default: 0.95")
    parser.add_argument("--top-k", type=int, default=0, help="only the K likeliest tokens (default: 0, all)")
    parser.add_argument("--min-p", type=float, default=0.0, help="no token below this share of the likeliest one's")
    parser.add_argument("--max-tokens", type=int, default=512, help="the longest reply (default: 512)")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="STRING", help="a text that ends the reply; can be repeated"
    )
    parser.add_argument("--seed", type=int, default=0)
    add_reply_argument(parser)


def add_reply_argument(parser: argparse.ArgumentParser) -> None:
    text = "where a reply's answer stands: between <answer> tags, after `</think>`, or all of it (default: tags)"
    parser.add_argument("--reply", choices=get_args(ReplyForm), default=None, help=text)


def checked_sampling(args: argparse.Namespace) -> Sampling:
    """The options as they were given, but for what needs a tokenizer. Raises ConfigError with every fault."""
    from temper.rollout.engine import Sampling

    faults = []
    if not 0 <= args.temperature <= 10:
        faults.append(Fault(f"--temperature {args.temperature:g} is out of range", fix="between 0 (greedy) and 10"))
    if not 0 < args.top_p <= 1:
        faults.append(Fault(f"--top-p {args.top_p:g} is out of range", fix="above 0, at most 1"))
    if args.top_k < 0:
        faults.append(Fault(f"--top-k {args.top_k} is out of range", fix="at least 1, or 0 for all tokens"))
    if not 0 <= args.min_p <= 1:
        faults.append(Fault(f"--min-p {args.min_p:g} is out of range", fix="between 0 and 1"))
    if args.max_tokens < 1:
        faults.append(Fault(f"--max-tokens {args.max_tokens} is out of range", fix="at least 1"))
    if "" in args.stop:
        faults.append(Fault("--stop is empty", why="every text contains it", fix="a text that the reply should end at"))
    if faults:
        raise ConfigError(faults)
    return Sampling(args.max_tokens, args.temperature, args.top_p, args.top_k, args.min_p)


@cache
def warn_once(text: str) -> None:
    tell(Fault(text).render("warning"))
