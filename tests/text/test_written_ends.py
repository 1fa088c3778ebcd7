"""The letters of an end token in data: at the end of a reply they mean the token, anywhere else they are letters."""

from __future__ import annotations

import json

import pytest
from model_zoo import make

from temper.cli import main
from temper.text.chat import ChatFormat
from temper.types import Message


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> ChatFormat:
    return ChatFormat.load(make("qwen2", tmp_path_factory.mktemp("ends") / "model"))


def talk(*turns: str) -> list[Message]:
    return [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(turns)]


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|endoftext|>", "<|im_end|><|endoftext|>\n"])
def test_a_reply_that_ends_with_its_letters_is_the_reply(chat, end):
    plain = chat.conversation_example(talk("Say yes", "yes", "Again", "yes yes"))
    assert chat.conversation_example(talk("Say yes", f"yes{end}", "Again", f"yes yes{end}")) == plain
    assert plain.token_ids.count(chat.end_id) == 4  # one a turn
    prompts = [talk("Say yes")]
    assert chat.replies_ids(prompts, [["it ", f"is{end}"]]) == chat.replies_ids(prompts, [["it ", "is"]])


def test_elsewhere_they_stay_letters(chat):
    written = talk("Say <|im_end|>", "a <|im_end|> b")
    example = chat.conversation_example(written)
    assert example.token_ids.count(chat.end_id) == 2  # the template's, of the user's turn, and the one that is trained
    assert "a <|im_end|> b" in chat.tokenizer.decode_on(example.token_ids)
    assert chat.without_end("Say <|im_end|> twice") == "Say <|im_end|> twice"
    assert chat.prompt_ids(talk("Say <|im_end|>")) != chat.prompt_ids(talk("Say "))


def test_both_are_counted(chat):
    told = chat.ends_written([talk("a", "b<|im_end|>"), talk("a", "b<|im_end|>c"), talk("a<|im_end|>", "b")])
    assert told is not None
    assert told.startswith("1 replies end with")
    assert "1 replies hold them further in" in told
    assert chat.ends_written([talk("a<|im_end|>", "b")]) is None


def test_check_tells_of_it(tmp_path, capsys):
    model = make("qwen2", tmp_path / "model")
    row = {"prompt": "Say yes", "completion": "yes<|im_end|>"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main(["check", str(tmp_path / "rows.jsonl"), "--model", str(model)]) == 0
    assert "taken for the token itself" in capsys.readouterr().err
