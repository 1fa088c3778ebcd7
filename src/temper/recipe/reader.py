"""A recipe's text turned into typed stages, or into every fault it has."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from temper.config import StrictModel, TaskConfig
from temper.data.columns import LANGUAGE
from temper.errors import ConfigError, Fault
from temper.recipe.aliases import with_our_names
from temper.recipe.document import Entry, Node, Place, Scalar, Table, leaves, plain, plain_shallow, type_name
from temper.recipe.faults import build, column_faults, in_order
from temper.recipe.foreign.read import TOOLS, tool_of
from temper.recipe.graph import (
    Ref,
    check_stage_reference,
    find_external,
    is_named,
    order_of,
    references,
)
from temper.recipe.recipe import Recipe, RecipeKeys, Stage, config_class, fields_of
from temper.recipe.rounds import (
    Block,
    BlockKeys,
    Rounds,
    Written,
    is_block,
    numbered,
    read_block,
    until_faults,
)
from temper.recipe.sources import read_tree
from temper.recipe.words import NAME_PATTERN, did_you_mean, folder_name, name_problem
from temper.stages import STAGES, Makes
from temper.text.languages import LANGUAGES

KIND_ALIASES = {
    "cold_start": "sft", "eval": "evaluate", "evaluation": "evaluate", "finetune": "sft", "import": "import_model",
    "pretraining": "pretrain", "reject": "sample", "rejection_sampling": "sample", "reward_modeling": "reward_model",
    "rl": "grpo", "rm": "reward_model", "train": "sft",
}  # fmt: skip


Find = Callable[[Ref, Sequence[str]], tuple[Ref, list[Fault]]]


def load_recipe(reference: str, settings: Sequence[str] = (), find: Find = find_external) -> tuple[Recipe, list[Fault]]:
    """A recipe by shipped name or path, with `settings` ("a.b=value") applied, and every fault found in it.

    `find` looks for the files and models it names. A stage with faults is left out of the recipe. Raises ConfigError if
    the text itself cannot be read.
    """
    tree = read_tree(reference, settings)
    tool = tool_of(tree.table.entries)
    if tool is not None:
        what = f"`{tree.source.shown}` looks like a config of {TOOLS[tool]}, not like a recipe"
        fix = f"`temper import-config {tree.source.shown} --out recipe.yaml` makes a recipe of it, and lists every key"
        raise ConfigError(Fault(what, str(tree.table.place), "a recipe has `stages:`", fix))
    table, faults = with_our_names(tree.table, lambda kind: list(fields_of(kind)) if kind in STAGES else ())
    reader = _Reader(table, find)
    reader.faults += faults
    top = reader.top()
    configs = reader.stages()
    order, faults = order_of(reader.order, reader.uses, sort=tree.extends)
    reader.faults += faults
    stages = tuple(
        replace(configs[name], number=number) for number, name in enumerate(order, 1) if name in configs
    )  # fmt: skip
    recipe = Recipe(
        source=tree.source,
        name=top.name or folder_name(tree.source.name),
        description=top.description,
        note=top.note,
        seed=top.seed,
        threads=top.threads,
        matmul=top.matmul,
        trackers=tuple(dict.fromkeys(top.trackers)),
        output_dir=top.output_dir,
        tasks=reader.tasks,
        task_files=reader.unused_files(),
        stages=stages,
        origins=_preset_origins(stages) | {".".join(path): _origin(node.place) for path, node in leaves(table)},
        warnings=tuple(reader.warnings),
        blocks=tuple(reader.rounds.blocks),
    )
    return recipe, in_order(dict.fromkeys(reader.faults))


def _preset_origins(stages: Iterable[Stage]) -> dict[str, str]:
    """The keys that a stage's preset stands for."""
    origins = {}
    for stage in stages:
        preset = getattr(stage.config, "preset", None)
        for key in stage.module.preset_values(plain(stage.written)) if preset else ():
            origins[f"{stage.path}.{key}"] = f"preset {preset}"
    return origins


def _origin(place: Place) -> str:
    return f"recipe {place.source}:{place.line}" if place.line else "--set"


def _is_empty(node: Node) -> bool:
    return node.value is None if isinstance(node, Scalar) else isinstance(node, Table) and not node.entries


def _as_written(cls: type[StrictModel], table: Table) -> StrictModel:
    """A config with faults, to look for references in: the keys it knows, their values unchecked."""
    return cls.model_construct(**{key: value for key, value in plain(table).items() if key in cls.model_fields})


def _without(table: Table, *keys: str) -> Table:
    return Table({key: entry for key, entry in table.entries.items() if key not in keys}, table.place)


