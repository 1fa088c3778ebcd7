"""`temper chat`: what is shown while a reply is drawn is what is shown of the whole; an interrupt ends one reply."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace

import model_zoo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import CHATS, make, train_backend

from temper.cli import main
from temper.commands import chat as chat_command
from temper.commands.live import LiveReply, Rendering, render
from temper.errors import escape
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.text.tokenizer import write_tokenizer
from temper.types import Completion

PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<thi", "nk>", "<", "</", ">", " ", "\n", "\n\n", "a", "two words ",
    "hf_", "sk-", "abcdefghij", "-", "é", "漢字", "\x1b[31m", "\u200b", "\x1f", "41",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=14)


@given(pieces=texts, opened=st.booleans(), dim=st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_reply_in_pieces_is_shown_as_the_whole(pieces: list[str], opened: bool, dim: bool) -> None:
    rendering = Rendering(opened, dim)
    shown = "".join(rendering.push(piece) for piece in pieces) + rendering.end()
    assert shown == render("".join(pieces), opened, dim)


contents = st.lists(st.sampled_from([piece for piece in PIECES if not set(piece) & set("<>")]), max_size=6).map("".join)


@given(thinking=contents, between=st.sampled_from(["", "\n", " "]), answer=contents, opened=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_well_formed_reply_is_its_thinking_and_its_answer(
    thinking: str, between: str, answer: str, opened: bool
) -> None:
    text = ("" if opened else "<think>") + f"{thinking}</think>{between}<answer>{answer}</answer>"
    if parse_reply(text, opened).well_formed:
        expected = f"  thinking: {escape(thinking.strip())}\n  answer:   {escape(answer.strip())}"
        assert render(text, opened) == expected


@given(pieces=texts, opened=st.booleans(), form=st.sampled_from(["think", "plain"]))
@settings(max_examples=200, deadline=None)
def test_a_reply_of_another_form_in_pieces_is_shown_as_the_whole(pieces: list[str], opened: bool, form: str) -> None:
    rendering = Rendering(opened, form=form)
    shown = "".join(rendering.push(piece) for piece in pieces) + rendering.end()
    assert shown == render("".join(pieces), opened, form=form)
    if form == "plain":
        assert shown.strip() == f"  reply: {escape(''.join(pieces).strip())}".strip()


@given(contents)
def test_a_reply_without_tags_is_shown_as_it_is(text: str) -> None:
    assert render(text) == f"  reply: {escape(text.strip())}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<think>a", "  thinking: a"),
        ("<think>a</think>\n\nSo: 5.", "  thinking: a\n  reply: So: 5."),
        ("a</think><answer>5</answer>", "  reply: a\n  answer:   5"),
        ("<answer>5</answer>", "  reply: <answer>5</answer>"),
        ("<think>a<think>b</think><answer>5</answer> 6", "  thinking: a<think>b\n  answer:   5\n  reply: 6"),
        ("<think></think> <answer>5<", "  answer:   5<"),
        ("", "  reply: "),
    ],
)
def test_a_reply_in_another_form_loses_nothing(text: str, shown: str) -> None:
    assert render(text) == shown


def test_thinking_is_dim_at_a_terminal_and_never_leaks_into_the_answer() -> None:
    shown = render("<think>a</think><answer>5</answer>", dim_thinking=True)
    assert shown == "\x1b[2m  thinking: a\x1b[0m\n  answer:   5"


def test_an_access_token_is_never_shown_in_part() -> None:
    rendering, shown = Rendering(), ""
    for character in "use hf_abcdefghijklmnop now":
        shown += rendering.push(character)
        assert "hf_a" not in shown
    assert shown + rendering.end() == "  reply: use hf_… now"


@cache
def chat_format(kind: str) -> ChatFormat:
    template, special, others = CHATS[kind]
    path = Path(mkdtemp(prefix=f"live-{kind}-"))
    write_tokenizer(path, train_backend(model_zoo.SPACES.get(kind, "bytes"), special, others, 400), special[0], "<pad>")
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return ChatFormat.load(path)


def live(chat: ChatFormat, ids: Sequence[int]) -> tuple[list[str], str]:
    """(what had been printed after each token, all that was printed)."""
    out = io.StringIO()
    reply, seen = LiveReply(chat, out), []
    for token in ids:
        reply.watch(0, token)
        seen.append(out.getvalue())
    reply.end()
    return seen, out.getvalue()


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "mistral", "metaspace", "r1_distill"])
@settings(max_examples=80, deadline=None)
@given(
    text=st.lists(st.sampled_from([*PIECES, "🙂", "The answer is "]), max_size=10).map("".join), cut=st.integers(0, 3)
)
def test_tokens_are_shown_as_their_whole_text_and_no_character_in_part(kind: str, text: str, cut: int) -> None:
    chat = chat_format(kind)
    ids = chat.tokenizer.encode_on([text])[0]
    seen, shown = live(chat, ids[: len(ids) - cut])
    if "\ufffd" not in chat.decode(ids[: len(ids) - cut]):
        assert shown == render(chat.decode(ids[: len(ids) - cut]), chat.thinking_opened) + "\n"
    assert not any("\ufffd" in printed for printed in seen)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "mistral"])
@settings(max_examples=80, deadline=None)
@given(ids=st.lists(st.integers(0, 399), max_size=20))
def test_whatever_the_tokens_the_whole_reply_stands_there_in_the_end(kind: str, ids: list[int]) -> None:
    chat = chat_format(kind)
    ids = [token for token in ids if token < chat.tokenizer.backend.get_vocab_size()]
    assert live(chat, ids)[1].endswith(render(chat.decode(ids), chat.thinking_opened) + "\n")


def test_words_are_shown_before_the_reply_is_over() -> None:
    chat = chat_format("qwen2")
    seen, _ = live(chat, chat.tokenizer.encode("<think>First 38 + 33 is 71, then more.</think><answer>5</answer>"))
    assert len(set(seen)) > 5
    assert any(printed.rstrip() == "  thinking: First 38 + 33" for printed in seen)


class Interrupted:
    """A session whose reply is interrupted after a few tokens."""

    def __init__(self, chat: ChatFormat, text: str):
        self.chat, self.ids, self.form = chat, chat.tokenizer.encode(text), "tags"

    def reply(self, question: str, watch) -> Completion:
        for token in self.ids:
            watch(0, token)
        raise KeyboardInterrupt

    def keep(self, question: str, token_ids) -> None:
        self.kept = (question, len(token_ids))


def test_an_interrupt_at_a_terminal_ends_the_reply_alone(monkeypatch, capsys) -> None:
    session = Interrupted(chat_format("qwen2"), "<think>so far")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    chat_command.answer(session, "?", False)  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == "  thinking: so far\n"
    assert "interrupted" in err


def test_an_interrupt_of_a_piped_question_ends_the_program(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(KeyboardInterrupt):
        chat_command.answer(Interrupted(chat_format("qwen2"), "a"), "?", False)  # type: ignore[arg-type]


def ask(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"What is 2+2?")))
    assert main(["chat", *arguments]) == 0
    return capsys.readouterr().out


def test_a_piped_question_gets_one_reply_shown_as_in_json(monkeypatch, capsys, tmp_path) -> None:
    model = str(make("llama", tmp_path / "m"))
    setting = ("--max-tokens", "30", "--temperature", "1", "--top-k", "50", "--min-p", "0.001")
    [line] = ask(monkeypatch, capsys, model, "--json", *setting).splitlines()
    told = json.loads(line)
    assert set(told) == {"text", "thinking", "answer", "finish_reason"}
    shown = ask(monkeypatch, capsys, model, *setting)
    assert shown == render(told["text"]) + "\n"
    stop = told["text"][5:8]
    ended = json.loads(ask(monkeypatch, capsys, model, "--json", *setting, "--stop", stop, "--stop", "never"))
    assert ended["finish_reason"] == "stop"
    assert told["text"].startswith(ended["text"])
    assert stop in ended["text"]


def test_sampling_options_out_of_range_are_named_together(capsys, tmp_path) -> None:
    assert main(["chat", str(tmp_path), "--top-k", "-1", "--min-p", "2", "--stop", ""]) == 2
    err = capsys.readouterr().err
    assert all(option in err for option in ("--top-k", "--min-p", "--stop"))
