"""Random-weight models that packed attention cannot run: sinks, chunks, biases, recurrent and hybrid layers."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tiny_models import SIZES
from transformers import AutoConfig, AutoModelForCausalLM

SPECIAL = {"vocab_size": 100, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
HYBRID = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 16, "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
# what it remembers, and the settings of a tiny one
UNPACKABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_oss": ("moves", {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
                          "sliding_window": 6}),
    "mamba": ("moves", {**SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "qwen3_next": ("moves", {**SIZES, **HYBRID}),
    "llama4_text": ("moves", {**SIZES, "head_dim": 16, "attention_chunk_size": 8, "num_local_experts": 2,
                              "intermediate_size_mlp": 64}),
    "mpt": ("moves", {**SPECIAL, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "minimax": ("stays", {**SIZES, "head_dim": 16, "num_local_experts": 2, "block_size": 8,
                          "layer_types": ["linear_attention", "full_attention", "linear_attention"]}),
    "rwkv": ("alone", {**SPECIAL, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 128}),
    "openai-gpt": ("none", {**SPECIAL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
}  # fmt: skip


@cache
def unpackable(architecture: str) -> Any:
    config = AutoConfig.for_model(architecture, **UNPACKABLE[architecture][1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return model