def _written(table: Table, key: str) -> Entry | None:
    """The entry of a dotted key, if it is written."""
    above, _, name = key.rpartition(".")
    entry = _written(table, above) if above else None
    inner = entry.node if entry is not None else None if above else table
    return inner.entries.get(name) if isinstance(inner, Table) else None


class _Reader:
    """Reads a recipe's tree part by part and gathers what is wrong."""

    def __init__(self, table: Table, find: Find):
        self.table, self.find = table, find
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.tasks: dict[str, TaskConfig] = {}
        self.task_references: dict[str, list[Ref]] = {}
        self.rounds = Rounds((), ())
        self.kinds: dict[str, str | None] = {}  # of every stage written, in order
        self.order: list[str] = []  # the stages as they run, those of rounds one by one
        self.needed_first: set[str] = set()  # the keys below `first` of blocks that a first round needs
        self.uses: dict[str, list[tuple[str, Ref]]] = {}
        self.named: set[str] = set()  # the tasks that stages name

    # -- the top ------------------------------------------------------------------------------------------------------

    def top(self) -> RecipeKeys:
        """The keys at the top; those with faults at their defaults."""
        place = self.table.place
        bare = _without(self.table, "stages", "tasks")
        top, faults = build(RecipeKeys, bare, (), place, lambda key: self.homes(key, "top"))
        self.faults += faults
        for key in ("stages", "tasks"):
            entry = self.table.entries.get(key)
            if entry and not isinstance(entry.node, Table) and not _is_empty(entry.node):
                what = type_name(plain_shallow(entry.node))
                why = f"`{key}` is a table: each name with its keys below it"
                self.faults.append(Fault(f"`{key}` is {what}", str(entry.node.place), why))
        for name, table in self._named("tasks"):
            task, faults = build(TaskConfig, table, ("tasks", name), table.place, lambda key: self.homes(key, "task"))
            self.faults += faults or (faults := column_faults(table))
            if task is not None and not faults and self._has_language(name, task, table):
                self.tasks[name] = task
            self.task_references[name] = references(task or _as_written(TaskConfig, table), table, ("tasks", name))
        if top is None:
            return RecipeKeys()
        if top.name is not None and (problem := name_problem(top.name)):
            self._bad_name("the recipe's name", top.name, problem, self.table.entries["name"].node.place)
        return top

    def _has_language(self, name: str, task: TaskConfig, table: Table) -> bool:
        """Whether a task's language is written as a code; a warning where temper knows no words of it."""
        node = table.get("language")
        if task.language in LANGUAGES or node is None:
            return True
        what, known = f'`tasks.{name}.language` is "{task.language}"', ", ".join(LANGUAGES)
        if not LANGUAGE.fullmatch(task.language):
            why = "it must be a language code, such as `en`"
            self.faults.append(Fault(what, str(node.place), why, f"words are known of {known}"))
            return False
        self.warnings.append(f"{what}: how much of a thought is in it cannot be told, only of {known} ({node.place})")
        return True

    def _named(self, group: str) -> Iterable[tuple[str, Table]]:
        """The tables of `stages` or `tasks`, with faults for what is not one and for names that are none."""
        yield from self._tables(self.table.get(group), (group,))

    def _tables(self, node: Node | None, path: tuple[str, ...]) -> Iterable[tuple[str, Table]]:
        for name, entry in node.entries.items() if isinstance(node, Table) else ():
            one = path[-1].removesuffix("s")
            if problem := name_problem(name):
                self._bad_name(f"{one} name", name, problem, entry.key)
            if isinstance(entry.node, Table):
                yield name, entry.node
            else:
                what = type_name(plain_shallow(entry.node))
                why = "a stage is a table of keys, `stage: KIND` among them" if one == "stage" else "a task is a table"
                self.faults.append(Fault(f"`{'.'.join(path)}.{name}` is {what}", str(entry.node.place), why))

    def _bad_name(self, what: str, name: str, problem: str, place: Place) -> None:
        shown = name if len(name) <= 40 else f"{name[:37]}… ({len(name)} characters)"
        why = f"{problem}; names become names of folders"
        self.faults.append(Fault(f"{what} `{shown}` is not allowed", str(place), why, f"use {NAME_PATTERN}"))

    def homes(self, key: str, here: str) -> str:
        """Where `key` does live, in words: "belongs to stages of kind grpo (final_rl)"."""
        found = []
        if here != "top" and key in RecipeKeys.model_fields:
            found.append("at the top of the recipe")
        if here != "task" and key in TaskConfig.model_fields:
            found.append("to a task")
        if here != "block" and key in BlockKeys.model_fields:
            found.append("to a block of stages, which has `repeat` and `stages`")
        kinds = [kind for kind in STAGES if key in fields_of(kind) and kind != here]
        if kinds:
            own = [name for name, kind in self.kinds.items() if kind in kinds]
            found.append(f"to stages of kind {', '.join(kinds)}" + (f" (here {', '.join(own)})" if own else ""))
        return f"belongs {' or '.join(found)}" if found else ""

    # -- stages -------------------------------------------------------------------------------------------------------

    def stages(self) -> dict[str, Stage]:
        """Every stage without faults of its own, those of rounds one by one, not yet numbered."""
        node = self.table.get("stages")
        if node is None or _is_empty(node):
            where = str(node.place if node else self.table.place)
            self.faults.append(Fault("the recipe has no stages", where, fix="add `stages:` with at least one"))
        written = self._written_stages()
        for one in written:
            self.kinds[one.name] = self._kind(one)
        made: dict[str, Stage] = {}
        configs: dict[str, StrictModel | None] = {}
        for one in written:
            kind = self.kinds[one.name]
            if kind is not None:
                config = configs[one.name] = self._config(one, kind)
                refs = references(config or _as_written(config_class(kind), one.table), one.table, one.path)
                for round in one.rounds:
                    found = self._found(one, refs, round)
                    if config is not None and found is not None:
                        name, block = numbered(one.name, round), one.block.name if one.block else ""
                        made[name] = Stage(0, name, kind, config, *found, one.table, one.name, block, round)
        self._check_blocks(configs)
        return made

    def _written_stages(self) -> list[Written]:
        """Those of blocks among them; `kinds` gets the name of each, in order, and `order` those they run under."""
        node = self.table.get("stages")
        names = list(node.entries) if isinstance(node, Table) else []
        blocks: dict[str, Block] = {}
        written: list[Written] = []
        for name, table in self._named("stages"):
            if not is_block(table):
                written.append(Written(name, table))
                continue
            block, faults = read_block(name, table, lambda key: self.homes(key, "block"))
            self.faults += faults
            blocks[name] = block
            inner = self._tables(table.get("stages"), ("stages", name, "stages"))
            written += [Written(one, of, block) for one, of in inner if not is_block(of)]
        self.rounds = Rounds(list(blocks.values()), [name for name in names if name not in blocks])
        self.faults += self.rounds.clashes()
        for name in names:  # one that is no table is told, not looked for in vain
            self.kinds |= dict.fromkeys(blocks[name].names if name in blocks else [name])
            rounds = range(1, blocks[name].rounds + 1) if name in blocks else [0]
            self.order += [numbered(one, round) for round in rounds
                           for one in (blocks[name].names if name in blocks else [name])]  # fmt: skip
        return written

    def _check_blocks(self, configs: dict[str, StrictModel | None]) -> None:
        for block in self.rounds.blocks:
            self.faults += self.rounds.first_faults(block, self.needed_first)
            stage = block.until.stage if block.until is not None else ""
            makes = STAGES[kind].makes if (kind := self.kinds.get(stage)) else None
            if stage not in block.names or makes is not None:
                self.faults += until_faults(block, self.kinds, makes == "evaluation", configs.get(stage))

    def _kind(self, one: Written) -> str | None:
        node, key = one.table.get("stage"), f"{'.'.join(one.path)}.stage"
        known = ", ".join(STAGES)
        if node is None:
            why = "`stage` says what kind of stage it is"
            self.faults.append(Fault(f"`{key}` is missing", str(one.table.place), why, f"one of {known}"))
        elif not isinstance(node, Scalar) or not isinstance(node.value, str):
            self.faults.append(Fault(f"`{key}` is no kind of stage", str(node.place), f"they are {known}"))
        elif node.value not in STAGES:
            other = KIND_ALIASES.get(node.value.casefold(), "")
            fix = f"here it is called `{other}`" if other in STAGES else did_you_mean(node.value, STAGES)
            fault = Fault(f"unknown kind of stage `{node.value}`", str(node.place), f"the kinds are {known}", fix)
            self.faults.append(fault)
        else:
            return node.value
        return None

    def _config(self, one: Written, kind: str) -> StrictModel | None:
        table = one.table
        bare = _without(table, "stage")
        config, faults = build(config_class(kind), bare, one.path, table.place, lambda key: self.homes(key, kind))
        self.faults += faults or (faults := column_faults(table))
        if config is not None and not faults:
            self._tell_idle(".".join(one.path), kind, config, table)
            return config
        return None

    def _tell_idle(self, path: str, kind: str, config: StrictModel, table: Table) -> None:
        """A fault, or a warning, for each written key that does nothing beside another."""
        told: set[str] = set()
        for one in getattr(importlib.import_module(STAGES[kind].module), "idle", lambda _: ())(config):
            entry = _written(table, one.key)
            if entry is None or one.key in told or self._was_filled_in(f"{path}.{one.key}"):
                continue
            told.add(one.key)
            fault = Fault(f"`{path}.{one.key}` does nothing here", str(entry.key), one.why)
            if one.harmless:
                self.warnings.append(f"{fault.what}: {one.why} ({entry.key})")
            else:
                self.faults.append(replace(fault, fix="remove the key, or change what stands beside it"))

    def _was_filled_in(self, key: str) -> bool:
        """Whether this is a resolved recipe, in which nobody wrote that key: `origins` says whose value it is."""
        said = _written(self.table, "origins")
        known = plain(said.node) if said is not None and isinstance(said.node, Table) else {}
        return str(known.get(key, "")).startswith(("default", "preset "))

    def _found(self, one: Written, refs: list[Ref], round: int) -> tuple[tuple[Ref, ...], tuple[str, ...]] | None:
        """The references of a stage in a round, found, and the tasks it names; None if one is not there or has faults
        itself."""
        before = len(self.faults)
        named = [ref for ref in refs if ref.kind == "task"]
        self.named |= {ref.text for ref in named}
        tasks = list(dict.fromkeys(ref.text for ref in named))
        for ref in named:
            self._unknown_task(ref)
        refs = [ref for ref in refs if ref.kind != "task"]
        refs += [ref for task in tasks for ref in self.task_references.get(task, ())]
        found = []
        for ref in refs:
            if ref.stage is not None:
                ref, faults = self._bound(ref, one, round)
            elif ref.kind == "reward" and is_named(ref):
                faults = []  # one of the built-in rewards, or a fault that the stage's check names
            else:
                ref, faults = self.find(ref, list(self.kinds))
            self.faults += faults
            found.append(ref)
        paths: dict[str, Ref] = {}
        for ref in found:
            other = paths.setdefault(ref.text, ref)
            if ref.path != other.path:
                why = f"here it is {ref.path}, at {other.place} it is {other.path}"
                self.faults.append(Fault(f"`{ref.text}` means two files in one stage", str(ref.place), why,
                                         "write one of them as an absolute path"))  # fmt: skip
        if len(self.faults) > before or any(task not in self.tasks for task in tasks):
            return None
        return tuple(found), tuple(tasks)

    def _bound(self, ref: Ref, one: Written | None, round: int) -> tuple[Ref, list[Fault]]:
        """A reference to a stage with the one it means, and the faults of it; `one` is the stage it stands in."""
        makes: dict[str, Makes | None] = {
            name: STAGES[kind].makes if kind in STAGES else None for name, kind in self.kinds.items()
        }
        meant = self.rounds.meant(ref, one or Written("", self.table), round)
        self.needed_first.add(meant.told.key)
        if meant.fault is not None:
            return ref, [meant.fault]
        if one is not None and meant.told.stage in makes:
            self.uses.setdefault(numbered(one.name, round), []).append((meant.ref.stage or "", meant.ref))
        return meant.ref, check_stage_reference(meant.told, makes, "" if one is None or one.block else one.name)

    def unused_files(self) -> dict[str, list[Ref]]:
        """The files of tasks that no stage names; faults for those that are not there."""
        files: dict[str, list[Ref]] = {}
        for name in (name for name in self.tasks if name not in self.named):
            for ref in self.task_references[name]:
                if ref.stage is not None:
                    self.faults += self._bound(ref, None, 0)[1]
                else:
                    found, faults = self.find(ref, list(self.kinds))
                    self.faults += faults
                    files.setdefault(name, []).append(found)
        return files

    def _unknown_task(self, ref: Ref) -> None:
        node = self.table.get("tasks")
        written = list(node.entries) if isinstance(node, Table) else []
        is_told = node is not None and not isinstance(node, Table) and not _is_empty(node)
        if ref.text not in written and not is_told:  # else it has faults of its own
            why = f"the tasks are {', '.join(written)}" if written else "the recipe has no `tasks`"
            fix = did_you_mean(ref.text, written)
            self.faults.append(Fault(f"`{ref.key}` names an unknown task `{ref.text}`", str(ref.place), why, fix))
