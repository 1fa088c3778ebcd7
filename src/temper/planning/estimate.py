"""What a stage will need, by arithmetic, before it runs: from its config and the shape of the models it starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from random import Random
from statistics import mean, pstdev
from typing import Any

from temper.errors import TemperError
from temper.recipe.graph import Ref, is_folder
from temper.recipe.recipe import Recipe, Stage
from temper.rollout.memory import default_budget, wave_bytes

PROCESS_BYTES = 480_000_000  # Python and its libraries once a model is computed with, the model itself left out
LIGHT_BYTES = 260_000_000  # the same where none is
ROWS = 512  # rows that a sampler decodes together
TRAINED = ("model", "reward_model")  # what stages that train make
READ_ROWS = 256  # of a file, to tell how long its rows are
PROMPT_TOKENS = 128  # of a usual prompt with its template


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
    """The sizes that memory depends on, named as in config.json."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int

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
            return Shape(
                hidden, number("intermediate_size", 4 * hidden), number("num_hidden_layers"), heads,
                number("num_key_value_heads", heads), number("head_dim", hidden // heads), number("vocab_size"),
                number("max_position_embeddings", 4096),
            )  # fmt: skip
        except KeyError:
            return None

    @property
    def parameters(self) -> int:
        """Of a Llama-style model with tied embeddings, its norms left out."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_attention_heads + self.num_key_value_heads)
        return self.num_hidden_layers * (attention + 3 * self.hidden_size * self.intermediate_size) + (
            self.vocab_size * self.hidden_size
        )

    def activation_floats(self, checkpointing: bool) -> int:
        """Numbers kept a token for the backward pass; fitted to Qwen2 models of 1 to 40 M parameters, within 13 %."""
        keys = self.num_key_value_heads * self.head_dim
        of_layer = int(13.5 * self.hidden_size + 6 * keys + 4 * self.intermediate_size)
        return self.num_hidden_layers * self.hidden_size + of_layer if checkpointing else (
            self.num_hidden_layers * of_layer
        )  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Needs of a stage, None where they cannot be known before it ran. `cache_bytes`, a part of the memory, is what
    sampling holds at most: keys, values and logits of the rows decoded together."""

    memory_bytes: int | None
    disk_bytes: int | None
    cache_bytes: int | None = None


def model_size(folder: Path) -> ModelSize | None:
    """The size of a model directory, from the headers of its weights; None if they cannot be read."""
    parameters = total = 0
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, 64 << 20)))
            for name, tensor in header.items():
                if name != "__metadata__":
                    begin, end = tensor["data_offsets"]
                    total += end - begin
                    parameters += prod(map(int, tensor["shape"]))
        config = json.loads((folder / "config.json").read_bytes())
        config = config.get("text_config") or config
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ModelSize(parameters, total, config) if parameters and isinstance(config, dict) else None


def model_sizes(recipe: Recipe, artifacts: Mapping[str, Path]) -> dict[str, ModelSize | None]:
    """The size of the model behind every model reference, and every reward that is a model: read where it exists, else
    that of what it starts from."""
    sizes: dict[str, ModelSize | None] = {}
    for stage in recipe.stages:
        for ref in (ref for ref in stage.references if ref.kind == "model" or _is_reward_model(ref)):
            if ref.text not in sizes:
                folder = ref.path or artifacts.get(ref.stage or "")
                sizes[ref.text] = model_size(folder) if folder else sizes.get(f"@{ref.stage}")
        own = [sizes[ref.text] for ref in stage.references if ref.kind == "model"]
        if stage.makes in TRAINED and f"@{stage.name}" not in sizes:
            folder = artifacts.get(stage.name)
            sizes[f"@{stage.name}"] = model_size(folder) if folder else (own[0] if own else _created(stage))
    return sizes


def _is_reward_model(ref: Ref) -> bool:
    return ref.kind == "reward" and (ref.stage is not None or is_folder(ref))


def step_tokens(recipe: Recipe, artifacts: Mapping[str, Path]) -> dict[str, int]:
    """Tokens of a large step (two deviations above the mean) of each stage that trains on conversations, by the stage's
    name; told from some of its rows, where the file exists and a tokenizer is known."""
    folders: dict[str, Path | None] = {}
    found = {}
    for stage in recipe.stages:
        own = []
        for ref in (ref for ref in stage.references if ref.kind == "model"):
            own.append(ref.path or artifacts.get(ref.stage or "") or folders.get(ref.stage or ""))
        folders[stage.name] = artifacts.get(stage.name) or (own[0] if own else None)
        data = next((ref for ref in stage.references if ref.key.endswith(f".{stage.name}.data")), None)
        size, columns = (getattr(stage.config, name, None) for name in ("batch_size", "columns"))
        if data is None or not own or own[0] is None or size is None or columns is None:
            continue
        folder = artifacts.get(data.stage or "")
        path = data.path or (folder / (data.file or "data.jsonl") if folder else None)
        if path is not None and (lengths := _row_lengths(path, columns, own[0])):
            found[stage.name] = int(size * mean(lengths) + 2 * pstdev(lengths) * size**0.5)
    return found


