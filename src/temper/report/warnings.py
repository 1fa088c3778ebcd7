"""What goes wrong in RL and can be seen in the metrics: each rule says it once, with the numbers of the run.

Every rule is a pure function (config, rows) -> Finding | None. `rows` are the rows of metrics.jsonl so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Rows = Sequence[Mapping[str, Any]]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something worth saying once a stage; `key` names the rule. A note explains, a warning asks for a change."""

    key: str
    text: str
    level: Literal["warning", "note"] = "warning"


RULES: tuple[Callable[[Config, Rows], Finding | None], ...] = ()


def find(kind: str, config: Config, rows: Rows) -> list[Finding]:
    """What the rules find in a stage of `kind` so far; [] for stages that are not RL."""
    if kind != "grpo" or not rows:
        return []
    return [found for rule in RULES if (found := rule(config, rows)) is not None]
