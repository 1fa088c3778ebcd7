"""Small models of every architecture that is tested, made on the spot: random weights, a real tokenizer, a template.

path = make("qwen3", tmp_path / "m")        # a Hugging Face directory, in well under a second
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from temper.text.tokenizer import quiet_transformers, write_tokenizer

SIZE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
ARCHITECTURES: dict[str, dict] = {
    "llama": {"model_type": "llama", **SIZE},
    "qwen2": {"model_type": "qwen2", **SIZE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **SIZE, "head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", **SIZE, "head_dim": 16, "sliding_window": 8, "tie_word_embeddings": True},
    "gemma3": {"model_type": "gemma3_text", **SIZE, "head_dim": 16, "sliding_window": 8, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **SIZE, "sliding_window": 8},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
}

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN3 = (  # earlier turns lose their thinking; the last one gets an empty thinking if it has none
    "{% for message in messages %}{% set content = message.content %}{% set reasoning = '' %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n{{ reasoning.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% elif message.role == 'assistant' %} {{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
)
R1_DISTILL = (  # the turn markers are tokens that are not declared special; the prompt opens the thinking
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<｜Assistant｜>{{ message.content.split('</think>')[-1] }}{{ eos_token }}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# name -> template, special tokens (the first is the tokenizer's own end token), added tokens that are not special
CHATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "llama": (LLAMA3, ("<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ()),
    "qwen2": (CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ()),
    "qwen3": (QWEN3, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<think>", "</think>")),
    "gemma2": (GEMMA, ("<eos>", "<start_of_turn>", "<end_of_turn>"), ()),
    "gemma3": (GEMMA, ("<eos>", "<start_of_turn>", "<end_of_turn>"), ()),
    "mistral": (MISTRAL, ("</s>", "[INST]", "[/INST]"), ()),
    "gpt2": (PLAIN, ("<|endoftext|>",), ()),
    "metaspace": (CHATML, ("</s>", "<|im_start|>", "<|im_end|>"), ("<think>", "</think>")),
    "r1_distill": (R1_DISTILL, ("<｜end▁of▁sentence｜>",), ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")),
}
# how spaces are written: in bytes (GPT-2, Qwen, Llama 3) or as sentencepiece does, in the ways that exist of it
SPACES = {"gemma2": "gemma", "gemma3": "gemma", "mistral": "legacy", "metaspace": "metaspace"}

TEXTS = [
    "What is 38+33+19-49? Solve: 3x - 5 = 10. The answer is 41. user assistant system model",
    "<think>First 38 + 33 = 71, then 71 + 19 = 90, then 90 - 49 = 41.</think>\n<answer>41</answer>",
    "Wie viel ist das? Zuerst rechne ich. The quick brown fox jumps over the lazy dog.",
] * 20


def make(
    arch: str,
    path: Path,
    vocab: int = 400,
    chat_template: bool = True,
    seed: int = 0,
    chat: str | None = None,
    **config,
) -> Path:
    """Write a model of `arch` (a key of ARCHITECTURES) with at most `vocab` tokens to `path` and return it.

    `chat` names another entry of CHATS for tokenizer and template; `config` overrides keys of config.json.
    """
    quiet_transformers()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    template, special, others = CHATS[chat or arch]
    backend = train_backend(SPACES.get(chat or arch, "bytes"), special, others, vocab)
    eos = special[0]
    write_tokenizer(path, backend, eos, "<pad>", bos_token="<s>")
    if chat_template:
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = {
        **ARCHITECTURES[arch],
        "vocab_size": backend.get_vocab_size(),
        "eos_token_id": backend.token_to_id(eos),
        "pad_token_id": backend.token_to_id("<pad>"),
        "bos_token_id": backend.token_to_id("<s>"),
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
        for parameter in made.parameters():  # wider than the library's start, so that logits are far apart
            parameter.data += 0.1 * torch.randn_like(parameter)
    made.generation_config = GenerationConfig(eos_token_id=settings["eos_token_id"])
    made.save_pretrained(path)
    return path


def train_backend(spaces: str, special: tuple[str, ...], others: tuple[str, ...], vocab: int):
    """A byte-pair tokenizer trained on a few sentences; `special` and `others` are its added tokens."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(_trained(spaces, special, others, vocab))


@lru_cache(maxsize=32)
def _trained(spaces: str, special: tuple[str, ...], others: tuple[str, ...], vocab: int) -> str:
    from tokenizers import AddedToken, Tokenizer, models, trainers

    reserved, alphabet = ["<pad>", "<s>", *special], []
    if spaces == "bytes":
        from tokenizers import pre_tokenizers

        backend = Tokenizer(models.BPE())
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        backend = Tokenizer(models.BPE(byte_fallback=True))
        reserved += [f"<0x{i:02X}>" for i in range(256)]
    _write_spaces(backend, spaces)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(others), special_tokens=reserved, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in others])
    text = json.loads(backend.to_str())
    # the bytes of byte fallback are ordinary tokens of the model, not special ones
    text["added_tokens"] = [token for token in text["added_tokens"] if not token["content"].startswith("<0x")]
    return json.dumps(text)


def _write_spaces(backend, spaces: str) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    rest = [decoders.ByteFallback(), decoders.Fuse()]
    if spaces == "bytes":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    elif spaces == "gemma":
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), *rest])
    elif spaces == "legacy":  # Llama 2, Mistral v0.1: every stretch of text starts with a space
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), *rest, decoders.Strip(" ", 1, 0)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"), *rest])
