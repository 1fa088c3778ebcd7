"""A saved model is the same model to plain transformers: same logits, same tokens, and its generation stops."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import model_zoo
import pytest
import torch
from model_zoo import ARCHITECTURES, CHATS, make
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from temper.errors import ArtifactError, Exit
from temper.models.load import load_model, supports_shared_prefix
from temper.models.save import read_history, save_model
from temper.text.chat import ChatFormat
from temper.types import Message

CARD = {"stage": "cold_start", "trained_from": "@base", "how": ["2 epochs", "learning rate 1e-5"]}
QUESTION = (Message("user", "What is 38+33?"),)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plain_transformers_loads_the_same_model(arch, dtype, tmp_path):
    source = make(arch, tmp_path / "source")
    model = load_model(source, dtype=dtype)
    assert not model.training
    out = tmp_path / "out"
    save_model(model, ChatFormat.load(source), out, CARD)
    plain, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert plain.dtype == getattr(torch, dtype)
    tokens = torch.arange(30)[None]
    reference = load_model(source, dtype=dtype, attention="sdpa")
    assert torch.equal(plain(tokens).logits, reference(tokens).logits)
    assert plain.config.tie_word_embeddings == reference.config.tie_word_embeddings
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION[0].content}], add_generation_prompt=True, return_dict=True
    )
    assert tuple(prompt["input_ids"]) == ChatFormat.load(source).prompt_ids(QUESTION)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_of_temper_is_left_in_the_files(arch, tmp_path):
    source = make(arch, tmp_path / "source")
    model = load_model(source)
    assert supports_shared_prefix(model)
    save_model(model, ChatFormat.load(source), tmp_path / "out", CARD)
    config = (tmp_path / "out" / "config.json").read_text()
    assert "attn_implementation" not in config
    assert "temper" not in config
    assert str(tmp_path) not in config


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_the_same_weights_give_the_same_bytes(arch, tmp_path):
    source = make(arch, tmp_path / "source")
    for name in ("a", "b"):
        save_model(load_model(source), ChatFormat.load(source), tmp_path / name, CARD)
    save_model(load_model(tmp_path / "a"), ChatFormat.load(tmp_path / "a"), tmp_path / "c", CARD)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert [sha256(tmp_path / "a" / file) for file in files] == [sha256(tmp_path / "b" / file) for file in files]
    assert sha256(tmp_path / "a" / "model.safetensors") == sha256(tmp_path / "c" / "model.safetensors")
    tokenizer = [file for file in files if file.startswith(("token", "chat"))]
    for file in tokenizer:
        assert sha256(tmp_path / "a" / file) == sha256(tmp_path / "c" / file)


@pytest.mark.parametrize("chat", ["llama", "qwen2", "qwen3", "gemma2", "gpt2", "r1_distill"])
def test_generation_stops_at_the_end_token_that_was_trained(chat, tmp_path):
    """A model whose next token is always the template's end token: `generate` with nothing said stops at once."""
    source = make("llama", tmp_path / "source", chat=chat)
    format = ChatFormat.load(source)
    model = load_model(source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name or "embed" in name else 0.0)
        model.lm_head.weight[format.end_id] = 1.0
    save_model(model, format, tmp_path / "out", CARD)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    made = plain.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert made.tolist() == [format.end_id]
    ends = plain.generation_config.eos_token_id
    assert format.end_id in (ends if isinstance(ends, list) else [ends])
    assert plain.generation_config.pad_token_id == format.pad_id


def test_a_template_set_at_loading_is_saved_with_the_model(tmp_path):
    source = make("qwen2", tmp_path / "source")
    save_model(load_model(source), ChatFormat.load(source, "r1"), tmp_path / "out", CARD)
    format = ChatFormat.load(tmp_path / "out")
    assert format.template == ChatFormat.load(source, "r1").template
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == format.template
    assert format.end_id == format.tokenizer.eos_id


