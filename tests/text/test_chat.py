"""Chat formats: what is trained, what is sampled, and that nobody's message is read as a control token."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import model_zoo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import CHATS, TEXTS, make, train_backend

from temper.errors import ArtifactError, ConfigError, DataError, Exit
from temper.text.chat import TEMPLATES, ChatFormat
from temper.text.reply import parse_reply
from temper.text.tokenizer import write_tokenizer
from temper.types import Message

KEEPS_HISTORY = ("llama", "qwen2", "gemma2", "mistral", "gpt2", "metaspace")
ALL = (*KEEPS_HISTORY, "qwen3", "r1_distill")
CONTROL_WORDS = [
    "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<s>", "<pad>", "[/INST]", "<|endoftext|>",
    "<｜User｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>", "<answer>", " ", "\n", "▁", "Ġ", "é",
    "漢", "🙂", "<", "|>",
]  # fmt: skip
# private characters of plane 15 are the only ones a message may not hold; line ends are kept as they are
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\U000f0000\U000f0001")
contents = st.lists(st.one_of(st.sampled_from(CONTROL_WORDS), st.text(characters, max_size=6)), max_size=8).map("".join)


@cache
def tokenizer_dir(chat: str) -> Path:
    """Only a tokenizer and a template: no model is needed to speak to one."""
    template, special, others = CHATS[chat]
    path = Path(mkdtemp(prefix=f"chat-{chat}-"))
    write_tokenizer(path, train_backend(model_zoo.SPACES.get(chat, "bytes"), special, others, 400), special[0], "<pad>")
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return path


@cache
def chat_format(chat: str) -> ChatFormat:
    return ChatFormat.load(tokenizer_dir(chat))


def turns(*contents: str) -> list[Message]:
    """user, assistant, user, assistant, …"""
    return [Message("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)]


def comes_back(chat: str, text: str) -> str:
    """Sentencepiece writes a space as U+2581, so the two cannot be told apart afterwards."""
    return text.replace("▁", " ") if chat in model_zoo.SPACES else text


def targets(example) -> list[list[int]]:
    """The runs of trained tokens."""
    runs: list[list[int]] = []
    for i, (token, trained) in enumerate(zip(example.token_ids, example.mask, strict=True)):
        if trained and (i == 0 or not example.mask[i - 1]):
            runs.append([])
        if trained:
            runs[-1].append(token)
    return runs


@pytest.mark.parametrize("chat", [name for name in ALL if name != "r1_distill"])
@settings(max_examples=60, deadline=None)
@given(question=contents, reply=contents)
def test_the_targets_are_the_reply_and_the_end_token(chat, question, reply):
    format = chat_format(chat)
    messages = turns(question, reply)
    example = format.conversation_example(messages)
    prompt = format.prompt_ids(messages[:1])
    assert example.token_ids[: len(prompt)] == prompt
    assert example.prefix_length == len(prompt)
    assert all(example.mask[len(prompt) :])
    spoken = example.token_ids[len(prompt) :]
    assert spoken[-1] == format.end_id
    assert format.decode(spoken) == comes_back(chat, format.without_end(reply))
    # nothing in between ends the reply, or a sampler would have stopped there
    assert not set(spoken[:-1]) & set(format.eos_ids)


@pytest.mark.parametrize("chat", ALL)
@settings(max_examples=60, deadline=None)
@given(question=contents)
def test_control_tokens_stand_where_the_template_puts_them_and_nowhere_else(chat, question):
    format = chat_format(chat)
    control = {format.tokenizer.added[token] for token in format._control}

    def structure(content: str) -> list[int]:
        return [i for i in format.prompt_ids([Message("user", content)]) if i in control]

    assert structure(question) == structure("plain")


@pytest.mark.parametrize("chat", KEEPS_HISTORY)
@settings(max_examples=40, deadline=None)
@given(said=st.lists(contents.map(str.strip), min_size=4, max_size=4))
def test_a_longer_conversation_starts_with_the_ids_of_a_shorter_one(chat, said):
    format = chat_format(chat)
    messages = turns(*said)
    example = format.conversation_example(messages)
    runs = targets(example)
    assert [format.decode(run) for run in runs] == [comes_back(chat, format.without_end(said[i])) for i in (1, 3)]
    assert all(run[-1] == format.end_id for run in runs)
    for asked in (1, 3):
        prompt = format.prompt_ids(messages[:asked])
        assert example.token_ids[: len(prompt)] == prompt
        assert not example.mask[len(prompt) - 1]
        assert example.mask[len(prompt)]


@pytest.mark.parametrize("chat", ["qwen3", "r1_distill"])
def test_a_template_that_drops_earlier_thinking_gives_one_row_a_turn(chat):
    format = chat_format(chat)
    messages = turns("38+33", "<think>\n71\n</think>\n\n71", "and +1?", "<think>\n72\n</think>\n\n72")
    with pytest.raises(DataError, match="rewrites earlier"):
        format.conversation_example(messages)
    first, second = format.conversation_examples([messages])
    assert first == format.conversation_example(messages[:2])
    assert second.token_ids[: second.prefix_length] == format.prompt_ids(messages[:3])
    [run] = targets(second)
    assert format.detected.opening + format.decode(run) == messages[3].content
    shown = format.tokenizer.decode_on(second.token_ids)
    assert "71\n</think>" not in shown  # the earlier thinking is not in the context in which the second turn is sampled


def test_a_prompt_that_opens_the_thinking_is_said_to():
    format = chat_format("r1_distill")
    assert format.thinking_opened
    assert not chat_format("qwen3").thinking_opened
    content = "<think>\n2+2=4\n</think>\n<answer>4</answer>"
    example = format.conversation_example(turns("2+2", content))
    prompt = example.token_ids[: example.prefix_length]
    assert format.tokenizer.decode_on(prompt).endswith("<think>\n")
    sampled = format.decode(example.token_ids[example.prefix_length :])
    reply = parse_reply(sampled, thinking_opened=True)
    assert reply.well_formed
    assert reply.answer == "4"
    # what was sampled is trained again, token for token
    again = format.conversation_example(turns("2+2", reply.text))
    assert again == example


def test_a_reply_without_the_thinking_that_the_prompt_opens_is_refused():
    with pytest.raises(DataError) as error:
        chat_format("r1_distill").conversation_examples([turns("a", "<think>b</think>c"), turns("a", "Paris")])
    assert error.value.faults[0].where == "row 2"
    assert "<think>" in error.value.faults[0].what


@pytest.mark.parametrize(
    ("chat", "end"),
    [("llama", "<|eot_id|>"), ("qwen2", "<|im_end|>"), ("qwen3", "<|im_end|>"), ("gemma2", "<end_of_turn>"),
     ("mistral", "</s>"), ("gpt2", "<|endoftext|>"), ("r1_distill", "<｜end▁of▁sentence｜>")],
)  # fmt: skip
def test_the_end_token_is_the_one_the_template_writes(chat, end):
    format = chat_format(chat)
    assert format.tokenizer.backend.id_to_token(format.end_id) == end
    assert format.eos_ids[0] == format.end_id
    assert format.tokenizer.eos_id in format.eos_ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_our_templates_end_a_reply_with_the_tokenizers_end_token(name):
    format = ChatFormat.load(tokenizer_dir("gpt2"), name)
    assert format.is_chat
    assert format.end_id == format.tokenizer.eos_id
    assert not format.thinking_opened
    example = format.conversation_example(
        [Message("system", "Be brief."), *turns("2+2", "<think>x</think><answer>4</answer>", "3+3", "6")]
    )
    assert [format.decode(run) for run in targets(example)] == ["<think>x</think><answer>4</answer>", "6"]
    text = format.tokenizer.decode_on(example.token_ids)
    assert "Be brief." in text
    assert text.index("Be brief.") < text.index("2+2") < text.index("<think>x</think>")


def test_the_r1_template_is_the_one_of_the_paper():
    format = ChatFormat.load(tokenizer_dir("gpt2"), "r1")
    prompt = format.tokenizer.decode_on(format.prompt_ids(turns("What is 2+2?")))
    assert prompt.startswith("A conversation between User and Assistant. The user asks a question, and the Assistant")
    assert "i.e., <think> reasoning process here </think> <answer> answer here </answer>." in prompt
    assert prompt.endswith(" User: What is 2+2?. Assistant:")


def test_a_prompt_is_tokenised_as_transformers_does():
    from transformers import AutoTokenizer

    for chat in ("llama", "qwen2", "gemma2", "r1_distill", "metaspace"):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir(chat))
        messages = [{"role": "user", "content": "What is  2+2?\n Wie viel?"}]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert chat_format(chat).prompt_ids([Message("user", messages[0]["content"])]) == tuple(expected), chat


def test_a_template_can_be_named_given_or_a_file(tmp_path):
    path = tokenizer_dir("qwen2")
    file = tmp_path / "mine.jinja"
    file.write_text(CHATS["gpt2"][0], encoding="utf-8")
    assert ChatFormat.load(path, str(file)).template == CHATS["gpt2"][0]
    assert ChatFormat.load(path, CHATS["llama"][0]).template == CHATS["llama"][0]
    assert not ChatFormat.load(path, "none").is_chat
    with pytest.raises(ConfigError, match="no chat template `chatlm`"):
        ChatFormat.load(path, "chatlm")


def test_without_a_template_there_is_nothing_to_say_and_the_fault_tells_what_to_set(tmp_path):
    path = make("gpt2", tmp_path / "m", chat_template=False)
    format = ChatFormat.load(path)
    assert not format.is_chat
    with pytest.raises(ConfigError) as error:
        format.prompt_ids(turns("Hi"))
    assert error.value.code == Exit.CONFIG
    assert "chat_template" in error.value.faults[0].fix


def test_a_template_that_refuses_a_conversation_is_quoted():
    with pytest.raises(DataError) as error:
        chat_format("gemma2").prompt_ids([Message("system", "x"), Message("user", "y")])
    assert "System role not supported" in error.value.faults[0].why
    assert "system_prompt" in error.value.faults[0].fix


@pytest.mark.parametrize(
    "messages",
    [[], turns("a", "b"), [Message("assistant", "b")]],
    ids=["empty", "nothing to answer", "assistant only"],
)
def test_a_prompt_needs_a_turn_to_answer(messages):
    with pytest.raises(DataError, match="nothing to answer"):
        chat_format("qwen2").prompt_ids(messages)


@pytest.mark.parametrize("messages", [turns("a"), [], [Message("system", "a")]])
def test_a_conversation_needs_an_assistant(messages):
    with pytest.raises(DataError, match="without an assistant turn"):
        chat_format("qwen2").conversation_example(messages)


def test_what_is_too_long_is_counted_in_tokens(tmp_path):
    format = ChatFormat.load(make("qwen2", tmp_path / "m", max_position_embeddings=64))
    fits, long = turns("2+2"), turns("2" * 100)
    assert format.context_length == 64
    assert format.prompts_ids([fits], room=10)
    with pytest.raises(DataError) as error:
        format.prompts_ids([fits, long, long, long, long, fits], room=10)
    faults = error.value.faults
    assert [fault.where for fault in faults[:3]] == ["row 2", "row 3", "row 4"]
    length = len(chat_format("qwen2").prompt_ids(long))
    assert f"{length} tokens and 10 for the reply" in faults[0].what
    assert "64" in faults[0].what
    assert "1 more" in faults[3].what


def test_padding_with_the_end_token_warns_and_trains_it_all_the_same(tmp_path):
    path = make("gpt2", tmp_path / "m")
    (path / "tokenizer_config.json").write_text(
        (path / "tokenizer_config.json").read_text(encoding="utf-8").replace('"<pad>"', '"<|endoftext|>"')
    )
    format = ChatFormat.load(path)
    assert format.pad_id == format.end_id
    assert any("padding" in warning.what for warning in format.warnings)
    example = format.conversation_example(turns("a", "b"))
    assert example.token_ids[-1] == format.end_id
    assert example.mask[-1]


def test_a_template_that_writes_no_end_token_gets_the_tokenizers():
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant:{% endif %}"
    format = ChatFormat.load(tokenizer_dir("qwen2"), template)
    assert format.end_id == format.tokenizer.eos_id
    assert any("right after a reply" in warning.what for warning in format.warnings)
    assert len(format.conversation_examples([turns("a", "b", "c", "d")])) == 2


def test_a_heading_that_only_a_written_reply_has_belongs_to_the_prompt():
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    format = ChatFormat.load(tokenizer_dir("qwen2"), template)
    example = format.conversation_example(turns("a", "b", "c", "d"))
    prompt = format.tokenizer.decode_on(format.prompt_ids(turns("a")))
    assert prompt.endswith("<|im_start|>assistant\n")
    assert [format.decode(run) for run in targets(example)] == ["b", "d"]


def test_a_date_in_a_template_is_the_same_every_day():
    template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    format = ChatFormat.load(tokenizer_dir("qwen2"), template)
    assert "26 Jul 2024" in format.tokenizer.decode_on(format.prompt_ids(turns("a")))


def test_ten_thousand_rows_take_a_few_seconds():
    import time

    format = chat_format("qwen2")
    rows = [
        turns(f"What is {i}+{i + 1}? {TEXTS[0]}", f"<think>{TEXTS[1]}{i}</think>{2 * i + 1}") for i in range(10_000)
    ]
    began = time.process_time()
    assert len(format.conversation_examples(rows)) == 10_000
    assert time.process_time() - began < 10


def test_a_directory_without_an_end_token_is_refused(tmp_path):
    path = make("gpt2", tmp_path / "m")
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (path / "chat_template.jinja").unlink()
    with pytest.raises(ArtifactError, match="no end token"):
        ChatFormat.load(path)
