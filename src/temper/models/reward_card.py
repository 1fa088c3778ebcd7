"""reward_model.json: what the scores of a reward model mean, beside the weights that say them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from temper.errors import ArtifactError, Fault
from temper.modelfiles import read_json

FILE = "reward_model.json"
RewardKind = Literal["bradley_terry", "pointwise", "process"]
Reads = Literal["answer", "whole"]


@dataclass(frozen=True)
class RewardCard:
    """`kind` is what it was trained on: pairs, rated replies or labelled steps; `reads` the part of a reply is shown.

    `mean` and `std` are of its scores on rows it was not trained on where there are some, `lowest` is the least of
    them. A Bradley-Terry score has no zero and no unit of its own: as a reward it is (score − mean) / std.
    """

    kind: RewardKind
    reads: Reads
    mean: float = 0.0
    std: float = 1.0
    lowest: float = 0.0

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def is_reward_model(path: Path) -> bool:
    """Whether a directory says that it is a reward model of temper's."""
    return (path / FILE).is_file()


def read_card(path: Path) -> RewardCard:
    """The card of the reward model in `path`. Raises ArtifactError: no such file, or not one that can be believed."""
    values = read_json(path / FILE)
    wrong = [key for key in asdict(RewardCard("pointwise", "whole")) if not _fits(key, values.get(key))]
    if wrong:
        what = f"`{FILE}` does not describe a reward model: {', '.join(f'`{key}`' for key in wrong)}"
        raise ArtifactError(Fault(what, where=str(path / FILE), fix="a directory that the stage `reward_model` made"))
    return RewardCard(values["kind"], values["reads"], *(float(values[key]) for key in ("mean", "std", "lowest")))


def _fits(key: str, value: Any) -> bool:
    if key in ("kind", "reads"):
        return value in get_args(RewardKind if key == "kind" else Reads)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return is_number and (key != "std" or value > 0)