def _row_lengths(path: Path, columns: Mapping[str, str], model: Path) -> list[int]:
    """Tokens of up to `READ_ROWS` conversations of the file; [] if they cannot be told."""
    from temper.data.conversations import load_conversations
    from temper.text.chat import ChatFormat

    try:
        rows = load_conversations(path, columns, tell=lambda note: None)
        chosen = Random(0).sample(rows, min(READ_ROWS, len(rows)))
        return [len(example.token_ids) for example in ChatFormat.load(model).conversation_examples(chosen)]
    except TemperError:  # told elsewhere, or no conversations
        return []


def _created(stage: Stage) -> ModelSize | None:
    """The model that a stage makes from nothing, where its config has the shape."""
    if isinstance(getattr(stage.config, "hidden_size", None), int):
        shape = Shape.of(vars(stage.config))
        if shape is not None:
            return ModelSize(shape.parameters, 4 * shape.parameters, vars(stage.config))
    return None


def estimate(stage: Stage, sizes: Mapping[str, ModelSize | None], tokens: int | None = None) -> Estimate:
    """What a stage will need. `sizes` is by model reference; `tokens` are those of a large step, where they are known.
    Stages that make no model write little."""
    models = [ref.text for ref in stage.references if ref.kind == "model"]
    known = [size for text in models if (size := sizes.get(text)) is not None]
    if not models and (own := sizes.get(f"@{stage.name}")) is not None:
        models, known = [stage.name], [own]
    if len(known) < len(models) or (not models and stage.makes in TRAINED):
        return Estimate(None, None)
    if not models:
        return Estimate(LIGHT_BYTES, None)
    config = vars(stage.config)
    width = _width(config)
    asked = sizes.get(config.get("teacher", ""))  # it is computed with and not trained
    largest = max((size for size in known if size is not asked), key=lambda size: size.parameters, default=known[0])
    scoring = {ref.text: sizes.get(ref.text) for ref in stage.references if _is_reward_model(ref)}
    beside = sum(4 * size.parameters for size in scoring.values() if size is not None)  # reward models, in float32
    if stage.kind == "import_model":
        return Estimate(PROCESS_BYTES + width * largest.parameters, largest.bytes)
    cache = _cache(config, largest.shape, width)
    if stage.makes not in TRAINED:
        return Estimate(PROCESS_BYTES + width * largest.parameters + beside + (cache or 0), None, cache)
    memory = PROCESS_BYTES + int(_trained_bytes(config, width) * largest.parameters) + beside
    memory += max(_activations(config, largest.shape, width, tokens), cache or 0)
    penalty = config.get("kl_penalty")
    if (any(penalty.values()) if isinstance(penalty, Mapping) else penalty) and not config.get("lora"):
        memory += width * largest.parameters  # the reference model
    if asked is not None:
        memory += width * asked.parameters
    if config.get("value_model") == "separate":  # trained beside the policy, in float32
        memory += 16 * (sizes.get(config.get("value_model_from") or "") or largest).parameters
    checkpoints = 2 * 12 * largest.parameters  # two are kept: weights and Adam's two moments
    return Estimate(memory, largest.bytes + (checkpoints if not config.get("lora") else 0), cache)


def _width(config: Mapping[str, Any]) -> int:
    """Bytes of a weight that is computed with; "auto" as on a CPU."""
    return 2 if config.get("dtype") in ("bfloat16", "float16") else 4


def _trained_bytes(config: Mapping[str, Any], width: int) -> float:
    """Bytes a parameter in training: weight, gradient, Adam's moments, and a master where the weight is rounded."""
    if config.get("lora"):
        return width
    moments = 2 if config.get("optim") == "adamw_8bit" else 8
    return width + 4 + moments + (4 if width < 4 else 0)


def _activations(config: Mapping[str, Any], shape: Shape | None, width: int, tokens: int | None) -> int:
    """What the backward pass keeps of the largest micro-batch."""
    budget = config.get("micro_batch_tokens")
    if shape is None or not isinstance(budget, int):
        return 0
    context = shape.max_position_embeddings
    step = tokens or context * config.get("batch_size", budget)
    if "num_generations" in config:
        length = min(context, config["max_completion_length"])
        step = config["prompts_per_step"] * (min(context, PROMPT_TOKENS) + config["num_generations"] * length)
    floats = shape.activation_floats(bool(config.get("gradient_checkpointing")))
    return width * min(budget, step) * floats


def _cache(config: Mapping[str, Any], shape: Shape | None, width: int) -> int | None:
    """Keys, values and logits of the rows that are decoded together, if the stage samples."""
    length = config.get("max_completion_length")
    if shape is None or not isinstance(length, int):
        return None
    samples = config.get("num_samples") or config.get("num_generations") or 1
    prompts = config.get("prompts_per_step") or config.get("max_prompts") or ROWS
    rows, columns = min(ROWS, prompts * samples), min(length, shape.max_position_embeddings)
    prompt = min(PROMPT_TOKENS, shape.max_position_embeddings)
    return min(wave_bytes(shape, rows, columns, -(-rows // samples), prompt, width), default_budget())
