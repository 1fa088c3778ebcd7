"""A recipe's text turned into typed stages, or into every fault it has."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from temper.config import StrictModel, TaskConfig
from temper.data.columns import LANGUAGE
from temper.data.shapes import check_mapping
from temper.errors import ConfigError, Fault
from temper.recipe.aliases import with_our_names
from temper.recipe.document import Entry, Node, Place, Scalar, Table, leaves, plain, plain_shallow, type_name
from temper.recipe.faults import build, in_order
from temper.recipe.foreign.read import TOOLS, tool_of
from temper.recipe.graph import (
    Ref,
    check_stage_reference,
    find_circle,
    find_external,
    is_named,
    references,
    sort_stages,
)
from temper.recipe.recipe import Recipe, RecipeKeys, Stage, config_class, fields_of
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
    order = reader.check_graph(sort=tree.extends)
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
        trackers=tuple(dict.fromkeys(top.trackers)),
        output_dir=top.output_dir,
        tasks=reader.tasks,
        task_files=reader.unused_files(),
        stages=stages,
        origins=_preset_origins(stages) | {".".join(path): _origin(node.place) for path, node in leaves(table)},
        warnings=tuple(reader.warnings),
    )
    return recipe, in_order(dict.fromkeys(reader.faults))


def _preset_origins(stages: Iterable[Stage]) -> dict[str, str]:
    """The keys that a stage's preset stands for."""
    origins = {}
    for stage in stages:
        preset = getattr(stage.config, "preset", None)
        for key in stage.module.preset_values(plain(stage.written)) if preset else ():
            origins[f"stages.{stage.name}.{key}"] = f"preset {preset}"
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


def _column_faults(table: Table) -> list[Fault]:
    """What is wrong with the `columns` of a task or a stage, whatever its files have; each fault at its own line."""
    columns = table.get("columns")
    if not isinstance(columns, Table):
        return []
    try:
        check_mapping(plain(columns), None, "")
        return []
    except ConfigError as error:
        found = []
        for fault in error.faults:
            words = re.findall("`([^`]*)`", fault.what)
            named = [columns.entries[word].key for word in words if word in columns.entries]
            found.append(replace(fault, where=str(named[0] if named else columns.place)))
        return found