def test_a_template_in_the_tokenizer_config_moves_to_its_own_file(tmp_path):
    source = make("qwen2", tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["chat_template"] = CHATS["qwen2"][0]
    (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for template, expected in ((None, CHATS["qwen2"][0]), ("none", None)):
        out = tmp_path / str(template)
        save_model(load_model(source), ChatFormat.load(source, template), out, CARD)
        assert ChatFormat.load(out).template == expected
        assert AutoTokenizer.from_pretrained(out).chat_template == expected


def test_a_tokenizer_without_padding_gets_the_end_token(tmp_path):
    source = make("gpt2", tmp_path / "source")
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["pad_token"]
    (source / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_model(load_model(source), ChatFormat.load(source), tmp_path / "out", CARD)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_the_card_tells_how_the_model_was_made(tmp_path):
    source = make("llama", tmp_path / "source")
    save_model(load_model(source), ChatFormat.load(source), tmp_path / "a", CARD)
    later = {"stage": "reasoning_rl", "trained_from": "@cold_start", "how": ["60 steps"]}
    save_model(load_model(tmp_path / "a"), ChatFormat.load(tmp_path / "a"), tmp_path / "b", later)
    assert [entry["stage"] for entry in read_history(tmp_path / "b")] == ["cold_start", "reasoning_rl"]
    readme = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    for words in ("# reasoning_rl", "@base", "learning rate 1e-5", "60 steps", "<|eot_id|>", "Not stated"):
        assert words in readme
    assert str(tmp_path) not in readme


def test_the_memory_of_older_names_is_read(tmp_path):
    """GPT-2's own files name their tensors without the prefix that transformers writes today."""
    from safetensors.torch import load_file, save_file

    source = make("gpt2", tmp_path / "source")
    older = Path(shutil.copytree(source, tmp_path / "older"))
    weights = load_file(source / "model.safetensors")
    renamed = {name.removeprefix("transformer."): value for name, value in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, older / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.arange(9)[None]
    new, old = (load_model(path, attention="sdpa")(tokens).logits for path in (source, older))
    assert torch.equal(new, old)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}),
        ("gpt_oss", {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}),
        ("mamba", {"state_size": 4}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_an_architecture_that_cannot_be_packed_keeps_its_own_attention_and_a_warning_says_so(kind, settings, tmp_path):
    """Position biases, attention sinks, recurrent and convolutional layers."""
    source = make("llama", tmp_path / "m")
    sizes = {
        key: value for key, value in model_zoo.SIZE.items() if kind not in ("mpt", "mamba") or key == "hidden_size"
    }
    if kind == "mamba":
        sizes["num_hidden_layers"] = 2
    config = AutoConfig.for_model(kind, vocab_size=380, **{**sizes, **settings})
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    made.save_pretrained(source)
    said: list[str] = []
    model = load_model(source, warn=said.append)
    assert not supports_shared_prefix(model)
    assert len(said) == 1
    assert f"`{kind}`" in said[0]
    tokens = torch.arange(4)[None]
    assert torch.equal(model(tokens).logits, load_model(source, attention="sdpa")(tokens).logits)


def test_a_model_that_can_be_packed_is_loaded_without_a_warning(tmp_path):
    said: list[str] = []
    load_model(make("llama", tmp_path / "m"), warn=said.append)
    assert not said


def test_a_model_that_looks_at_the_tokens_to_come_is_refused(tmp_path):
    source = make("llama", tmp_path / "m")
    sizes = {key: value for key, value in model_zoo.SIZE.items() if key != "num_key_value_heads"}
    config = AutoConfig.for_model("bert", vocab_size=400, **sizes, is_decoder=False)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    made.save_pretrained(source)
    with pytest.raises(ArtifactError, match="`bert` cannot be sampled") as error:
        load_model(source)
    assert error.value.code == Exit.ARTIFACT


def test_loading_says_nothing(tmp_path, capfd):
    path = make("qwen3", tmp_path / "m")
    capfd.readouterr()
    load_model(path)
    ChatFormat.load(path)
    assert capfd.readouterr() == ("", "")
