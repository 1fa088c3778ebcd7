"""`temper chat`: what was said is kept, commands change it, and a full context forgets the oldest."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_zoo import make

from temper.cli import main
from temper.commands import chat as chat_command
from temper.commands.chat import Session, converse
from temper.commands.conversation import Conversation, as_question, fitting_ids, is_command
from temper.errors import DataError
from temper.rollout.engine import Sampling
from temper.text.chat import ChatFormat
from temper.types import Completion


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make("qwen2", tmp_path_factory.mktemp("chat") / "m")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> ChatFormat:  # its template refuses system prompts
    return ChatFormat.load(make("gemma2", tmp_path_factory.mktemp("chat") / "g"))


@pytest.fixture(scope="module")
def chat(model) -> ChatFormat:
    return ChatFormat.load(model)


class Echo:
    """An engine that replies `yes`, and keeps what it was asked."""

    def __init__(self, chat: ChatFormat):
        self.chat = chat
        self.asked: list[str] = []
        self.temperatures: list[float] = []

    def generate(self, requests, sampling, watch=None, finished=None) -> list[Completion]:
        self.asked += [self.chat.tokenizer.backend.decode(list(r.prompt_ids)) for r in requests]
        self.temperatures.append(sampling.temperature)
        ids = self.chat.tokenizer.encode("yes")
        for token in ids:
            watch(0, token)
        return [Completion(tuple(ids), (0.0,) * len(ids), "stop")]


def talk(chat: ChatFormat, *lines: str, at_terminal: bool = True, **kept) -> Echo:
    engine = Echo(chat)
    converse(Session(chat, engine, Sampling(9), 0, talk=Conversation(**kept)), iter(lines), False, at_terminal)
    return engine


def test_what_was_said_is_said_again_until_new(chat) -> None:
    first, second, third = talk(chat, "My name is Ada.", "Who am I?", "/new", "Who am I?").asked
    assert second.startswith(first + "yes")
    assert second.count("Who am I?") == 1
    assert "Ada" not in third


def test_alone_keeps_nothing_but_the_system_prompt(chat) -> None:
    first, second = talk(chat, "a?", "b?", alone=True, system="Be brief.").asked
    assert "a?" not in second
    assert "Be brief." in first
    assert "Be brief." in second


def test_a_system_prompt_and_a_temperature_hold_from_then_on(chat, capsys) -> None:
    engine = talk(chat, "a?", "/system Be brief.", "/temp 0", "b?", "/temp x", "/temp 11", "/system", "c?", "/temp")
    before, with_prompt, after = engine.asked
    assert "Be brief." not in before + after
    assert "Be brief." in with_prompt
    assert "a?" not in with_prompt
    assert engine.temperatures == [1.0, 0.0, 0.0]
    assert "temperature 0\n" in capsys.readouterr().err


def test_a_system_prompt_that_the_template_refuses_changes_nothing(gemma, capsys) -> None:
    first, second = talk(gemma, "a?", "/system Be brief.", "b?").asked
    assert second.startswith(first)
    assert "the chat template refuses" in capsys.readouterr().err


def test_quit_ends_and_unknown_commands_are_no_questions(chat, capsys) -> None:
    engine = talk(chat, "/nwe", "//etc is what?", "/help", "/quit", "a?")
    [asked] = engine.asked
    assert "/etc is what?" in asked
    assert "//etc" not in asked
    err = capsys.readouterr().err
    assert "no command /nwe" in err
    assert "/system TEXT" in err


@given(st.text())
def test_every_line_can_be_asked(text: str) -> None:
    line = "/" + text if text.startswith("/") else text
    assert not is_command(line)
    assert as_question(line) == text


def test_a_full_context_forgets_the_oldest_and_keeps_the_rest_as_it_was(chat) -> None:
    kept = Conversation(system="Be brief.")
    for number in range(40):
        kept.add(f"question {number}?", "a reply of some words")
    ids, left_out = fitting_ids(chat, kept, "last?", 100)
    assert 0 < left_out < 40
    assert len(ids) <= 412
    assert kept.turns[0].content == f"question {left_out}?"
    assert len(kept.turns) == 2 * (40 - left_out)
    _, none = fitting_ids(chat, kept, "last?", 100)
    assert none == 0


def test_a_question_that_cannot_fit_forgets_nothing(chat, capsys) -> None:
    kept = Conversation()
    kept.add("a?", "yes")
    with pytest.raises(DataError):
        fitting_ids(chat, kept, "word " * 2000, 1)
    assert len(kept.turns) == 2
    asked = talk(chat, "a?", "word " * 2000, "b?").asked
    assert len(asked) == 2
    assert "a?" in asked[1]
    assert "do not fit" in capsys.readouterr().err
    with pytest.raises(DataError):
        talk(chat, "word " * 2000, at_terminal=False)


def test_each_piped_line_is_a_question_by_option(model, monkeypatch, capsys) -> None:
    def ask(text: str, *options: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(text.encode())))
        assert main(["chat", str(model), "--json", "--max-tokens", "5", "--temperature", "0", *options]) == 0
        return [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]

    assert len(ask("2+2?\n\n  \n/temp 0\n3+3?\n", "--lines")) == 2
    assert len(ask("2+2?\n\n3+3?\n")) == 1
    same, again = ask("2+2?\n2+2?\n", "--lines", "--alone")
    assert same == again


def test_lines_without_a_question_are_told_of(model, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"\n \n")))
    assert main(["chat", str(model), "--lines"]) == 2
    assert "nothing to answer" in capsys.readouterr().err


def test_an_empty_line_at_a_terminal_is_ignored_and_its_end_ends(monkeypatch) -> None:
    typed = iter(["", "  ", "a?"])

    def read(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    assert list(chat_command.typed_lines()) == ["a?"]
