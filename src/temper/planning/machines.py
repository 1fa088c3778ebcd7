"""A machine by its name: "1x80GB", "8xH100", "cpu:16GB"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from temper.errors import ConfigError, Fault
from temper.planning.estimate import Machine
from temper.rollout.memory import SHARE

# Gigabytes of a card's memory, as its maker sells it
CARDS = {
    "a10": 24, "a100": 80, "a40": 48, "a6000": 48, "b200": 180, "h100": 80, "h200": 141, "l4": 24, "l40s": 48,
    "rtx3090": 24, "rtx4090": 24, "rtx5090": 32, "t4": 16, "v100": 32,
}  # fmt: skip
_FORM = re.compile(
    r"(?:(cpu)[:\s]\s*)?(?:(\d{1,4})\s*[x×*]\s*)?(?:(\d{1,5}(?:\.\d{1,3})?)\s*(?:GB|GiB)|([A-Za-z]\w*))", re.I
)
_SIZE = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)\s*(TB|GB|MB)", re.IGNORECASE)


@dataclass(frozen=True)
class Elsewhere:
    """A machine that is not this one: `count` accelerators of `bytes` each, or the main memory of one without any."""

    text: str
    count: int
    bytes: int
    accelerator: bool

    @property
    def machine(self) -> Machine:
        return Machine(self.accelerator, int(SHARE * self.bytes))


def read_machine(text: str) -> Elsewhere:
    """Raises ConfigError for what names no machine.

    >>> read_machine("8x80GB")
    Elsewhere(text='8x80GB', count=8, bytes=80000000000, accelerator=True)
    >>> read_machine("1xH100").bytes == read_machine("80 GB").bytes, read_machine("cpu:16GB").accelerator
    (True, False)
    """
    found = _FORM.fullmatch(text.strip())
    fix = f"write `1x80GB`, `cpu:16GB`, or a card: {', '.join(CARDS)}"
    if found is None:
        raise ConfigError(Fault(f"--for `{text}` names no machine", fix=fix))
    cpu, count, size, card = found.groups()
    known = CARDS.get(re.sub(r"[-_\s]", "", card).lower()) if card else float(size)
    if known is None or (cpu and card):
        raise ConfigError(Fault(f"--for `{text}`: the card `{card}` is not known", fix=fix))
    if not known or (count is not None and int(count) < 1) or (cpu and count):
        raise ConfigError(Fault(f"--for `{text}` names no machine", fix=fix))
    return Elsewhere(text.strip(), int(count or 1), int(known * 1e9), not cpu)


def read_disk(text: str) -> int:
    """A size in bytes. Raises ConfigError for what is none.

    >>> read_disk("500GB")
    500000000000
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(Fault(f"--disk `{text}` is no size", fix="write `500GB`"))
    return int(float(found[1]) * {"TB": 1e12, "GB": 1e9, "MB": 1e6}[found[2].upper()])
