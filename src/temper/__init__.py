"""temper: train reasoning models the DeepSeek-R1 way, as one pipeline.

What scripts and notebooks call is in `__all__` and described in docs/python.md; everything else may change from one
version to the next. Names are looked up when they are used: importing temper imports nothing heavy.

>>> import temper
>>> temper.grade(r"So it is \\boxed{\\frac{1}{2}}.", "0.5").verdict
'correct'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper import rewards as rewards
    from temper import testing as testing
    from temper.api.evaluation import evaluate as evaluate
    from temper.api.grading import Graded as Graded
    from temper.api.grading import grade as grade
    from temper.api.grading import score as score
    from temper.api.models import Generated as Generated
    from temper.api.models import Model as Model
    from temper.api.models import load as load
    from temper.api.running import Finished as Finished
    from temper.api.running import StepReport as StepReport
    from temper.api.running import run as run
    from temper.errors import Fault as Fault
    from temper.errors import TemperError as TemperError
    from temper.pipeline.run import Stopped as Stopped
    from temper.rewards.score import Score as Score
    from temper.text.reply import parse_reply as parse_reply
    from temper.types import Completion as Completion
    from temper.types import Message as Message
    from temper.types import Prompt as Prompt
    from temper.types import Reply as Reply

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "Fault",
    "Finished",
    "Generated",
    "Graded",
    "Message",
    "Model",
    "Prompt",
    "Reply",
    "Score",
    "StepReport",
    "Stopped",
    "TemperError",
    "__version__",
    "evaluate",
    "grade",
    "load",
    "parse_reply",
    "rewards",
    "run",
    "score",
    "testing",
]
# Where each name lives that is no module itself.
_PLACES = {
    "temper.api.evaluation": ("evaluate",),
    "temper.api.grading": ("Graded", "grade", "score"),
    "temper.api.models": ("Generated", "Model", "load"),
    "temper.api.running": ("Finished", "StepReport", "run"),
    "temper.errors": ("Fault", "TemperError"),
    "temper.pipeline.run": ("Stopped",),
    "temper.rewards.score": ("Score",),
    "temper.text.reply": ("parse_reply",),
    "temper.types": ("Completion", "Message", "Prompt", "Reply"),
}


def __getattr__(name: str) -> Any:
    """A public name, looked up when it is first used."""
    import importlib

    if name in ("rewards", "testing"):
        return importlib.import_module(f"temper.{name}")
    for place, names in _PLACES.items():
        if name in names:
            globals()[name] = getattr(importlib.import_module(place), name)
            return globals()[name]
    raise AttributeError(f"module `temper` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted(__all__)
