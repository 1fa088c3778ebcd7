"""`repeat:` a block of stages that is run round after round, and the rule that ends it.

Each round has stages of its own, `policy-1`, `policy-2`, …, so that what runs, is kept and is resumed is a stage as
ever; this file says which of them a reference means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, model_validator

from temper.config import StrictModel
from temper.errors import Fault
from temper.recipe.document import Scalar, Table, plain_shallow, type_name
from temper.recipe.faults import build
from temper.recipe.graph import Ref
from temper.recipe.words import did_you_mean, name_problem

MOST_ROUNDS = 100


class Until(StrictModel):
    """What ends the rounds: a score of this round's evaluation that is high or low enough, or that gained too little
    over the best of the rounds before."""

    stage: str  # an `evaluate` stage of the block
    model: str | None = None  # one of its models, as it names them but without @; not needed where it has one
    task: str | None = None  # one of its tasks; not needed where it has one
    metric: str = "accuracy"  # what a claim of that stage could name
    at_least: float | None = None
    at_most: float | None = None
    gain_below: float | None = None  # of the metric, from the second round on

    @model_validator(mode="after")
    def _has_a_rule(self) -> Until:
        if self.at_least is None and self.at_most is None and self.gain_below is None:
            raise ValueError("until has no rule: give it `at_least`, `at_most` or `gain_below`")
        return self


class BlockKeys(StrictModel):
    """The keys of a block beside its `stages`."""

    repeat: Annotated[int, Field(ge=1, le=MOST_ROUNDS, description="rounds at most")]
    until: Until | None = None
    first: dict[str, str] = {}  # what "@name" means in the first round, where it is what the round before made


@dataclass(frozen=True)
class Block:
    """Stages that are run `rounds` times, or until the rule ends them; `ended` is the last round, once it is known."""

    name: str
    rounds: int
    until: Until | None
    first: Mapping[str, str]
    names: tuple[str, ...]  # its stages, as written
    written: Table
    ended: int | None = None


@dataclass(frozen=True)
class Written:
    """A stage as it stands in the recipe: in a block it is the stage of every round."""

    name: str
    table: Table
    block: Block | None = None

    @property
    def path(self) -> tuple[str, ...]:
        return ("stages", self.name) if self.block is None else ("stages", self.block.name, "stages", self.name)

    @property
    def rounds(self) -> list[int]:
        """0 for a stage that is in no block."""
        return [0] if self.block is None else list(range(1, self.block.rounds + 1))


def numbered(name: str, round: int) -> str:
    """The name of the stage of one round; round 0 is no round.

    >>> numbered("policy", 2), numbered("base", 0)
    ('policy-2', 'base')
    """
    return f"{name}-{round}" if round else name


def is_block(table: Table) -> bool:
    return "stage" not in table.entries and ("repeat" in table.entries or isinstance(table.get("stages"), Table))


def read_block(name: str, table: Table, homes: Callable[[str], str]) -> tuple[Block, list[Fault]]:
    """A block as far as it can be read, one round where that is not said, and its faults."""
    bare = Table({key: entry for key, entry in table.entries.items() if key != "stages"}, table.place)
    path = ("stages", name)
    keys, faults = build(BlockKeys, bare, path, table.place, homes)
    keys = keys or BlockKeys(repeat=1, first=_texts(table.get("first")))
    node = table.get("stages")
    inner = node.entries if isinstance(node, Table) else {}
    if not isinstance(node, Table) or not inner:
        shown = "has no stages" if node is None or isinstance(node, Table) else f"has {_shown(node)} for `stages`"
        fix = "write its stages below `stages:`, each with its keys below it"
        faults.append(Fault(f"the block `{name}` {shown}", str((node or table).place), fix=fix))
    for one, entry in inner.items():
        if isinstance(entry.node, Table) and is_block(entry.node):
            why = "its rounds would have rounds"
            faults.append(Fault(f"the block `{one}` stands in the block `{name}`", str(entry.key), why,
                                "put the two after one another"))  # fmt: skip
        last = numbered(one, keys.repeat)
        if name_problem(one) is None and (problem := name_problem(last)):
            what = f"stage name `{one}` is too long for round {keys.repeat}"
            faults.append(Fault(what, str(entry.key), f"the stage of that round is `{last}`: {problem}"))
    return Block(name, keys.repeat, keys.until, keys.first, tuple(inner), table), faults


def _texts(node: Any) -> dict[str, str]:
    """What can be read of a `first`, in a block that has faults."""
    entries = node.entries.items() if isinstance(node, Table) else ()
    found = {key: entry.node.value for key, entry in entries if isinstance(entry.node, Scalar)}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _shown(node: Any) -> str:
    return type_name(plain_shallow(node))


# -- what a reference means -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meant:
    """A reference bound to the stage it means, and as it is to be judged and told: by the names that were written."""

    ref: Ref
    told: Ref
    fault: Fault | None = None


@dataclass(frozen=True)
class Rounds:
    """The blocks of a recipe, and the stages that are in none."""

    blocks: Sequence[Block]
    outside: Sequence[str]

    def block_of(self, name: str) -> Block | None:
        return next((block for block in self.blocks if name in block.names), None)

    def _of_round(self, stage: str) -> tuple[str, int]:
        match = re.fullmatch(r"(.+)-([0-9]{1,3})", stage)
        known = match and stage not in self.outside and self.block_of(match[1])
        return (match[1], int(match[2])) if match and known else ("", 0)

    def clashes(self) -> list[Fault]:
        """Names that mean two things: of two stages, or of a stage and of one of a round."""
        found = []
        seen: dict[str, str] = dict.fromkeys(self.outside, "a stage")
        for block in self.blocks:
            for name in block.names:
                place = str(block.written.get("stages").entries[name].key)  # type: ignore[union-attr]
                for one in (name, *(numbered(name, round) for round in range(1, block.rounds + 1))):
                    if one in seen:
                        what = f"`{one}` is {seen[one]} and a stage of the block `{block.name}`"
                        found.append(Fault(what, place, "a reference could mean both", "give one of them another name"))
                    seen[one] = f"a stage of the block `{block.name}`"
        return found

    def meant(self, ref: Ref, here: Written, round: int) -> Meant:
        """What a reference means in a round of the stage it stands in (0: it is in no block).

        In a block, "@name" is what this round made of it, or, where it comes later in the round, what the round before
        did; "@name~1" is always the round before, "@name~2" the one before that; before the first round it is what
        `first` says. Outside, "@name" is what the last round made, "@name-2" what the second did.
        """
        name = ref.stage or ""
        base, tilde, back = name.partition("~")
        mine = here.block
        if mine is not None and base in mine.names and (not tilde or re.fullmatch("[1-9][0-9]?", back)):
            is_before = mine.names.index(base) < mine.names.index(here.name)
            wanted = round - (int(back) if tilde else 0 if is_before else 1)
            if wanted >= 1:
                return Meant(replace(ref, stage=numbered(base, wanted)), replace(ref, stage=base))
            return self._before_the_first(ref, mine, base)
        if tilde:
            why = f"`~` counts rounds back, for stages of one block: `{here.name}` is in {_of(mine)}"
            fix = f'write "@{base}", what the last round made' if self.block_of(base) else ""
            return Meant(ref, ref, Fault(f"`{ref.key}` refers to `{ref.text}`", str(ref.place), why, fix))
        if self.block_of(name) is None and (of_round := self._of_round(name))[0]:
            return Meant(ref, replace(ref, stage=of_round[0]), self._named_round(ref, mine, *of_round))
        return Meant(self._last(ref), ref)

    def _last(self, ref: Ref) -> Ref:
        """A reference from outside: to a stage of a block it means the last round's."""
        name = ref.stage or ""
        block = self.block_of(name)
        return ref if block is None else replace(ref, stage=numbered(name, block.rounds), last_of=name)

    def _before_the_first(self, ref: Ref, block: Block, base: str) -> Meant:
        text = block.first.get(base)
        if text is None:
            why = f"before the first round there is no `{base}` of a round"
            fix = f'say what it is there: `first: {{{base}: "@…"}}` in the block `{block.name}`'
            what = f"`{ref.key}` refers to what the round before made of `{base}`"
            return Meant(ref, ref, Fault(what, str(ref.place), why, fix))
        node = block.written.get("first")
        place = node.entries[base].node.place if isinstance(node, Table) else ref.place
        stage, _, file = text.removeprefix("@").partition("/")
        key = f"stages.{block.name}.first.{base}"
        told = replace(ref, text=text, key=key, place=place, stage=stage, file=file or ref.file)
        if not text.startswith("@") or stage in block.names:
            why = 'it is what a stage made that stands before the block: "@stage"'
            return Meant(ref, told, Fault(f"`{key}` is `{text}`", str(place), why))
        return Meant(self._last(replace(ref, stage=stage, file=told.file)), told)

    def _named_round(self, ref: Ref, mine: Block | None, base: str, number: int) -> Fault | None:
        """A fault for a round that there is not, or perhaps not."""
        block = self.block_of(base)
        assert block is not None
        what = f"`{ref.key}` refers to round {number} of `{base}`"
        if mine is block:
            fix = f'write "@{base}", or "@{base}~1" for the round before'
            return Fault(what, str(ref.place), "in its own block a round is named from the one that runs", fix)
        if not 1 <= number <= block.rounds:
            return Fault(what, str(ref.place), f"the block `{block.name}` has {block.rounds} rounds")
        if number > 1 and block.until is not None:
            why = f"the rule of the block `{block.name}` may end it before"
            return Fault(what, str(ref.place), why, f'write "@{base}", what the last round made, or "@{base}-1"')
        return None

    def first_faults(self, block: Block, used: Container[str]) -> list[Fault]:
        """What is wrong with `first` of a block; `used` has the keys below it that its first round needs."""
        node = block.written.get("first")
        found = []
        for name, entry in node.entries.items() if isinstance(node, Table) else ():
            key = f"stages.{block.name}.first.{name}"
            if name not in block.names:
                why = f"the stages of the block are {', '.join(block.names)}"
                found.append(Fault(f"`{key}` names no stage of the block", str(entry.key), why,
                                   did_you_mean(name, block.names)))  # fmt: skip
            elif key not in used:
                why = f"no stage of the block needs what the round before made of `{name}`"
                found.append(Fault(f"`{key}` does nothing here", str(entry.key), why, "remove the key"))
        return found


