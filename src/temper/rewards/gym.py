"""The reward `gym`: a reply held against its entry of a reasoning-gym set, as that set scores it. It runs in the
process of rewards (`worker.py`), for a set's own code may hang."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from temper.types import Prompt, Reply

JUNK = "¿¿¿"  # shares no letter with any answer: some sets pay by the letter
JUNK_AT_MOST = 0.1  # some sets give a wrong answer 0.01 for being there


def gym(prompt: Prompt, reply: Reply) -> float | None:
    """What the set's `score_answer` says of the reply's answer, 0…1; 0 without one. None for a prompt of no set."""
    if not is_of_set(prompt):
        return None
    spec = prompt.row["gym"]
    if reply.answer is None:
        return 0.0
    made = entries({name: spec[name] for name in ("set", "size", "seed", "config")})
    return score_entry(made, reply.answer, made[spec["index"]])


def is_of_set(prompt: Prompt) -> bool:
    """Whether a prompt is an entry of a set of reasoning-gym."""
    spec = prompt.row.get("gym")
    return isinstance(spec, Mapping) and {"set", "size", "seed", "config", "index"} <= set(spec)


_known: dict[str, Any] = {}


def entries(spec: Mapping[str, Any], fresh: bool = False) -> Any:
    """The entries of a set, by number. They are those of (name, size, seed, config), so nothing of them travels."""
    import reasoning_gym  # type: ignore[import-not-found]

    key = json.dumps(spec, sort_keys=True)
    if fresh or key not in _known:
        made = reasoning_gym.create_dataset(spec["set"], size=spec["size"], seed=spec["seed"], **spec["config"])
        if fresh:
            return made
        _known[key] = made
    return _known[key]


def score_entry(made: Any, answer: str | None, entry: Mapping[str, Any]) -> float:
    return float(made.score_answer(answer, entry))
