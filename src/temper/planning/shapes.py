"""The sizes of a model, read without loading it, and what its layers keep in training, counted tensor by tensor.

Letters as in the kernels: E hidden size, I intermediate size, L layers, H heads, D head size, V vocabulary, N tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from temper.kernels.kept import kept_bytes

UNGATED = {"gpt_neox", "phi", "starcoder2", "nemotron"}  # kinds whose MLP has two matrices, not three
ONE_CALL = {"llama", "qwen2", "qwen3", "mistral", "gemma3_text"}  # kinds that `kernels/trunk.py` is known to serve
WHOLE = 16  # numbers of a vector there: a head's size is a multiple of it
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # how many a layer of a mixture has
SPAN = 2048  # tokens, as in `kernels/trunk.c`
HEAD_SPACES = 2 * (16 << 20)  # pieces of logits of either `head.py`, or chunks of `train/divergence.py`, at most


@dataclass(frozen=True)
class ModelSize:
    """What can be told of a model without loading it; `config` has Hugging Face's keys."""

    parameters: int
    bytes: int
    config: Mapping[str, Any]

    @property
    def shape(self) -> Shape | None:
        return Shape.of(self.config)


@dataclass(frozen=True)
class Shape:
    """The sizes that memory depends on, named as in config.json. In a mixture of experts `intermediate_size` is that of
    the experts that a token goes through, together, and `apart` counts the weights of a layer that it does not."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = True
    gated: bool = True
    apart: int = 0
    dense_layers: int = 0  # of the first layers, without experts, of `dense_size`
    dense_size: int = 0
    in_one_call: bool = True  # whether `kernels/trunk.py` serves layers of this kind

    @staticmethod
    def of(config: Mapping[str, Any]) -> Shape | None:
        """None where the config does not tell (another kind of model than a decoder of attention and MLP layers)."""

        def number(key: str, default: int | None = None) -> int:
            value = config.get(key)
            value = default if value is None else value
            if not isinstance(value, int) or value < 1:
                raise KeyError(key)
            return value

        try:
            hidden, heads = number("hidden_size"), number("num_attention_heads")
            if config.get("kv_lora_rank"):  # keys and values are made of a narrow row: other layers than these
                return None
            inner, apart, dense = number("intermediate_size", 4 * hidden), 0, 0
            size = inner
            if experts := next((config[key] for key in EXPERTS if config.get(key)), 0):
                one, used = number("moe_intermediate_size", inner), number("num_experts_per_tok")
                shared = config.get("shared_expert_intermediate_size") or one * (config.get("n_shared_experts") or 0)
                inner = used * one + shared
                apart = hidden * (3 * one * (experts - used) + experts)  # the router is counted here, too
                dense = config.get("first_k_dense_replace") or len(config.get("mlp_only_layers") or ())
            return Shape(
                hidden, inner, number("num_hidden_layers"), heads,
                number("num_key_value_heads", heads), number("head_dim", hidden // heads), number("vocab_size"),
                number("max_position_embeddings", 4096), config.get("tie_word_embeddings", True) is not False,
                config.get("model_type") not in UNGATED, apart, dense, size,
                config.get("model_type") in ONE_CALL and number("head_dim", hidden // heads) % WHOLE == 0,
            )  # fmt: skip
        except KeyError:
            return None

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def key_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def layer_sizes(self) -> tuple[int, int, int, int]:
        """Hidden, intermediate, query and key size."""
        return self.hidden_size, self.intermediate_size, self.query_size, self.key_size

    @property
    def embedding(self) -> int:
        """Numbers of the embedding, or of a head of its own."""
        return self.vocab_size * self.hidden_size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of a Llama-like layer, by name: size in, size out."""
        hidden, inner, query, key = self.layer_sizes
        gate = {"gate_proj": (hidden, inner)} if self.gated else {}
        return {
            "q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key), "o_proj": (query, hidden),
            **gate, "up_proj": (hidden, inner), "down_proj": (inner, hidden),
        }  # fmt: skip

    @property
    def parameters(self) -> int:
        """Of a Llama-like model, its norms and biases left out."""
        of_layer = sum(size_in * size_out for size_in, size_out in self.linears.values()) + self.apart
        embeddings = 1 if self.tie_word_embeddings else 2
        less = self.dense_layers * (3 * self.hidden_size * (self.intermediate_size - self.dense_size) + self.apart)
        return self.num_hidden_layers * of_layer - less + embeddings * self.embedding

    def adapter_parameters(self, rank: int, targets: str | Sequence[str] = "all-linear") -> int:
        """Of low-rank adapters on the linear layers that `targets` names."""
        chosen = self.linears if isinstance(targets, str) else {n: s for n, s in self.linears.items() if n in targets}
        return self.num_hidden_layers * sum(rank * sum(sizes) for sizes in chosen.values())

    def activation_bytes(self, tokens: int, training: Training) -> int:
        """What an update holds at its peak beside weights, gradients and moments, for a micro-batch of `tokens`: what
        the forward pass keeps, and the largest work space of the backward pass while all of that is still held."""
        again = self._layer_bytes(tokens, training) if training.checkpointing else 0
        return self.kept_bytes(tokens, training) + again + self._work_space(tokens, training)

    def kept_bytes(self, tokens: int, training: Training) -> int:
        """What the forward pass keeps for the backward pass."""
        of_layer = self._layer_bytes(tokens, training)
        if training.checkpointing:
            of_layer = training.width * self.hidden_size * tokens  # what goes in
        norm = 2 * self.hidden_size * training.width + (0 if training.fused else 4 * self.hidden_size)
        positions = 0 if training.together else 2 * self.head_dim * training.width
        logits = min(4 * self.vocab_size * tokens, kept_bytes(4 * self.embedding)) if training.keeps_logits else 0
        return self.num_hidden_layers * of_layer + (norm + positions) * tokens + logits

    def _layer_bytes(self, tokens: int, training: Training) -> int:
        return self._kept_by_layer(training) * tokens + self._copied_weights(tokens, training)

    def _kept_by_layer(self, training: Training) -> int:
        """Bytes a token. Fused (`kernels/fused.py`): both residuals and what the norms make of them, queries, keys and
        values in one tensor, both rotated, what they mix to, gate and up and their product. Plain (transformers): each
        norm keeps a float32 copy too, the gate its two sides. Either: a float32 a head, and what adapters narrow to."""
        width, (hidden, inner, query, key) = training.width, self.layer_sizes
        adapters = training.rank * len(self.linears) * width
        if training.together:  # what goes in, queries, keys and values, what they mix to, what comes of it, gate and up
            return width * (2 * hidden + 2 * query + 2 * key + 2 * inner) + 4 * self.num_attention_heads
        if training.fused:
            return width * (4 * hidden + 3 * query + 3 * key + 3 * inner) + 4 * self.num_attention_heads + adapters
        norms = 2 * (4 + width) * hidden  # the row in float32, and the normed row before its weight
        return norms + width * (2 * hidden + 2 * query + 2 * key + 4 * inner) + 4 * self.num_attention_heads + adapters

    def _copied_weights(self, tokens: int, training: Training) -> int:
        """Bytes a layer: products of the same rows are made in one, from weights laid side by side, which the backward
        pass needs; where there are fewer rows than columns, and with adapters, they are made apart."""
        if training.together or not training.fused or training.rank or tokens <= self.hidden_size:
            return 0
        return 4 * self.hidden_size * (2 * self.intermediate_size + self.query_size + 2 * self.key_size)

    def _work_space(self, tokens: int, training: Training) -> int:
        """The backward pass of the last MLP: the gradients of its rows and of its weights, beside that of the head's
        weight, which waits for the embedding's."""
        rows = training.width * (2 * self.hidden_size + 3 * self.intermediate_size) * tokens
        if training.straight:
            return max(self._call_space(tokens), HEAD_SPACES)
        if training.rank:
            return max(rows, HEAD_SPACES)
        weights = training.width * 2 * self.hidden_size * self.intermediate_size
        return 4 * self.embedding + max(rows + weights, HEAD_SPACES)

    def _call_space(self, tokens: int) -> int:
        """Of `kernels/trunk_back.h` with several threads: gradients of what a span of tokens was made of, of queries,
        keys and values, and a layer's weights laid out. Those of the weights go where they gather."""
        hidden, inner, query = self.hidden_size, self.intermediate_size, self.query_size
        weights = sum(size_in * size_out for size_in, size_out in self.linears.values())
        rows = max(query, hidden) + query + 2 * self.key_size
        return 4 * (3 * (hidden + inner) * min(tokens, SPAN) + rows * tokens + weights)

    def prefill_bytes(self, tokens: int, width: int) -> int:
        """What laying down prompts of `tokens` tokens together takes: one layer's rows, and all keys and values."""
        keys = 2 * self.num_hidden_layers * self.key_size
        return width * (3 * self.intermediate_size + 4 * self.hidden_size + self.query_size + keys) * tokens


