"""What a config says, by target, and the list of what became of each key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from temper.recipe.faults import MOST
from temper.recipe.foreign.read import Setting
from temper.recipe.foreign.tables import area
from temper.recipe.meanings import meaning
from temper.recipe.recipe import config_class

Fate = Literal["converted", "defaulted", "dropped"]


@dataclass(frozen=True)
class Line:
    """What became of one key: `to` is where the recipe has it."""

    key: str
    value: Any
    fate: Fate
    to: str
    reason: str
    where: str = ""


@dataclass
class Book:
    """What a config says and what became of it so far."""

    tool: str
    settings: Sequence[Setting]
    name: str
    files: Mapping[str, str | None]
    kind: str | None
    stage: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Setting] = field(default_factory=dict)  # by target: those that are worked out together
    lines: list[Line] = field(default_factory=list)

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _take(self, target: str) -> Any:
        """The value of a setting that is being dealt with; None where there is none."""
        setting = self.said.get(target)
        return None if setting is None else setting.value

    def _done(self, target: str, to: str, reason: str = "") -> None:
        if (setting := self.said.pop(target, None)) is not None:
            self.lines.append(Line(setting.key, setting.value, "converted", to, reason, setting.where))

    def _drop(self, setting: Setting, reason: str) -> None:
        said = reason or meaning(setting.key, {}) or area(setting.key) or "temper has no such key"
        self.lines.append(Line(setting.key, setting.value, "dropped", "", said, setting.where))

    def _give_up(self, target: str, reason: str = "") -> None:
        if (setting := self.said.pop(target, None)) is not None:
            self._drop(setting, reason)

    def _put(self, target: str, key: str, value: Any, reason: str = "") -> None:
        self.stage[key] = value
        self._done(target, f"{self._stage_name()}.{key}: {value}", reason)

    def _take_back(self, key: str, reason: str) -> None:
        """Drop a key of the stage after all: beside another it would do nothing."""
        self.stage.pop(key, None)
        to = re.compile(rf"{self._stage_name()}\.{key}(:|$)")
        self.lines = [
            replace(line, fate="dropped", to="", reason=reason) if to.match(line.to) else line for line in self.lines
        ]

    def _default(self, key: str, value: Any, reason: str) -> None:
        self.stage[key] = value
        self.lines.append(Line(key, value, "defaulted", f"{self._stage_name()}.{key}", reason))

    def _direct(self, setting: Setting, key: str) -> None:
        value = number(setting.value)
        try:  # a value that this key cannot have is told here and not left to the recipe
            config_class(self.kind or "").__pydantic_validator__.validate_assignment(
                config_class(self.kind or "").model_construct(), key, value
            )
        except Exception as problem:
            wrong = [e for e in getattr(problem, "errors", list)() if e["loc"] and e["loc"][0] == key]
            if wrong:
                self._drop(setting, f"`{key}` cannot have this value: {wrong[0]['msg'].lower()}")
                return
        self.stage[key] = value
        self.lines.append(
            Line(setting.key, setting.value, "converted", f"{self._stage_name()}.{key}", "", setting.where)
        )

    def _stage_name(self) -> str:
        return {"sft": "sft", "ppo": "rl", "grpo": "rl"}.get(self.kind or "", "train")


def numbers(value: Any, count: int) -> bool:
    """Whether it is a list of so many numbers."""
    found = value if isinstance(value, list) else []
    return len(found) == count and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in found)


def is_absurd(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(is_absurd, value))
    return isinstance(value, (int, float)) and not abs(value) <= MOST  # nan is not, either


def whole(value: Any) -> int | None:
    value = number(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> Any:
    """A number that a script wrote with a sign YAML does not know (`1_000`), or as a whole float."""
    if isinstance(value, str) and re.fullmatch(r"[\d_]+", value):
        return int(value.replace("_", ""))
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) >= 1 else value
