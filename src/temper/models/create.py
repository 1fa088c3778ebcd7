"""A stock architecture with random weights."""

from __future__ import annotations

from typing import Any

import torch


def create_model(architecture: Any, chat: Any, seed: int) -> Any:
    """A float32 causal language model of `architecture` (transformers' own keys) for the vocabulary of `chat`, with
    weights drawn from `seed`, embeddings tied, and temper's attention."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from temper.kernels.attention import NAME, register

    keys = architecture.model_dump()
    config = AutoConfig.for_model(
        keys.pop("model_type"),
        **keys,
        vocab_size=chat.tokenizer.backend.get_vocab_size(),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=chat.end_id,
        pad_token_id=chat.pad_id,
    )
    register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=torch.float32)