@dataclass(frozen=True)
class Training:
    """How a model is trained, as far as memory depends on it: bytes of a number that is computed with, layers computed
    again in the backward pass, the rank of adapters (0: none), the fused forwards of float32 on a CPU, whether all
    layers go `together` (`kernels/trunk.py`), gradients `straight` to where they gather: in one process, and whether
    logits are kept (`kernels/head.py`)."""

    width: int = 4
    checkpointing: bool = False
    rank: int = 0
    fused: bool = True
    together: bool = False
    straight: bool = False
    keeps_logits: bool = True


def model_size(folder: Path) -> ModelSize | None:
    """The size of a model directory, from the headers of its weights; without weights from its config alone. None if
    neither can be read."""
    parameters = total = 0
    try:
        config = json.loads((folder / "config.json").read_bytes())
        config = config.get("text_config") or config
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, 64 << 20)))
            for name, tensor in header.items():
                if name != "__metadata__":
                    begin, end = tensor["data_offsets"]
                    total += end - begin
                    parameters += prod(map(int, tensor["shape"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(config, dict):
        return None
    return ModelSize(parameters, total, _with_defaults(config)) if parameters else size_by_config(config)


def size_by_config(config: Mapping[str, Any]) -> ModelSize | None:
    """Of the model that a config.json describes, stored in its dtype; None where the shape cannot be told."""
    config = _with_defaults(config)
    shape = Shape.of(config)
    if shape is None:
        return None
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return ModelSize(shape.parameters, shape.parameters * (4 if dtype == "float32" else 2), config)


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config, with what its kind of model takes where it is silent, if it leaves out what a shape is told from: a
    part of a larger config names only what is otherwise (Gemma 3)."""
    if Shape.of(config) is not None or not isinstance(config.get("model_type"), str):
        return config
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        return {**CONFIG_MAPPING[config["model_type"]](**config).to_dict(), **config}
    except Exception:  # transformers does not know the kind, or not this one of it
        return config
