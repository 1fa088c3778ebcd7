"""Random-weight models of several architectures, in memory, for tests of tensors (no files, no tokenizers)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from temper.kernels.attention import NAME, register

SIZES = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None,
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 6},
    "gemma3_text": {"head_dim": 16, "sliding_window": 6},
    "mistral": {"head_dim": 16, "sliding_window": 6},
}
ARCHITECTURES = tuple(EXTRA)


@cache
def _weights(architecture: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **SIZES, **EXTRA[architecture]))
    return {name: value * 1.5 for name, value in model.state_dict().items()}  # peaked enough to tell tokens apart


def tiny_model(architecture: str, attention: str = NAME) -> Any:
    """Always the same weights for an architecture; a fresh copy each time."""
    register()
    config = AutoConfig.for_model(architecture, **SIZES, **EXTRA[architecture])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.load_state_dict(_weights(architecture))
    return model.eval()
