"""`temper chat MODEL`: talk to a model; its thinking is shown apart from its answer."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, RUN, RUN:stage or a shipped model's name")
    parser.add_argument("--temperature", type=float, default=0.6, help="0 is greedy (default: 0.6)")
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--max-tokens", type=int, default=512, help="the longest reply (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object a reply")


def run(args: argparse.Namespace) -> int:
    """A prompt on standard input that is not a terminal gets one reply; a terminal gets a conversation."""
    session = open_session(args)
    if not sys.stdin.isatty():
        show(session.reply(read_prompt()), args.json)
        return 0
    print("Type a question; an empty line ends.", file=sys.stderr)
    while True:
        try:
            question = input("› ").strip()
        except EOFError:
            return 0
        if not question:
            return 0
        show(session.reply(question), args.json)


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


def open_session(args: argparse.Namespace) -> Session:
    from temper.commands.sampling import checked_sampling
    from temper.models.load import load_model
    from temper.runs import resolve_model
    from temper.text.chat import ChatFormat

    sampling = checked_sampling(args.temperature, args.top_p, args.max_tokens)
    path = resolve_model(args.model)
    return Session(ChatFormat.load(path), load_model(path), sampling, args.seed)


class Session:
    """A model that is being talked to; every question is answered on its own, as in training."""

    def __init__(self, chat: Any, model: Any, sampling: Any, seed: int):
        self.chat, self.model, self.sampling, self.seed = chat, model, sampling, seed
        self.turn = 0

    def reply(self, question: str) -> Any:
        from dataclasses import replace

        from temper.rng import seed_for
        from temper.rollout.engine import Request
        from temper.rollout.native import NativeEngine
        from temper.text.reply import parse_reply
        from temper.types import Message

        ids = self.chat.prompt_ids((Message("user", question),))
        request = Request(ids, seed_for(self.seed, "chat", self.turn))
        self.turn += 1
        engine = NativeEngine(self.model)
        [completion] = engine.generate([request], replace(self.sampling, stop_ids=self.chat.eos_ids))
        text = self.chat.decode(completion.token_ids)
        return parse_reply(text, thinking_opened=self.chat.thinking_opened), completion.finish_reason


def show(result: Any, as_json: bool) -> None:
    """The thinking first, set apart; then the answer. A reply in another form is shown as it is."""
    from temper.errors import escape

    reply, finish_reason = result
    if as_json:
        fields = {
            "text": reply.text,
            "thinking": reply.thinking,
            "answer": reply.answer,
            "finish_reason": finish_reason,
        }
        print(json.dumps(fields, ensure_ascii=False), flush=True)
    elif reply.thinking is not None and reply.answer is not None:
        print(f"  thinking: {escape(reply.thinking.strip())}\n  answer:   {escape(reply.answer.strip())}", flush=True)
    else:
        print(f"  reply: {escape(reply.text.strip())}", flush=True)
    if finish_reason == "length":
        print("  (cut off at --max-tokens)", file=sys.stderr)
