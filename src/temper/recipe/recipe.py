"""A recipe as typed stages."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

from temper.config import StrictModel, TaskConfig
from temper.errors import ConfigError, Fault
from temper.recipe.document import Items, Node, Place, Table
from temper.recipe.graph import Ref
from temper.recipe.rounds import Block, numbered
from temper.recipe.sources import Source
from temper.stages import STAGES, Makes
from temper.trackers import TrackerName


class RecipeKeys(StrictModel):
    """The keys at the top of a recipe."""

    extends: str | None = None
    name: str | None = None
    description: str = ""
    note: str = ""  # the last line of a run's end
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 2  # torch threads
    matmul: Literal["auto", "default", "onednn"] = "auto"  # of a CPU's matrix products: torch's own way, or oneDNN's
    trackers: list[TrackerName] = Field(default_factory=list)  # told of every step; none can stop or change a run
    output_dir: Annotated[str, Field(min_length=1)] | None = None  # the run directory, where `--out` names none
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)
    stages: dict[str, Any] = Field(default_factory=dict)
    origins: dict[str, str] = Field(default_factory=dict)  # what recipe.resolved.yaml says of itself; not read


def _words(node: Node) -> Iterator[tuple[Place, str]]:
    """What is written as text in a stage, values before keys, each with its place."""
    if isinstance(node, Table):
        for entry in node.entries.values():
            yield from _words(entry.node)
        yield from ((entry.key, key) for key, entry in node.entries.items())
    elif isinstance(node, Items):
        for item in node.items:
            yield from _words(item)
    elif isinstance(node.value, str):
        yield node.place, node.value


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, its config complete."""

    number: int
    name: str
    kind: str
    config: StrictModel
    references: tuple[Ref, ...]  # those of its config, and of the tasks it names
    tasks: tuple[str, ...]
    written: Table
    base: str = ""  # the name under which it is written, where it is the stage of a round
    block: str = ""
    round: int = 0

    @property
    def path(self) -> str:
        """Where the recipe writes it: the dotted key of its table."""
        return f"stages.{self.block}.stages.{self.base}" if self.block else f"stages.{self.name}"

    @property
    def meant(self) -> dict[str, str]:
        """The stage that each of its references to one means, by the reference as written."""
        return {ref.text: ref.stage for ref in self.references if ref.stage is not None}

    def place(self, text: str) -> Place:
        """Where in the recipe what `text` speaks of was written: a value it quotes, a key it names, or the stage."""
        found = [place for place, word in _words(self.written) if f"`{word}`" in text]
        return next(iter([*found, self.written.place]))

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(STAGES[self.kind].module)

    @property
    def makes(self) -> Makes:
        return STAGES[self.kind].makes

    @property
    def uses(self) -> tuple[str, ...]:
        """The stages it needs, each once."""
        return tuple(dict.fromkeys(ref.stage for ref in self.references if ref.stage))

    @property
    def folder(self) -> str:
        return f"{self.number:02d}-{self.name}"


@dataclass(frozen=True)
class Recipe:
    """A whole recipe. `origins` says where each value comes from: "default", "preset r1", "recipe my.yaml:12",
    "--set"."""

    source: Source
    name: str
    description: str
    note: str
    seed: int
    threads: int
    matmul: str
    trackers: tuple[TrackerName, ...]
    tasks: Mapping[str, TaskConfig]
    stages: tuple[Stage, ...]
    origins: Mapping[str, str]
    task_files: Mapping[str, Sequence[Ref]]  # those of tasks that no stage names, as far as they are there
    warnings: tuple[str, ...] = ()  # of what is written and has little effect
    output_dir: str | None = None
    blocks: tuple[Block, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    @property
    def default_folder(self) -> Path:
        """Its `output_dir`; else `runs/<name>-<hash>`: one for each recipe and seed, whatever else in it is edited."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        identity = json.dumps([self.source.identity, self.seed])
        return Path("runs") / f"{self.name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"

    def origin(self, key: str) -> str:
        """Where the value of a dotted key comes from; of the nearest key above it that was written, else "default"."""
        parts = key.split(".")
        for depth in range(len(parts), 1, -1):
            if (origin := self.origins.get(".".join(parts[:depth]))) is not None:
                return origin
        return self.origins.get(parts[0], "default")

    def ended(self, name: str, round: int) -> Recipe:
        """The recipe once a block is known to end with a round: without the rounds after it, and what refers to the
        last one bound to it."""
        block = next(block for block in self.blocks if block.name == name)

        def bound(ref: Ref) -> Ref:
            return replace(ref, stage=numbered(ref.last_of, round)) if ref.last_of in block.names else ref

        stages = tuple(
            replace(stage, references=tuple(bound(ref) for ref in stage.references))
            for stage in self.stages
            if stage.block != name or stage.round <= round
        )
        blocks = tuple(replace(one, ended=round) if one is block else one for one in self.blocks)
        return replace(self, stages=stages, blocks=blocks)


def config_class(kind: str) -> type[StrictModel]:
    """The Config of a kind of stage. Raises ConfigError if this installation lacks its module."""
    module = STAGES[kind].module
    try:
        return importlib.import_module(module).Config
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(Fault(f"this installation has no stages of kind `{kind}`", why=f"no {module}")) from None


def fields_of(kind: str) -> Iterable[str]:
    try:
        return config_class(kind).model_fields
    except (ConfigError, ImportError):  # only a hint would be lost
        return ()
