"""What a stage costs: measured while it runs, estimated before."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temper.pipeline.recipe import Recipe, Stage


@dataclass(frozen=True)
class Cost:
    """Wall seconds; CPU seconds, user and system, children included; the most memory held at once, in bytes.

    >>> Cost(1, 2, 300) + Cost(1, 1, 200)
    Cost(seconds=2, cpu_seconds=3, peak_memory_bytes=300)
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        peak = max(self.peak_memory_bytes, other.peak_memory_bytes)
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, peak)

    def __sub__(self, other: Cost) -> Cost:
        """What is left without `other`; the peak stays."""
        seconds, cpu = self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds
        return Cost(max(seconds, 0.0), max(cpu, 0.0), self.peak_memory_bytes)

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 3) for key, value in asdict(self).items()}

    @staticmethod
    def read(values: Any) -> Cost:
        """The cost that a JSON object records; what is not there counts as 0."""
        values = values if isinstance(values, Mapping) else {}
        seconds, cpu, peak = (
            value if isinstance(value := values.get(key), (int, float)) else 0 for key in asdict(Cost())
        )
        return Cost(seconds, cpu, int(peak))


class Meter:
    """Measures from when it is made, or from the start of the process."""

    def __init__(self, whole_process: bool = False):
        self.began = time.monotonic()
        self.cpu_began = 0.0 if whole_process else _cpu()
        if not whole_process:
            with contextlib.suppress(OSError):  # Linux: lets the peak be that of this stage alone
                Path("/proc/self/clear_refs").write_text("5")

    def spent(self) -> Cost:
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        unit = 1 if sys.platform == "darwin" else 1024
        return Cost(time.monotonic() - self.began, _cpu() - self.cpu_began, peak * unit)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# -- estimates --------------------------------------------------------------------------------------------------------

_SHAPE = ("hidden_size", "num_hidden_layers", "vocab_size")
PROCESS_BYTES = 450_000_000  # Python and its libraries, before any model
TRAINED_BYTES = 16  # a parameter in training: weight, gradient and Adam's two moments, 4 bytes each
ACTIVATIONS = 24  # values kept a token, layer and hidden unit for the backward pass of a usual decoder


@dataclass(frozen=True)
class ModelSize:
    """What can be told of a model without loading it; `shape` is (hidden size, layers, vocabulary) where known."""

    parameters: int
    bytes: int
    shape: tuple[int, int, int] | None


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
                    parameters += _product(tensor["shape"])
        config = json.loads((folder / "config.json").read_bytes())
        config = config.get("text_config", config)
        shape = tuple(config[key] for key in _SHAPE) if all(isinstance(config.get(k), int) for k in _SHAPE) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ModelSize(parameters, total, shape) if parameters else None  # type: ignore[arg-type]


def _product(shape: list[int]) -> int:
    result = 1
    for length in shape:
        result *= int(length)
    return result


@dataclass(frozen=True)
class Estimate:
    """Rough needs of a stage; None where they cannot be known before it ran."""

    memory_bytes: int | None
    disk_bytes: int | None


def estimate(stage: Stage, sizes: Mapping[str, ModelSize | None]) -> Estimate:
    """What a stage will need. `sizes` is by model reference; stages that make no model write little."""
    models = [ref.text for ref in stage.references if ref.kind == "model"]
    known = [size for text in models if (size := sizes.get(text)) is not None]
    if len(known) < len(models) or (not models and stage.makes == "model"):
        return Estimate(None, None)
    if not models:
        return Estimate(PROCESS_BYTES, None)
    largest = max(known, key=lambda size: size.parameters)
    if stage.makes != "model" or stage.kind == "import_model":
        memory = PROCESS_BYTES + 4 * largest.parameters
        return Estimate(memory, largest.bytes if stage.makes == "model" else None)
    memory = PROCESS_BYTES + TRAINED_BYTES * largest.parameters + _activations(stage, largest)
    if getattr(stage.config, "kl_penalty", 0):
        memory += 4 * largest.parameters  # the reference model
    checkpoints = 2 * 12 * largest.parameters  # two are kept: weights and Adam's two moments
    return Estimate(memory, largest.bytes + checkpoints)


def _activations(stage: Stage, size: ModelSize) -> int:
    """What the backward pass keeps of one micro-batch, and its logits three times over."""
    tokens = getattr(stage.config, "micro_batch_tokens", None)
    if size.shape is None or not isinstance(tokens, int):
        return 0
    hidden, layers, vocabulary = size.shape
    return 4 * tokens * (ACTIVATIONS * hidden * layers + 3 * vocabulary)


def model_sizes(recipe: Recipe, artifacts: Mapping[str, Path]) -> dict[str, ModelSize | None]:
    """The size of the model behind every model reference: read where it exists, else that of what it starts from."""
    sizes: dict[str, ModelSize | None] = {}
    for stage in recipe.stages:
        for ref in (ref for ref in stage.references if ref.kind == "model"):
            if ref.text not in sizes:
                folder = ref.path or artifacts.get(ref.stage or "")
                sizes[ref.text] = model_size(folder) if folder else sizes.get(f"@{ref.stage}")
        own = [sizes[ref.text] for ref in stage.references if ref.kind == "model"]
        if stage.makes == "model" and f"@{stage.name}" not in sizes:
            folder = artifacts.get(stage.name)
            sizes[f"@{stage.name}"] = model_size(folder) if folder else (own[0] if own else None)
    return sizes


def memory_available() -> int | None:
    """Bytes of memory that could be used now; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def show_bytes(count: float | None) -> str:
    """A number of bytes for the eye.

    >>> show_bytes(5_000_000), show_bytes(2**31), show_bytes(None)
    ('5 MB', '2.1 GB', 'unknown')
    """
    if count is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 10 * size and unit == "GB" else f"{count / size:.0f} {unit}"
    return f"{count:.0f} bytes"
