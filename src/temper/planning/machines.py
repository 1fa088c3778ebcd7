"""Machines that a plan is for: this one, or another by its name: "1x80GB", "8xH100", "cpu:16GB"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from temper.errors import ConfigError, Fault
from temper.kernels import choice
from temper.kernels.compiler import compiler
from temper.planning.estimate import Machine
from temper.rollout.memory import SHARE

# Gigabytes of a card's memory, as its maker sells it
CARDS = {
    "a10": 24, "a100": 80, "a40": 48, "a6000": 48, "b200": 180, "h100": 80, "h200": 141, "l4": 24, "l40s": 48,
    "rtx3090": 24, "rtx4090": 24, "rtx5090": 32, "t4": 16, "v100": 32,
}  # fmt: skip
# Products a second of dense matrices in 16 bits, and bytes of memory a second, by data sheet
SPEEDS = {
    "a10": (125e12, 600e9), "a100": (312e12, 2039e9), "a40": (150e12, 696e9), "a6000": (155e12, 768e9),
    "b200": (2250e12, 8000e9), "h100": (989e12, 3350e9), "h200": (989e12, 4800e9), "l4": (121e12, 300e9),
    "l40s": (362e12, 864e9), "rtx3090": (71e12, 936e9), "rtx4090": (165e12, 1008e9), "rtx5090": (209e12, 1792e9),
    "t4": (65e12, 320e9), "v100": (125e12, 900e9),
}  # fmt: skip
_FORM = re.compile(
    r"(?:(cpu)[:\s]\s*)?(?:(\d{1,4})\s*[x×*]\s*)?(?:(\d{1,5}(?:\.\d{1,3})?)\s*(?:GB|GiB)|([A-Za-z]\w*))", re.I
)
_SIZE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)\s*(TB|GB|MB)", re.IGNORECASE)


@dataclass(frozen=True)
class Elsewhere:
    """A machine that is not this one: `count` accelerators of `bytes` each, or the main memory of one without any;
    `card` is their name in CARDS, where it was said."""

    text: str
    count: int
    bytes: int
    accelerator: bool
    card: str | None = None

    @property
    def machine(self) -> Machine:
        return Machine(self.accelerator, int(SHARE * self.bytes))


def this_machine(threads: int) -> Machine:
    """The one it runs on, without an accelerator, with what runs have found out about it."""
    known = {shape: found["way"] == choice.OWN for shape, found in choice.remembered().items()}
    return Machine(threads=threads, compiles=compiler() is not None, in_one_call=known)


def read_machine(text: str) -> Elsewhere:
    """Raises ConfigError for what names no machine.

    >>> read_machine("8x80GB")
    Elsewhere(text='8x80GB', count=8, bytes=80000000000, accelerator=True, card=None)
    >>> read_machine("1xH100").bytes == read_machine("80 GB").bytes, read_machine("cpu:16GB").accelerator
    (True, False)
    """
    found = _FORM.fullmatch(text.strip())
    fix = f"write `1x80GB`, `cpu:16GB`, or a card: {', '.join(CARDS)}"
    if found is None:
        raise ConfigError(Fault(f"--for `{text}` names no machine", fix=fix))
    cpu, count, size, card = found.groups()
    name = re.sub(r"[-_\s]", "", card).lower() if card else None
    known = CARDS.get(name) if name else float(size)
    if known is None or (cpu and card):
        raise ConfigError(Fault(f"--for `{text}`: the card `{card}` is not known", fix=fix))
    if not known or (count is not None and int(count) < 1) or (cpu and count):
        raise ConfigError(Fault(f"--for `{text}` names no machine", fix=fix))
    return Elsewhere(text.strip(), int(count or 1), int(known * 1e9), not cpu, name)


def read_disk(text: str) -> int:
    """A size in bytes. Raises ConfigError for what is none.

    >>> read_disk("500GB")
    500000000000
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(Fault(f"--disk `{text}` is no size", fix="write `500GB`"))
    return int(float(found[1]) * {"TB": 1e12, "GB": 1e9, "MB": 1e6}[found[2].upper()])
