"""What a stage will need, by arithmetic, before it runs: from its config, the shape of the models it starts from and
the lengths of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from temper.kernels.choice import of_layers
from temper.planning.lengths import Spread, Tokens
from temper.planning.shapes import ModelSize, Shape, Training, model_size
from temper.recipe.graph import Ref, is_folder
from temper.recipe.recipe import Recipe, Stage
from temper.rollout.memory import ROWS_A_PROCESS, TOKENS_A_FORWARD, default_budget, may_lay, most_processes, wave_bytes
from temper.train.sizes import SMALL_MODEL, by_processes, even_budget, places_for, wide_budget

PROCESS_BYTES = 500_000_000  # Python and its libraries once a model is computed with, the model itself left out
CONTEXT_BYTES = 1_000_000_000  # of an accelerator's memory: its context and the libraries' work spaces
WORD_BYTES = 2_500  # of a tokenizer, a token of its vocabulary: 0.12 GB at 49,152
LIGHT_BYTES = 260_000_000  # the same where none is
ROWS = 512  # rows that a sampler decodes together
TRAINED = ("model", "reward_model")  # what stages that train make
PROMPT_TOKENS = 128  # of a usual prompt with its template
UNKNOWN = Tokens()


@dataclass(frozen=True)
class Machine:
    """Where a stage is to run, as far as its memory depends on it. `cache_bytes` is what a sampler may take; `threads`
    those of the recipe; `compiles`: there is a C compiler. `in_one_call` says of shapes of layers (`choice.of_layers`)
    that were tried there whether they are faster so."""

    accelerator: bool = False
    cache_bytes: int | None = None
    threads: int = 1
    compiles: bool = True
    in_one_call: Mapping[str, bool] = field(default_factory=dict)

    @property
    def process_bytes(self) -> int:
        return CONTEXT_BYTES if self.accelerator else PROCESS_BYTES


HERE = Machine()


@dataclass(frozen=True)
class Estimate:
    """Needs of a stage, None where they cannot be known before it ran. `cache_bytes`, a part of the memory, is what
    sampling holds at most: keys, values and logits of the rows decoded together. `assumed` says what of the lengths
    behind the memory was not measured."""

    memory_bytes: int | None
    disk_bytes: int | None
    cache_bytes: int | None = None
    assumed: str = ""


def model_sizes(
    recipe: Recipe, artifacts: Mapping[str, Path], given: Mapping[str, ModelSize] = MappingProxyType({})
) -> dict[str, ModelSize | None]:
    """The size of the model behind every model reference, and every reward that is a model: `given`, or read where it
    exists, else that of what it starts from."""
    sizes: dict[str, ModelSize | None] = dict(given)
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


def _created(stage: Stage) -> ModelSize | None:
    """The model that a stage makes from nothing, where its config has the shape."""
    if isinstance(getattr(stage.config, "hidden_size", None), int):
        shape = Shape.of(vars(stage.config))
        if shape is not None:
            return ModelSize(shape.parameters, 4 * shape.parameters, vars(stage.config))
    return None


def estimate(
    stage: Stage, sizes: Mapping[str, ModelSize | None], tokens: Tokens = UNKNOWN, machine: Machine = HERE
) -> Estimate:
    """What a stage will need. `sizes` is by model reference. Stages that make no model write little."""
    models = [ref.text for ref in stage.references if ref.kind == "model"]
    known = [size for text in models if (size := sizes.get(text)) is not None]
    if not models and (own := sizes.get(f"@{stage.name}")) is not None:
        models, known = [stage.name], [own]
    if len(known) < len(models) or (not models and stage.makes in TRAINED):
        return Estimate(None, None)
    if not models:
        return Estimate(LIGHT_BYTES, None)
    config = vars(stage.config)
    width = weight_bytes(config, machine)
    asked = sizes.get(config.get("teacher", ""))  # it is computed with and not trained
    largest = max((size for size in known if size is not asked), key=lambda size: size.parameters, default=known[0])
    scoring = {ref.text: sizes.get(ref.text) for ref in stage.references if _is_reward_model(ref)}
    beside = sum(4 * size.parameters for size in scoring.values() if size is not None)  # reward models, in float32
    process = machine.process_bytes + (0 if machine.accelerator else _words(largest))
    loading = process + width * largest.parameters + (0 if machine.accelerator else largest.bytes)
    process += _converted(largest, width, machine)
    if stage.kind == "import_model":
        return Estimate(loading, largest.bytes)
    cache = _cache(config, largest.shape, width, tokens, machine)
    if stage.makes not in TRAINED:
        memory = process + width * largest.parameters + beside + (cache or 0)
        return Estimate(max(memory, loading + beside), None, cache, tokens.assumed)
    memory = process + trained_bytes(config, width, largest) + beside
    memory += max(_activations(config, largest, width, tokens, machine), cache or 0)
    memory += _models_beside(config, width, largest, sizes, asked, machine)
    checkpoints = 2 * 12 * largest.parameters  # two are kept: weights and Adam's two moments
    disk = 4 * largest.parameters + (0 if config.get("lora") else checkpoints)
    return Estimate(max(memory, loading + beside), disk, cache, tokens.assumed)


def _words(size: ModelSize) -> int:
    """Of a tokenizer: its vocabulary and merges, as Python and the library hold them."""
    return WORD_BYTES * (size.shape.vocab_size if size.shape is not None else 0)


def _converted(size: ModelSize, width: int, machine: Machine) -> int:
    """What stays in main memory of weights that lie in fewer bytes in the file than they are computed with."""
    return size.bytes if not machine.accelerator and size.bytes < width * size.parameters else 0


def weight_bytes(config: Mapping[str, Any], machine: Machine) -> int:
    """Bytes of a weight that is computed with."""
    dtype = config.get("dtype")
    return 2 if dtype in ("bfloat16", "float16") or (dtype == "auto" and machine.accelerator) else 4


def trained_bytes(config: Mapping[str, Any], width: int, size: ModelSize) -> int:
    """Of what is trained: weights, gradients, Adam's moments, and float32 masters where weights are narrower. With
    adapters the model's own weights have nothing of these."""
    moments = 2 if config.get("optim") == "adamw_8bit" else 8
    rank, targets = _adapters(config)
    if rank:
        count = size.shape.adapter_parameters(rank, targets) if size.shape is not None else 0
        return width * size.parameters + (8 + moments) * count
    return (width + 4 + moments + (4 if width < 4 else 0)) * size.parameters


