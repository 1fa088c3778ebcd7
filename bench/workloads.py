"""What is measured: model shapes, batch shapes and lengths. Every field can be given on the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from typing import Any

from temper.errors import Exit, Fault, TemperError

SAMPLE = "sample-"  # before a name: the generation part alone
CHOICES = {"dtype": ("float32", "bfloat16"), "device": ("cpu", "cuda"), "lengths": ("forced", "skewed", "uniform")}


@dataclass(frozen=True)
class Workload:
    """One GRPO step: `prompts` × `group` completions of a random-weight Qwen2 model.

    `lengths`: "forced" (all `new_tokens`), "skewed" or "uniform" (see `draws.completion_lengths`).
    `peer_micro_batch`: completions in TRL's micro-batch. `micro_batch_tokens`: temper's; None is its own default.
    `compile`: temper's layers are compiled.
    """

    hidden: int = 128
    intermediate: int = 384
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    vocab: int = 128
    tied: bool = True
    dtype: str = "float32"
    device: str = "cpu"
    prompts: int = 32
    group: int = 16
    prompt_tokens: int = 14
    new_tokens: int = 32
    lengths: str = "forced"
    min_new_tokens: int = 1
    dead_groups: float = 0.0  # share of groups whose rewards are all equal
    kl: float = 0.0
    seed: int = 0
    peer_micro_batch: int = 64
    micro_batch_tokens: int | None = None
    compile: bool = False

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def eos(self) -> int:
        return self.vocab - 3  # then the padding token and the unknown one; a prompt has none of the three

    @property
    def pad(self) -> int:
        return self.vocab - 2


_SHORT = Workload()
_05B = Workload(
    hidden=896, intermediate=4864, layers=24, heads=14, kv_heads=2, vocab=151_936, dtype="bfloat16", device="cuda",
    prompt_tokens=256, new_tokens=512,
)  # fmt: skip
_15B = replace(
    _05B, hidden=1536, intermediate=8960, layers=28, heads=12, new_tokens=1024, peer_micro_batch=32
)  # micro-batches of the H200 are where TRL starts: it is halved for as long as TRL runs out of memory
_3B = replace(_15B, hidden=2048, intermediate=11_008, layers=36, heads=16, peer_micro_batch=16)

WORKLOADS: dict[str, Workload] = {
    "cpu-short": _SHORT,
    "cpu-prompt256": replace(_SHORT, prompt_tokens=256),
    "cpu-ragged": replace(_SHORT, lengths="skewed", dead_groups=0.4),
    "cpu-vocab32k": replace(_SHORT, hidden=96, intermediate=256, layers=8, heads=3, kv_heads=3, vocab=32_768),
    "cpu-kl": replace(_SHORT, kl=0.01),
    "cpu-short-b1": replace(_SHORT, prompts=1, group=1),
    "cpu-short-b16": replace(_SHORT, prompts=16, group=1),
    "h200-05b": _05B,
    "h200-05b-ragged": replace(_05B, lengths="uniform", min_new_tokens=32),
    "h200-15b": _15B,
    "h200-3b": _3B,
    "h200-05b-b1": replace(_05B, prompts=1, group=1),
    "h200-05b-b16": replace(_05B, prompts=16, group=1),
}


def names() -> list[str]:
    """All names: whole steps where a group has two completions or more, generation alone for all."""
    return [name for name, work in WORKLOADS.items() if work.group > 1] + [SAMPLE + name for name in WORKLOADS]


def add_fields(parser: argparse.ArgumentParser) -> None:
    """An option for every field of a workload; one that is not given leaves the table's value."""
    group = parser.add_argument_group("workload", "replace a value of the named workload")
    for field in fields(Workload):
        option = "--" + field.name.replace("_", "-")
        if field.type == "bool":
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        else:
            kind = {"str": str, "float": float}.get(str(field.type), int)
            metavar = None if field.name in CHOICES else field.name.upper()[:1]
            group.add_argument(option, type=kind, choices=CHOICES.get(field.name), default=None, metavar=metavar)


def chosen(name: str, given: argparse.Namespace) -> Workload:
    """The named workload with the fields that were given. Raises TemperError if they make no sense together."""
    values: dict[str, Any] = {field.name: getattr(given, field.name) for field in fields(Workload)}
    base = WORKLOADS[name.removeprefix(SAMPLE)]
    work = replace(base, **{key: value for key, value in values.items() if value is not None})
    if faults := list(_faults(work, name.startswith(SAMPLE))):
        raise TemperError(faults, Exit.CONFIG)
    return work


def _faults(work: Workload, sample_only: bool) -> list[Fault]:
    checks = [
        (work.heads < 1 or work.hidden % work.heads > 0, "`--hidden` is not divisible by `--heads`"),
        (work.heads >= 1 and work.head_size % 2 > 0, "`--hidden` / `--heads` is odd: rotary positions need pairs"),
        (work.kv_heads < 1 or work.heads % work.kv_heads > 0, "`--heads` is not divisible by `--kv-heads`"),
        (work.vocab < 16, "`--vocab` is less than 16"),
        (min(work.layers, work.intermediate) < 1, "`--layers` and `--intermediate` must be at least 1"),
        (min(work.prompts, work.prompt_tokens) < 1, "`--prompts` and `--prompt-tokens` must be at least 1"),
        (work.group < (1 if sample_only else 2), "`--group` is too small: an advantage compares two completions"),
        (not 1 <= work.min_new_tokens <= work.new_tokens, "`--min-new-tokens` is not within 1 to `--new-tokens`"),
        (not 0 <= work.dead_groups <= 1, "`--dead-groups` is a share, from 0 to 1"),
        (work.kl < 0, "`--kl` is negative"),
        (work.peer_micro_batch < 1, "`--peer-micro-batch` must be at least 1"),
    ]
    return [Fault(what) for wrong, what in checks if wrong]


def micro_batch(rows: int, wanted: int) -> int:
    """The largest divisor of `rows` that is at most `wanted`: TRL's micro-batches must be equal.

    >>> micro_batch(512, 128), micro_batch(24, 10), micro_batch(7, 128)
    (128, 8, 7)
    """
    return next(size for size in range(min(rows, wanted), 0, -1) if rows % size == 0)