def _of(block: Block | None) -> str:
    return "no block" if block is None else f"the block `{block.name}`"


def until_faults(
    block: Block, kinds: Mapping[str, str | None], evaluates: bool, config: StrictModel | None
) -> list[Fault]:
    """What is wrong with the rule of a block. `config` is that of the stage that it names, if it has no faults;
    `evaluates` says whether the stage is an evaluation."""
    until, node = block.until, block.written.get("until")
    if until is None or not isinstance(node, Table):
        return []

    def fault(key: str, what: str, why: str, fix: str = "") -> list[Fault]:
        below = node.get(key)
        place = below.place if isinstance(below, Scalar) else node.place
        return [Fault(f"`stages.{block.name}.until.{key}` {what}", str(place), why, fix)]

    if until.stage not in block.names:
        why, fix = f"the stages of the block are {', '.join(block.names)}", did_you_mean(until.stage, block.names)
        return fault("stage", f"names no stage of the block: `{until.stage}`", why, fix)
    if not evaluates:
        others = [name for name in block.names if kinds.get(name) == "evaluate"]
        fix = f"name {' or '.join(others)}" if others else "put a stage `evaluate` into the block"
        return fault("stage", f"is `{until.stage}`, which measures nothing", "a rule needs a score of each round", fix)
    found: list[Fault] = []
    models = [text.removeprefix("@") for text in getattr(config, "models", ())]
    given = [("model", until.model, models), ("task", until.task, list(getattr(config, "tasks", ())))]
    for key, told, known in given if config is not None else ():
        has = f"`{until.stage}` has {', '.join(known)}"
        if told is None and len(known) > 1:
            found += fault(key, "is missing", has, f"say which: `{key}: {known[-1]}`")
        elif told is not None and told not in known:
            found += fault(key, f"is `{told}`", has, did_you_mean(told, known))
    metrics = getattr(config, "metrics", [until.metric])
    if until.metric not in metrics:
        near = did_you_mean(until.metric, metrics)
        found += fault("metric", f"is `{until.metric}`", f"there are {', '.join(metrics)}", near)
    return found