def _adapters(config: Mapping[str, Any]) -> tuple[int, Any]:
    """The rank of the adapters that are trained, 0 without, and the layers that have them."""
    lora = config.get("lora")
    return (0, "all-linear") if lora is None else (lora.r, lora.target_modules)


def trained_count(config: Mapping[str, Any], size: ModelSize) -> int:
    """The weights that are trained: all, or with adapters theirs alone."""
    rank, targets = _adapters(config)
    if not rank:
        return size.parameters
    return size.shape.adapter_parameters(rank, targets) if size.shape is not None else 0


def _models_beside(
    config: Mapping[str, Any], width: int, size: ModelSize, sizes: Mapping[str, ModelSize | None],
    asked: ModelSize | None, machine: Machine,
) -> int:  # fmt: skip
    """Bytes of the models that a stage holds beside the one it trains: reference, teacher, value model."""
    penalty = config.get("kl_penalty")
    anchored = any(penalty.values()) if isinstance(penalty, Mapping) else bool(penalty)
    anchored = anchored or bool(config.get("measure_kl"))
    away = machine.accelerator and config.get("offload_reference")  # but for a moment, when nothing else is kept
    total = width * size.parameters if anchored and not config.get("lora") and not away else 0
    if asked is not None:
        total += width * asked.parameters
    if config.get("value_model") == "separate":  # trained as the policy, without adapters
        critic = sizes.get(config.get("value_model_from") or "") or size
        total += trained_bytes({**config, "lora": None}, width, critic)
    return total


