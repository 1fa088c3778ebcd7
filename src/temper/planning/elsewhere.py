"""What a recipe will take on another machine, and what to change where it does not fit: from configs alone, without the
weights and files that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from temper.errors import Exit, Fault, TemperError
from temper.hub.cache import cached
from temper.hub.names import is_hub_data, is_hub_model, model_name
from temper.planning.estimate import UNKNOWN, Estimate, Machine, estimate, model_sizes
from temper.planning.known import known_size
from temper.planning.lengths import Tokens, stage_tokens
from temper.planning.machines import Elsewhere
from temper.planning.ranked import share
from temper.planning.shapes import ModelSize, model_size, size_by_config
from temper.recipe.graph import Ref, find_external, shipped_models
from temper.recipe.reader import load_recipe
from temper.recipe.recipe import Recipe, Stage

SHARDED = {  # keys by which ranks share out what each would hold, with what it costs
    "fully_shard": "each rank holds its part of weights, gradients and moments: docs/scale.md",
    "shard_optimizer": "each rank holds its part of the moments, the same bits; a third more is sent",
}
DEVICES = (2, 4, 8, 16)  # of the machines that are proposed
LEAST_MICRO_BATCH = 1024  # tokens: below it products are too small to be fast


@dataclass
class Sketch:
    """A recipe whose files need not be here: the sizes of its models, and what else is known of its rows."""

    recipe: Recipe
    sizes: Mapping[str, ModelSize | None]
    tokens: Mapping[str, Tokens]
    absent: list[Fault]  # what is not here, and was not needed

    def need(self, stage: Stage, machine: Machine, ranks: int = 1) -> Estimate:
        """What a stage needs, of memory each of so many ranks."""
        tokens = self.tokens.get(stage.name, UNKNOWN)
        need = estimate(stage, self.sizes, tokens, machine)
        if ranks > 1:
            need = replace(need, memory_bytes=share(stage, self.sizes, tokens, machine, ranks).memory_bytes)
        return need


@dataclass(frozen=True)
class Remedy:
    """A change of a stage's keys, what the stage then needs, and what the change costs, in words. With `ranks` it is
    on so many devices, each of which needs that."""

    change: str
    memory_bytes: int
    cost: str
    values: Mapping[str, Any] = field(default_factory=dict)
    ranks: int | None = None


def sketch(reference: str, settings: Sequence[str] = ()) -> Sketch:
    """The recipe, with what can be told of it here. Nothing is fetched. Raises TemperError with every fault but those
    of files and models that are not here, or not whole."""
    finder = _Finder()
    recipe, faults = load_recipe(reference, settings, finder)
    fatal = [fault for fault in faults if fault.code in (None, Exit.CONFIG)]
    if fatal:
        raise TemperError(fatal, Exit.CONFIG)
    absent = [*finder.absent, *(fault for fault in faults if fault not in fatal)]
    return Sketch(recipe, model_sizes(recipe, {}, finder.sizes), _tokens(recipe), absent)


def _tokens(recipe: Recipe) -> Mapping[str, Tokens]:
    try:
        return stage_tokens(recipe, {})
    except TemperError:  # a set that this installation cannot make: lengths are assumed
        return {}


@dataclass
class _Finder:
    """Finds what a recipe names as far as it is here; notes the sizes of models of which there is only a config."""

    sizes: dict[str, ModelSize] = field(default_factory=dict)
    absent: list[Fault] = field(default_factory=list)

    def __call__(self, ref: Ref, stages: Sequence[str]) -> tuple[Ref, list[Fault]]:
        if ref.kind == "model" and ref.text not in shipped_models() and (size := self._config_alone(ref)) is not None:
            self.sizes[ref.text] = size
            return ref, []
        if (ref.kind == "data" and is_hub_data(ref.text)) or (
            ref.kind == "model" and is_hub_model(ref.text) and not self._is_here(ref)
        ):
            self.absent.append(Fault(f"`{ref.text}` is not here", str(ref.place), "nothing is fetched for a plan"))
            return ref, []
        found, faults = find_external(ref, stages)
        self.absent += [fault for fault in faults if fault.code not in (None, Exit.CONFIG)]
        return found, [fault for fault in faults if fault.code in (None, Exit.CONFIG)]

    def _config_alone(self, ref: Ref) -> ModelSize | None:
        """The size of a model from a config.json, or a directory that has no more of it; or by its name on the Hub."""
        for folder in (ref.place.folder, Path()):
            path = folder / Path(ref.text).expanduser()
            if path.is_file():
                return size_of_config(path)
            if (path / "config.json").is_file() and not any(path.glob("*.safetensors")):
                return size_of_config(path / "config.json")
        if not is_hub_model(ref.text):
            return None
        here = None
        repo, revision = model_name(ref.text)
        with suppress(TemperError):  # no huggingface_hub
            here = cached(repo, "model", revision, "")
        return (model_size(here.folder) if here is not None else None) or known_size(ref.text)

    @staticmethod
    def _is_here(ref: Ref) -> bool:
        return any((folder / ref.text).exists() for folder in (ref.place.folder, Path()))


def size_of_config(path: Path) -> ModelSize | None:
    """The size of the model that a config.json describes; None where it cannot be told."""
    try:
        config = json.loads(path.read_bytes())
        config = config.get("text_config") or config
    except (OSError, ValueError, AttributeError):
        return None
    return size_by_config(config) if isinstance(config, dict) else None


# -- remedies ---------------------------------------------------------------------------------------------------------


def remedies(found: Sketch, stage: Stage, there: Elsewhere, ranks: int = 1) -> list[Remedy]:
    """What makes a stage that does not fit smaller, each alone with its figure, those that help most first; where none
    is enough, those that are together; and more devices."""
    before = found.need(stage, there.machine, ranks).memory_bytes
    if before is None:
        return []
    alone = []
    for values, cost in _changes(stage, there, ranks):
        memory = _with(found, stage, values, there, ranks)
        if memory is not None and memory < before:
            alone.append(Remedy(_shown(values), memory, cost, values))
    of_key: dict[str, Remedy] = {}
    for remedy in alone:  # of the values of one key the first that is enough, else the last
        key = next(iter(remedy.values))
        if key not in of_key or of_key[key].memory_bytes > there.bytes:
            of_key[key] = remedy
    shown = sorted(of_key.values(), key=lambda remedy: remedy.memory_bytes)
    more = _more_devices(found, stage, there, before) if ranks == 1 and there.accelerator else []
    if len(shown) < 2 or shown[0].memory_bytes <= there.bytes:
        return shown + more
    together = _together(found, stage, alone, there, ranks)
    memory = _with(found, stage, together, there, ranks)
    if memory is not None:
        shown.append(Remedy(_shown(together), memory, "together", together))
    return shown + more


def _more_devices(found: Sketch, stage: Stage, there: Elsewhere, before: int) -> list[Remedy]:
    """The fewest of such devices that are enough, each with its part; where none are, what each of the most needs."""
    best: Remedy | None = None
    for ranks in DEVICES:
        for key, cost in SHARDED.items():
            memory = _with(found, stage, {key: True}, there, ranks) if key in vars(stage.config) else None
            if memory is not None and memory < min(before, best.memory_bytes if best else before):
                best = Remedy(f"{key}: true, on {ranks} such devices", memory, cost, {key: True}, ranks)
        if best is not None and best.memory_bytes <= there.bytes:
            break
    return [best] if best is not None else []


def _together(
    found: Sketch, stage: Stage, alone: Sequence[Remedy], there: Elsewhere, ranks: int
) -> dict[str, Any]:
    """The cheapest changes that are enough together, taken in turn, those that prove needless left out again; all of
    them where they are not enough."""

    def fits(values: Mapping[str, Any]) -> bool:
        memory = _with(found, stage, values, there, ranks)
        return memory is not None and memory <= there.bytes

    together: dict[str, Any] = {}
    for remedy in alone:
        if _with(found, stage, {**together, **remedy.values}, there, ranks) is None:
            continue  # it does not go with one before it
        together |= remedy.values
        if fits(together):
            break
    else:
        return together
    for key in list(together)[-2::-1]:
        fewer = {name: value for name, value in together.items() if name != key}
        if fits(fewer):
            together = fewer
    return together


def _changes(stage: Stage, there: Elsewhere, ranks: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Changes of a stage's keys that take less memory, with what they cost, cheapest first."""
    config = vars(stage.config)
    if config.get("gradient_checkpointing") is False:
        yield {"gradient_checkpointing": True}, "a third more time, the same gradient"
    budget = config.get("micro_batch_tokens")
    while isinstance(budget, int) and budget // 2 >= LEAST_MICRO_BATCH:
        budget //= 2
        yield {"micro_batch_tokens": budget}, "fewer rows at a time, the same gradient"
    if there.accelerator and config.get("offload_reference") is False and config.get("kl_penalty"):
        yield {"offload_reference": True}, "the reference is copied at each step"
    for key, cost in SHARDED.items():
        if ranks > 1 and config.get(key) is False:
            yield {key: True}, cost
    if config.get("optim") == "adamw":
        yield {"optim": "adamw_8bit"}, 'Adam\'s moments rounded; pip install "temper-rl[8bit]"'
    if config.get("lora", "") is None:
        yield {"lora": {"r": 16, "alpha": 32}}, 'only adapters learn; pip install "temper-rl[lora]"'


def _with(found: Sketch, stage: Stage, values: Mapping[str, Any], there: Elsewhere, ranks: int) -> int | None:
    """What a stage needs with other values; None for values that it cannot have together."""
    cls = type(stage.config)
    try:
        config = cls.model_validate({**stage.config.model_dump(), **values})
    except ValueError:
        return None
    return found.need(replace(stage, config=config), there.machine, ranks).memory_bytes


def _shown(values: Mapping[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
        return str(value).lower() if isinstance(value, bool) else str(value)

    return ", ".join(f"{key}: {one(value)}" for key, value in values.items())