# -- for those who read what a run left -------------------------------------------------------------------------------


def unrolled(recipe: Mapping[str, Any], ran: Iterable[str]) -> dict[str, Any]:
    """A resolved recipe with the stages of rounds in the place of its blocks, as far as they are among `ran`, what they
    refer to and the origins of their values included.

    >>> stages = {"policy": {"stage": "grpo", "model": "@policy"}}
    >>> block = {"repeat": 3, "first": {"policy": "@base"}, "stages": stages}
    >>> made = unrolled({"stages": {"loop": block, "test": {"models": ["@policy"]}}}, ["policy-1", "policy-2", "test"])
    >>> for name, stage in made["stages"].items(): print(name, stage)
    policy-1 {'stage': 'grpo', 'model': '@base'}
    policy-2 {'stage': 'grpo', 'model': '@policy-1'}
    test {'models': ['@policy-2']}
    """
    stages, there = recipe.get("stages"), set(ran)
    if not isinstance(stages, Mapping) or not any(_is_plain_block(of) for of in stages.values()):
        return dict(recipe)
    last: dict[str, str] = {}
    flat: dict[str, Any] = {}
    written = dict(recipe.get("origins") or {})
    origins = dict(written)
    for name, of in stages.items():
        if not _is_plain_block(of):
            flat[name] = _renamed(of, last)
            continue
        order = list(of["stages"])
        rounds = [round for round in range(1, of["repeat"] + 1) if any(numbered(one, round) in there for one in order)]
        for round in rounds:
            for one in order:
                flat[numbered(one, round)] = _renamed(of["stages"][one], {**last, **_means(of, one, round)})
                before, after = f"stages.{name}.stages.{one}.", f"stages.{numbered(one, round)}."
                origins |= {after + key.removeprefix(before): value for key, value in written.items()
                            if key.startswith(before)}  # fmt: skip
        last |= {one: numbered(one, rounds[-1]) for one in order if rounds}
    return {**recipe, "stages": flat, "tasks": _renamed(recipe.get("tasks"), last), "origins": origins}


def _means(block: Mapping[str, Any], here: str, round: int) -> dict[str, str]:
    """The stage that each name of a block means to one of its stages in a round, as `Rounds.meant` has it."""
    order, first, found = list(block["stages"]), block.get("first") or {}, {}
    for base in order:
        for back in range(round + 1):
            wanted = round - (back or order.index(base) >= order.index(here))
            start = str(first.get(base, "@")).removeprefix("@")
            found[base + f"~{back}" * bool(back)] = numbered(base, wanted) if wanted >= 1 else start
    return found


def _is_plain_block(stage: Any) -> bool:
    has_stages = isinstance(stage, Mapping) and isinstance(stage.get("stages"), Mapping)
    return has_stages and isinstance(stage.get("repeat"), int)


def _renamed(value: Any, means: Mapping[str, str]) -> Any:
    """A value with what its references mean in their place."""
    if isinstance(value, str) and value.startswith("@"):
        name, slash, file = value[1:].partition("/")
        return f"@{means[name]}{slash}{file}" if name in means else value
    if isinstance(value, Mapping):
        return {_renamed(key, means): _renamed(inner, means) for key, inner in value.items()}
    return [_renamed(inner, means) for inner in value] if isinstance(value, list) else value