def _activations(config: Mapping[str, Any], size: ModelSize, width: int, tokens: Tokens, machine: Machine) -> int:
    """What the largest micro-batch takes; with training processes that of each, and the gradients that wait. Of a
    large model, whose layers were not tried yet, what takes more counts."""
    budget, shape = config.get("micro_batch_tokens"), size.shape
    if shape is None or not isinstance(budget, int):
        return 0
    fused = width == 4 and not machine.accelerator and not config.get("compile")
    rank, targets = _adapters(config)
    step, longest = step_tokens(config, shape.max_position_embeddings, tokens)
    processes, waiting = 1, 0
    compiled = bool(config.get("compile"))
    alone = by_processes(config.get("parallel", "threads"), compiled, size.parameters) and not machine.accelerator
    together = fused and not rank and machine.compiles and shape.in_one_call
    again = bool(config.get("gradient_checkpointing"))
    keeps_logits = width == 4 and not machine.accelerator and machine.compiles
    tried = True if size.parameters <= SMALL_MODEL else machine.in_one_call.get(of_layers(*shape.layer_sizes))
    ways = {together and way for way in ((True, False) if tried is None else (tried,))}
    trainings = [Training(width, again, rank, fused, one, one and not alone, keeps_logits) for one in ways]
    if alone:
        budget = even_budget(step, budget)
        pieces = -(-step // max(budget, longest, 1))
        gradient = 4 * (shape.adapter_parameters(rank, targets) if rank else size.parameters)
        processes = min(machine.threads, pieces, places_for(gradient))
        waiting = min(pieces, places_for(gradient)) * gradient if processes > 1 else 0
    elif not machine.accelerator:
        budget = wide_budget(step, budget)
    micro_batch = min(step, max(budget, longest))
    return processes * max(shape.activation_bytes(micro_batch, training) for training in trainings) + waiting


def step_tokens(config: Mapping[str, Any], context: int, tokens: Tokens) -> tuple[int, int]:
    """Tokens of a large step of updates, and of its longest row: a micro-batch has at least one row."""
    if isinstance(prompts := config.get("prompts_per_step"), int) and isinstance(
        limit := config.get("max_completion_length"), int
    ):
        prompt = tokens.prompt or Spread(PROMPT_TOKENS, 0, PROMPT_TOKENS).at_most(context)
        reply = (tokens.reply or Spread(limit, 0, limit)).at_most(context)
        prompts //= config.get("num_mini_batches", 1)
        return prompt.step(prompts) + reply.step(prompts * config["num_generations"]), prompt.longest + reply.longest
    rows = config.get("batch_size")
    if tokens.rows is None or not isinstance(rows, int):
        return context * (rows if isinstance(rows, int) else context), 0
    pairs = 2 if config.get("kind") == "bradley_terry" else 1
    return tokens.rows.step(rows * pairs), pairs * tokens.rows.longest


def _cache(config: Mapping[str, Any], shape: Shape | None, width: int, tokens: Tokens, machine: Machine) -> int | None:
    """Keys, values and logits of the rows that are decoded together, if the stage samples; and what laying down their
    prompts takes, or the weights that are copied for decoding. All rows have room for the longest reply."""
    length = config.get("max_completion_length")
    if shape is None or not isinstance(length, int):
        return None
    samples = config.get("num_samples") or config.get("num_generations") or 1
    prompts = config.get("prompts_per_step") or config.get("max_prompts") or ROWS
    rows, columns = min(ROWS, prompts * samples), min(length, shape.max_position_embeddings)
    usual = round(tokens.prompt.mean) if tokens.prompt else PROMPT_TOKENS
    prompt, different = min(usual, shape.max_position_embeddings), -(-rows // samples)
    wave = wave_bytes(shape, rows, columns, different, prompt, width)
    filling = shape.prefill_bytes(min(TOKENS_A_FORWARD, different * prompt), width)
    budget = machine.cache_bytes or default_budget()
    in_c = width == 4 and not machine.accelerator and machine.compiles and shape.in_one_call
    weights = shape.parameters if shape.tie_word_embeddings else shape.parameters - shape.embedding
    processes = max(1, min(most_processes(machine.threads, weights, budget), rows // ROWS_A_PROCESS))
    laid = 4 * weights * processes if in_c and may_lay(weights, budget) else 0
    return min(wave, budget) + max(filling, laid)
