"""Stop strings end a completion exactly where the text of all its tokens first contains one, and cost little."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import model_zoo
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_zoo import CHATS, train_backend
from tiny_models import tiny_model

from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.text.chat import ChatFormat
from temper.text.stops import StopStrings
from temper.text.tokenizer import write_tokenizer

KINDS = ("qwen2", "gemma2", "mistral", "metaspace")  # bytes; byte fallback; spaces put before words in two ways
TEXTS = ["漢字 and 漢", "a\n\nb </answer> c", "naïve 🙂🙂 x", "  two  spaces ", "</answer>", "The answer is 41."]


@cache
def chat_format(chat: str) -> ChatFormat:
    template, special, others = CHATS[chat]
    path = Path(mkdtemp(prefix=f"stops-{chat}-"))
    write_tokenizer(path, train_backend(model_zoo.SPACES.get(chat, "bytes"), special, others, 400), special[0], "<pad>")
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return ChatFormat.load(path)


def first_end(rule: StopStrings, ids: Sequence[int]) -> int | None:
    return next((n for n in range(1, len(ids) + 1) if rule.ends(ids[:n])), None)


def first_end_in_text(chat: ChatFormat, strings: Sequence[str], ids: Sequence[int]) -> int | None:
    return next(
        (n for n in range(1, len(ids) + 1) if any(string in chat.decode(ids[:n]) for string in strings)),
        None,
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_end_is_where_the_whole_text_first_contains_a_string(kind: str, data: st.DataObject) -> None:
    chat = chat_format(kind)
    tokens = st.integers(0, chat.tokenizer.backend.get_vocab_size() - 1)
    written = st.sampled_from(TEXTS).map(lambda text: list(chat.tokenizer.encode_on([text])[0]))
    parts = data.draw(st.lists(st.one_of(st.lists(tokens, max_size=12), written), min_size=1, max_size=6))
    ids = [token for part in parts for token in part]
    text = chat.decode(ids)
    assume(text)
    cut = st.integers(0, len(text) - 1).flatmap(lambda i: st.integers(1, 9).map(lambda length: text[i : i + length]))
    strings = data.draw(st.lists(st.one_of(cut, st.text(min_size=1, max_size=4)), min_size=1, max_size=3))
    assume(not any("\ufffd" in string for string in strings))
    assert first_end(StopStrings(chat.decode, strings), ids) == first_end_in_text(chat, strings, ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["x 漢 y", "x </answer> y", "x🙂y", "a\n\nb"])
def test_a_string_split_over_tokens_ends_with_the_token_that_completes_it(kind: str, text: str) -> None:
    chat = chat_format(kind)
    ids = chat.tokenizer.encode_on([text])[0]
    stop = text[1:-1]
    end = first_end(StopStrings(chat.decode, [stop]), ids)
    assert end is not None
    assert stop in chat.decode(ids[:end])
    assert stop not in chat.decode(ids[: end - 1])


def test_a_string_is_found_across_any_stretch_of_padding() -> None:
    chat = chat_format("qwen2")
    before, after = chat.tokenizer.encode("The quick brown fox jumps"), chat.tokenizer.encode_on([" over it."])[0]
    ids, strings = [*before, *[chat.pad_id] * 200, *after], ["brown fox jumps over"]
    end = first_end(StopStrings(chat.decode, strings), ids)
    assert end is not None
    assert end == first_end_in_text(chat, strings, ids)


def test_a_string_is_found_in_a_long_run_of_bytes() -> None:
    """With byte fallback a run of bytes that begins inside a character reads as nothing but broken characters."""
    chat = chat_format("gemma2")
    for length in (40, 41, 42):
        ids = chat.tokenizer.encode("漢" * length + "字" * 3)
        end = first_end(StopStrings(chat.decode, ["漢字"]), ids)
        assert end is not None
        assert end == first_end_in_text(chat, ["漢字"], ids)


def test_what_only_the_end_of_a_text_reads_as_is_not_found() -> None:
    chat = chat_format("gemma2")
    broken, letter = (chat.tokenizer.id_of(token) for token in ("<0xFF>", "<0x61>"))
    assert broken is not None
    assert letter is not None
    ids = [broken, *[letter] * 40]
    assert "a" not in chat.decode(ids)
    assert first_end(StopStrings(chat.decode, ["aaa"]), ids) is None


def test_asking_after_every_token_decodes_little_more_than_the_text_once() -> None:
    chat, decoded = chat_format("qwen2"), [0]

    def decode(ids: Sequence[int]) -> str:
        decoded[0] += len(ids)
        return chat.decode(ids)

    ids = chat.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 100)
    assert first_end(StopStrings(decode, ["</answer>", "\n\n"]), ids) is None
    assert decoded[0] < len(ids)


def test_a_rule_can_be_sent_to_another_process() -> None:
    chat = chat_format("qwen2")
    ids = chat.tokenizer.encode("so </answer>")
    assert pickle.loads(pickle.dumps(StopStrings(chat.decode, ["</answer>"]))).ends(ids)


@pytest.mark.parametrize("engine", [NativeEngine(tiny_model("llama")), PlainEngine(tiny_model("llama", "sdpa"))])
def test_an_engine_ends_completions_with_the_string(engine: NativeEngine | PlainEngine) -> None:
    def decode(ids: Sequence[int]) -> str:
        return "".join(chr(97 + i // 5) for i in ids)

    asked = [Request((5, 6, 7), key) for key in range(20)]
    free = engine.generate(asked, Sampling(40))
    drawn = engine.generate(asked, Sampling(40, stop_rule=StopStrings(decode, ["cd", "k"])))
    assert {completion.finish_reason for completion in drawn} == {"stop", "length"}
    for completion, whole in zip(drawn, free, strict=True):
        text = decode(completion.token_ids)
        assert whole.token_ids[: len(completion.token_ids)] == completion.token_ids
        assert (completion.finish_reason == "stop") == text.endswith(("cd", "k"))
        assert "cd" not in text[:-1]
        assert "k" not in text[:-1]


def test_a_string_is_found_across_the_point_where_a_completion_is_continued() -> None:
    engine = PlainEngine(tiny_model("llama", "sdpa"))
    whole = engine.generate([Request((5, 6, 7), key) for key in range(8)], Sampling(6))
    for key, completion in enumerate(whole):
        ids = completion.token_ids
        rule = StopStrings(lambda some: "".join(map(chr, some)), [chr(ids[2]) + chr(ids[3])])
        begun = Request((5, 6, 7), key, drawn=ids[:3])
        [rest] = engine.generate([begun], Sampling(6, stop_rule=rule))
        assert (rest.token_ids, rest.finish_reason) == (ids[3:4], "stop")