class _Reader:
    """Reads a recipe's tree part by part and gathers what is wrong."""

    def __init__(self, table: Table, find: Find):
        self.table, self.find = table, find
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        self.tasks: dict[str, TaskConfig] = {}
        self.task_references: dict[str, list[Ref]] = {}
        self.kinds: dict[str, str | None] = {}  # of every stage written, in order
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
            self.faults += faults or (faults := _column_faults(table))
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
        node = self.table.get(group)
        for name, entry in node.entries.items() if isinstance(node, Table) else ():
            one = group.removesuffix("s")
            if problem := name_problem(name):
                self._bad_name(f"{one} name", name, problem, entry.key)
            if isinstance(entry.node, Table):
                yield name, entry.node
            else:
                what = type_name(plain_shallow(entry.node))
                why = "a stage is a table of keys, `stage: KIND` among them" if one == "stage" else "a task is a table"
                self.faults.append(Fault(f"`{group}.{name}` is {what}", str(entry.node.place), why))

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
        kinds = [kind for kind in STAGES if key in fields_of(kind) and kind != here]
        if kinds:
            own = [name for name, kind in self.kinds.items() if kind in kinds]
            found.append(f"to stages of kind {', '.join(kinds)}" + (f" (here {', '.join(own)})" if own else ""))
        return f"belongs {' or '.join(found)}" if found else ""

    # -- stages -------------------------------------------------------------------------------------------------------

    def stages(self) -> dict[str, Stage]:
        """Every stage without faults of its own, not yet numbered."""
        tables = list(self._named("stages"))
        node = self.table.get("stages")
        if node is None or _is_empty(node):
            where = str(node.place if node else self.table.place)
            self.faults.append(Fault("the recipe has no stages", where, fix="add `stages:` with at least one"))
        names = node.entries if isinstance(node, Table) else ()
        self.kinds = dict.fromkeys(names)  # one that is no table is told, not looked for in vain
        for name, table in tables:
            self.kinds[name] = self._kind(name, table)
        made = {}
        for name, table in tables:
            kind = self.kinds[name]
            if kind is not None:
                config = self._config(name, kind, table)
                refs = references(config or _as_written(config_class(kind), table), table, ("stages", name))
                found = self._found(name, refs)
                if config is not None and found is not None:
                    made[name] = Stage(0, name, kind, config, *found, table)
        return made

    def _kind(self, name: str, table: Table) -> str | None:
        node = table.get("stage")
        known = ", ".join(STAGES)
        if node is None:
            why = "`stage` says what kind of stage it is"
            self.faults.append(Fault(f"`stages.{name}.stage` is missing", str(table.place), why, f"one of {known}"))
        elif not isinstance(node, Scalar) or not isinstance(node.value, str):
            self.faults.append(
                Fault(f"`stages.{name}.stage` is no kind of stage", str(node.place), f"they are {known}")
            )
        elif node.value not in STAGES:
            other = KIND_ALIASES.get(node.value.casefold(), "")
            fix = f"here it is called `{other}`" if other in STAGES else did_you_mean(node.value, STAGES)
            fault = Fault(f"unknown kind of stage `{node.value}`", str(node.place), f"the kinds are {known}", fix)
            self.faults.append(fault)
        else:
            return node.value
        return None

    def _config(self, name: str, kind: str, table: Table) -> StrictModel | None:
        cls = config_class(kind)
        bare = _without(table, "stage")
        config, faults = build(cls, bare, ("stages", name), table.place, lambda key: self.homes(key, kind))
        self.faults += faults or (faults := _column_faults(table))
        if config is not None and not faults:
            self._tell_idle(name, kind, config, table)
            return config
        return None

    def _tell_idle(self, name: str, kind: str, config: StrictModel, table: Table) -> None:
        """A fault, or a warning, for each written key that does nothing beside another."""
        told: set[str] = set()
        for one in getattr(importlib.import_module(STAGES[kind].module), "idle", lambda _: ())(config):
            entry = _written(table, one.key)
            if entry is None or one.key in told or self._was_filled_in(f"stages.{name}.{one.key}"):
                continue
            told.add(one.key)
            fault = Fault(f"`stages.{name}.{one.key}` does nothing here", str(entry.key), one.why)
            if one.harmless:
                self.warnings.append(f"{fault.what}: {one.why} ({entry.key})")
            else:
                self.faults.append(replace(fault, fix="remove the key, or change what stands beside it"))

    def _was_filled_in(self, key: str) -> bool:
        """Whether this is a resolved recipe, in which nobody wrote that key: `origins` says whose value it is."""
        said = _written(self.table, "origins")
        known = plain(said.node) if said is not None and isinstance(said.node, Table) else {}
        return str(known.get(key, "")).startswith(("default", "preset "))

    def _found(self, name: str, refs: list[Ref]) -> tuple[tuple[Ref, ...], tuple[str, ...]] | None:
        """The references of a stage, found, and the tasks it names; None if one is not there or has faults itself."""
        before = len(self.faults)
        named = [ref for ref in refs if ref.kind == "task"]
        self.named |= {ref.text for ref in named}
        tasks = list(dict.fromkeys(ref.text for ref in named))
        for ref in named:
            self._unknown_task(ref)
        refs = [ref for ref in refs if ref.kind != "task"]
        refs += [ref for task in tasks for ref in self.task_references.get(task, ())]
        makes: dict[str, Makes | None] = {
            other: STAGES[of].makes if of in STAGES else None for other, of in self.kinds.items()
        }
        found = []
        for ref in refs:
            if ref.stage is not None:
                faults = check_stage_reference(ref, makes, name)
                if ref.stage in makes:
                    self.uses.setdefault(name, []).append((ref.stage, ref))
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

    def unused_files(self) -> dict[str, list[Ref]]:
        """The files of tasks that no stage names; faults for those that are not there."""
        makes: dict[str, Makes | None] = {
            name: STAGES[kind].makes if kind in STAGES else None for name, kind in self.kinds.items()
        }
        files: dict[str, list[Ref]] = {}
        for name in (name for name in self.tasks if name not in self.named):
            for ref in self.task_references[name]:
                if ref.stage is not None:
                    self.faults += check_stage_reference(ref, makes, "")
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

    # -- the graph ----------------------------------------------------------------------------------------------------

    def check_graph(self, sort: bool) -> list[str]:
        """The stages in the order they run in; faults for circles and for stages that stand before what they use."""
        names = list(self.kinds)
        uses = {name: [used for used, _ in self.uses.get(name, [])] for name in names}
        circle = find_circle(uses)
        if circle:
            ref = next(ref for used, ref in self.uses[circle[0]] if used == circle[1])
            what = (
                f"`{ref.key}` refers to the stage itself" if len(circle) == 2 else "stages use one another in a circle"
            )
            why = f"{' needs '.join(circle)}: none of them can be first"
            self.faults.append(Fault(what, str(ref.place), why, "let one of them start from something that exists"))
            return names
        if sort:
            return sort_stages(uses)
        for name in names:
            for used, ref in self.uses.get(name, []):
                if names.index(used) > names.index(name):
                    why = f"stages run in the order they are written in, and `{name}` needs what `{used}` makes"
                    what = f"`{name}` stands before `{used}`, which it uses"
                    self.faults.append(Fault(what, str(ref.place), why, f"move `{name}` below `{used}`"))
        return names
