"""`temper chat MODEL`: talk to a model; its thinking is shown apart from its answer, both as they are drawn."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from temper.commands.conversation import Conversation, Quit, as_question, fitting_ids, is_command, obey, questions_of
from temper.commands.live import LiveReply
from temper.commands.sampling import add_sampling_arguments, checked_sampling, warn_once
from temper.errors import ConfigError, DataError, Fault, TemperError
from temper.types import ReplyForm

T = TypeVar("T")

ROOM = 128  # tokens left for the reply at least, before older turns are forgotten


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    parser.add_argument("--system", metavar="TEXT", default="", help="what the model is told before all else")
    text = "each line of standard input as if it was typed: a question that knows the ones before it, or a /command"
    parser.add_argument("--lines", action="store_true", help=text)
    parser.add_argument("--alone", action="store_true", help="every question on its own: nothing said before is kept")
    add_sampling_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a reply")


def run(args: argparse.Namespace) -> int:
    """A terminal gets a conversation, and so do the lines of a pipe with `--lines`; else all that is piped is one
    question."""
    from temper.runs import resolve_model

    checked_sampling(args)  # before anything is waited for
    resolve_model(args.model)
    typed = None if args.lines or sys.stdin.isatty() else read_prompt()
    lines = read_lines() if args.lines and not sys.stdin.isatty() else None
    with open_session(args) as session:
        if typed is not None:
            answer(session, typed, args.json)
            return 0
        if lines is not None:
            converse(session, iter(lines), args.json)
            return 0
        print("Type a question; /help lists what else there is.", file=sys.stderr)
        converse(session, typed_lines(), args.json, at_terminal=True)
        return 0


def typed_lines() -> Iterator[str]:
    """What is typed at a terminal, with the keys and the history that a shell has, until its end; no empty lines."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  `input` uses it once it is there

    while True:
        try:
            line = input("› ").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if line:
            yield line


def converse(session: Session, lines: Iterator[str], as_json: bool, at_terminal: bool = False) -> None:
    """Answer line after line; at a terminal a question that cannot be asked is told of, and it goes on."""
    for line in lines:
        try:
            if is_command(line):
                obey(line, session.talk, session, lambda text: print(text, file=sys.stderr))
            else:
                answer(session, as_question(line), as_json)
        except Quit:
            return
        except TemperError as error:
            if not at_terminal:
                raise
            print(error.render(), file=sys.stderr)


def read_input() -> str:
    """All of standard input. Raises DataError if it is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(Fault("standard input is not UTF-8", why=str(problem))) from None


def read_prompt() -> str:
    """All of standard input as one question. Raises ConfigError if there is none, DataError if it is not UTF-8."""
    return _something(read_input().strip())


def read_lines() -> list[str]:
    """The lines of standard input that are not empty; raises as `read_prompt`."""
    return _something(questions_of(read_input().splitlines()))


def _something(found: T) -> T:
    if not found:
        raise ConfigError(Fault("nothing to answer: standard input is empty", fix='echo "38+33" | temper chat MODEL'))
    return found


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
    with open_engine(load_model(path, warn=warn_once), frozen=True) as engine:
        talk = Conversation(args.system, args.alone)
        yield Session(chat, engine, sampling, args.seed, args.reply or "tags", talk)


class Session:
    """A model that is being talked to. What was said before goes before the next question."""

    def __init__(
        self, chat: Any, engine: Any, sampling: Any, seed: int, form: ReplyForm = "tags",
        talk: Conversation | None = None,
    ):  # fmt: skip
        self.chat, self.engine, self.sampling, self.seed = chat, engine, sampling, seed
        self.form: ReplyForm = form
        self.talk = talk or Conversation()
        self.turn = 0

    def reply(self, question: str, watch: Any = None) -> Any:
        """The completion; `watch` sees its tokens as they are drawn. Raises DataError for a question that the chat
        template refuses or that does not fit the model's context."""
        from temper.rng import seed_for
        from temper.rollout.engine import Request

        ids, left_out = fitting_ids(self.chat, self.talk, question, min(self.sampling.max_tokens, ROOM))
        if left_out:
            print(f"  (the context is full: the {left_out} oldest exchanges are forgotten)", file=sys.stderr)
        request = Request(ids, seed_for(self.seed, "chat", self.turn))
        self.turn += 1
        [completion] = self.engine.generate([request], self.sampling, watch)
        return completion

    def keep(self, question: str, token_ids: Sequence[int]) -> None:
        """Remember an exchange as it was, whole or interrupted."""
        from temper.text.reply import parse_reply

        self.talk.add(question, parse_reply(self.chat.decode(token_ids), self.chat.thinking_opened, self.form).text)


def answer(session: Session, question: str, as_json: bool) -> None:
    """Ask, and show the reply. At a terminal an interrupt ends the reply and nothing else."""
    if as_json:
        completion = session.reply(question)
        print(json.dumps(fields(session.chat, completion, session.form), ensure_ascii=False), flush=True)
        finish_reason = completion.finish_reason
        session.keep(question, completion.token_ids)
    else:
        live = LiveReply(session.chat, sys.stdout, session.form)
        try:
            finish_reason = session.reply(question, live.watch).finish_reason
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            finish_reason = "interrupted"
        live.end()
        session.keep(question, live.token_ids)
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
