"""`temper chat MODEL`: talk to a model; its thinking is shown apart from its answer, both as they are drawn."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from temper.commands.live import LiveReply
from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once
from temper.types import ReplyForm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    add_sampling_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a reply")


def run(args: argparse.Namespace) -> int:
    """A prompt on standard input that is not a terminal gets one reply; a terminal gets a conversation."""
    with open_session(args) as session:
        if not sys.stdin.isatty():
            answer(session, read_prompt(), args.json)
            return 0
        print("Type a question; an empty line ends. Ctrl-C ends a reply.", file=sys.stderr)
        while True:
            try:
                question = input("› ").strip()
            except EOFError:
                return 0
            if not question:
                return 0
            answer(session, question, args.json)


def read_prompt() -> str:
    """All of standard input as one question. Raises ConfigError if there is none, DataError if it is not UTF-8."""
    from temper.errors import ConfigError, DataError, Fault

    try:
        question = sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError as problem:
        raise DataError(Fault("standard input is not UTF-8", why=str(problem))) from None
    if not question:
        raise ConfigError(Fault("nothing to answer: standard input is empty", fix='echo "38+33" | temper chat MODEL'))
    return question


@contextlib.contextmanager
def open_session(args: argparse.Namespace) -> Iterator[Session]:
    sampling = checked_sampling(args)

    from dataclasses import replace

    from temper.models.load import load_model
    from temper.rollout.open import open_engine
    from temper.runs import resolve_model
    from temper.text.chat import ChatFormat
    from temper.text.stops import StopStrings

    path = resolve_model(args.model)
    chat = ChatFormat.load(path)
    rule = StopStrings(chat.decode, args.stop) if args.stop else None
    sampling = replace(sampling, stop_ids=chat.eos_ids, stop_rule=rule)
    with open_engine(load_model(path, warn=warn_once)) as engine:
        yield Session(chat, engine, sampling, args.seed, args.reply or "tags")


class Session:
    """A model that is being talked to; every question is answered on its own, as in training."""

    def __init__(self, chat: Any, engine: Any, sampling: Any, seed: int, form: ReplyForm = "tags"):
        self.chat, self.engine, self.sampling, self.seed = chat, engine, sampling, seed
        self.form: ReplyForm = form
        self.turn = 0

    def reply(self, question: str, watch: Any = None) -> Any:
        """The completion; `watch` sees its tokens as they are drawn."""
        from temper.rng import seed_for
        from temper.rollout.engine import Request
        from temper.types import Message

        ids = self.chat.prompt_ids((Message("user", question),))
        request = Request(ids, seed_for(self.seed, "chat", self.turn))
        self.turn += 1
        [completion] = self.engine.generate([request], self.sampling, watch)
        return completion


def answer(session: Session, question: str, as_json: bool) -> None:
    """Ask, and show the reply. At a terminal an interrupt ends the reply and nothing else."""
    if as_json:
        completion = session.reply(question)
        print(json.dumps(fields(session.chat, completion, session.form), ensure_ascii=False), flush=True)
        finish_reason = completion.finish_reason
    else:
        live = LiveReply(session.chat, sys.stdout, session.form)
        try:
            finish_reason = session.reply(question, live.watch).finish_reason
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            finish_reason = "interrupted"
        live.end()
    if finish_reason == "length":
        print("  (cut off at --max-tokens)", file=sys.stderr)
    elif finish_reason == "interrupted":
        print("  (interrupted)", file=sys.stderr)


def fields(chat: Any, completion: Any, form: ReplyForm = "tags") -> dict[str, Any]:
    """A reply as JSON."""
    from temper.text.reply import parse_reply

    reply = parse_reply(chat.decode(completion.token_ids), chat.thinking_opened, form)
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "answer": reply.answer,
        "finish_reason": completion.finish_reason,
    }
