"""The sizes of models that people name and may not have on this machine, as their config.json files say."""

from __future__ import annotations

import re
from types import MappingProxyType

from temper.planning.shapes import ModelSize, size_by_config

# hidden, intermediate, layers, heads, key heads, size of a head, vocabulary, positions, head tied to the embedding
_SIZES = {
    "HuggingFaceTB/SmolLM2-135M": (576, 1536, 30, 9, 3, 64, 49152, 8192, True),
    "HuggingFaceTB/SmolLM2-360M": (960, 2560, 32, 15, 5, 64, 49152, 8192, True),
    "HuggingFaceTB/SmolLM2-1.7B": (2048, 8192, 24, 32, 32, 64, 49152, 8192, True),
    "Qwen/Qwen2.5-0.5B": (896, 4864, 24, 14, 2, 64, 151936, 32768, True),
    "Qwen/Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 128, 151936, 32768, True),
    "Qwen/Qwen2.5-3B": (2048, 11008, 36, 16, 2, 128, 151936, 32768, True),
    "Qwen/Qwen2.5-7B": (3584, 18944, 28, 28, 4, 128, 152064, 32768, False),
    "Qwen/Qwen2.5-14B": (5120, 13824, 48, 40, 8, 128, 152064, 32768, False),
    "Qwen/Qwen2.5-32B": (5120, 27648, 64, 40, 8, 128, 152064, 32768, False),
    "Qwen/Qwen3-0.6B": (1024, 3072, 28, 16, 8, 128, 151936, 40960, True),
    "Qwen/Qwen3-1.7B": (2048, 6144, 28, 16, 8, 128, 151936, 40960, True),
    "Qwen/Qwen3-4B": (2560, 9728, 36, 32, 8, 128, 151936, 40960, True),
    "Qwen/Qwen3-8B": (4096, 12288, 36, 32, 8, 128, 151936, 40960, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (1536, 8960, 28, 12, 2, 128, 151936, 131072, False),
    "Qwen/Qwen3-14B": (5120, 17408, 40, 40, 8, 128, 151936, 40960, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (3584, 18944, 28, 28, 4, 128, 152064, 131072, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": (5120, 13824, 48, 40, 8, 128, 152064, 131072, False),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (4096, 14336, 32, 32, 8, 128, 128256, 131072, False),
    "google/gemma-2-2b": (2304, 9216, 26, 8, 4, 256, 256000, 8192, True),
    "google/gemma-2-9b": (3584, 14336, 42, 16, 8, 256, 256000, 8192, True),
    "meta-llama/Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, 131072, True),
    "meta-llama/Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, 131072, True),
    "meta-llama/Meta-Llama-3-8B": (4096, 14336, 32, 32, 8, 128, 128256, 8192, False),
    "meta-llama/Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, 131072, False),
}
_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip
_KINDS = re.compile(r"-(Instruct|Base|Math|Coder|it)(?=-|$)")  # the same shape, trained further
_TYPES = {"gemma-2": "gemma2", "Qwen3": "qwen3", "Qwen": "qwen2"}  # what a name holds; the others are Llama's


def _type_of(name: str) -> str:
    return next((kind for part, kind in _TYPES.items() if part in name), "llama")


KNOWN = MappingProxyType(
    {name: {"model_type": _type_of(name), **dict(zip(_KEYS, sizes, strict=True))} for name, sizes in _SIZES.items()}
)


def known_size(name: str) -> ModelSize | None:
    """The size of a model of the Hub by its name, with or without a revision, stored in bfloat16; None for one that is
    not in the table.

    >>> round(known_size("Qwen/Qwen2.5-1.5B-Instruct").parameters / 1e9, 2), known_size("mine/model")
    (1.54, None)
    """
    bare = _KINDS.sub("", name.removeprefix("hf://").partition("@")[0])
    return size_by_config({**KNOWN[bare], "dtype": "bfloat16"}) if bare in KNOWN else None
