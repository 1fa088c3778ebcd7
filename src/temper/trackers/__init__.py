"""Experiment trackers, fed by a reader of what a run writes, in a process of its own: none can stop or change a run.

follow.py       reads metrics and completions of a run directory, as they come    process.py   that process
tensorboard_tracker.py, wandb_tracker.py, trackio_tracker.py    one tracker each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, util
from typing import TYPE_CHECKING, Literal

from temper.errors import Exit, Fault

if TYPE_CHECKING:
    from temper.trackers.follow import Tracker

TrackerName = Literal["tensorboard", "wandb", "trackio"]

FILE = "trackers.json"  # in a run directory: which run of each tracker it is, and how far each has got
LOG = "trackers.log"  # what trackers print and why they failed


@dataclass(frozen=True)
class TrackerKind:
    """`module` has `open_tracker(run, key, config)`; `package` is what must be installed for it, by the extra of the
    tracker's name."""

    module: str
    package: str


TRACKERS: dict[TrackerName, TrackerKind] = {
    "tensorboard": TrackerKind("temper.trackers.tensorboard_tracker", "tensorboard"),
    "wandb": TrackerKind("temper.trackers.wandb_tracker", "wandb"),
    "trackio": TrackerKind("temper.trackers.trackio_tracker", "trackio"),
}


def missing_trackers(names: Sequence[TrackerName]) -> list[Fault]:
    """A fault for each tracker asked for that is not installed.

    >>> missing_trackers([])
    []
    """
    return [
        Fault(
            f"the tracker `{name}` is not installed",
            why="nothing of the run would be sent to it",
            fix=f'pip install "temper-rl[{name}]", or leave it out of `trackers`',
            code=Exit.OPTIONAL_PART,
        )
        for name in names
        if util.find_spec(TRACKERS[name].package) is None
    ]


def open_tracker(name: str, run: str, key: str, config: dict) -> Tracker:
    """The tracker of this name, going on with its run `key`. Whatever its library raises is raised."""
    module = next(kind.module for known, kind in TRACKERS.items() if known == name)
    return import_module(module).open_tracker(run, key, config)
