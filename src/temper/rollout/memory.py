"""What decoding holds in memory, by arithmetic: a batch is planned with it, and `temper plan` tells it."""

from __future__ import annotations

from typing import Any

from temper.environment import machine_memory

LOGIT_COPIES = 3  # of [rows, vocabulary] in float32 while a token is drawn: logits, probabilities, one in passing
TOKENS_A_FORWARD = 16_384  # of prompts: activations of a forward pass stay bounded, however many prompts there are
VECTOR = 16  # tokens, to a multiple of which there is room for keys: kernels read whole vectors of them
SHARE = 0.25  # of the machine's memory that the rows decoded together may take
ROWS_A_PROCESS = 32  # with fewer rows each, a second process costs more than it saves
LAID = 0.5  # of what they may take: weights that are copied for them
COPIES = 1 << 30  # bytes that such copies in several processes may take together


def token_bytes(config: Any, itemsize: int = 4) -> int:
    """Keys and values of one token in every layer of a model with this Hugging Face config.

    >>> from types import SimpleNamespace
    >>> token_bytes(SimpleNamespace(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, hidden_size=64))
    512
    """
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * config.num_hidden_layers * key_heads * size * itemsize


def whole_vectors(tokens: int) -> int:
    """Tokens that there is room for, where keys of so many are kept.

    >>> whole_vectors(1), whole_vectors(16), whole_vectors(33)
    (16, 16, 48)
    """
    return -(-tokens // VECTOR) * VECTOR


def row_bytes(config: Any, columns: int, itemsize: int = 4) -> int:
    """One row in flight: room for `columns` tokens of its own, and its logits."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return whole_vectors(columns) * token_bytes(config, itemsize) + LOGIT_COPIES * 4 * config.vocab_size


def wave_bytes(config: Any, rows: int, columns: int, prompts: int, prompt_tokens: int, itemsize: int = 4) -> int:
    """`rows` decoded together: their own tokens, and each distinct prompt once."""
    return rows * row_bytes(config, columns, itemsize) + prompts * prompt_tokens * token_bytes(config, itemsize)


def default_budget() -> int:
    """Bytes that the rows in flight may take: a share of the machine's memory, the same in every run on it."""
    return int(SHARE * machine_memory())


def may_lay(weights: int, budget: int, itemsize: int = 4) -> bool:
    """Whether that many weights are copied for decoding, side by side as products take them: where that is little
    beside the `budget` of the rows.

    >>> may_lay(135_000_000, 6 << 30), may_lay(1_500_000_000, 6 << 30)
    (True, False)
    """
    return itemsize * weights <= LAID * budget


def most_processes(threads: int, weights: int, budget: int) -> int:
    """How many processes may sample: one a thread, fewer where each copies that many weights.

    >>> most_processes(8, 50_000_000, 6 << 30), most_processes(8, 135_000_000, 6 << 30)
    (5, 1)
    """
    return min(threads, max(1, COPIES // (4 * weights))) if may_lay(weights, budget) else threads


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate, on any device."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
