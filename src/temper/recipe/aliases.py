"""Key names of the tutorials and of TRL that are taken as they are, for the key of ours that means the same.

What a recipe is read as, and what recipe.resolved.yaml says, has our names. Other names of other tools are told
(`meanings.py`), not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from temper.errors import Fault
from temper.hub.names import is_hub_data, is_hub_model
from temper.recipe.document import Entry, Items, Node, Scalar, Table
from temper.recipe.rounds import is_block
from temper.recipe.words import folder_name

KEYS: Mapping[str, str] = MappingProxyType(
    {"model_name_or_path": "model", "epsilon": "clip_range", "beta": "kl_penalty"}
)  # of a stage
DATASET = "dataset_name"  # of a task its `train`; of a stage its `data`, or a task of that name


def with_our_names(table: Table, fields_of: Callable[[str], Collection[str]]) -> tuple[Table, list[Fault]]:
    """A recipe's tree with our names in the place of their aliases. `fields_of` gives the keys of a kind of stage: an
    alias of a key that a stage does not have stays, to be told. A fault for a key that is written under both names.

    >>> from temper.recipe.document import plain, read_document
    >>> text = "{stages: {rl: {stage: grpo, model_name_or_path: m, beta: 0.04}}}"
    >>> made, _ = with_our_names(read_document(text, "my.yaml"), lambda kind: ["model", "kl_penalty"])
    >>> plain(made)
    {'stages': {'rl': {'stage': 'grpo', 'model': 'm', 'kl_penalty': 0.04}}}
    """
    return _Renamer(fields_of).recipe(table)


_ENDINGS = (".jsonl", ".json", ".csv", ".gz", ".parquet", ".arrow")  # of a file, that is not here perhaps


class _Renamer:
    def __init__(self, fields_of: Callable[[str], Collection[str]]):
        self.fields_of = fields_of
        self.faults: list[Fault] = []
        self.made: dict[str, Entry] = {}  # tasks that stages name by their files

    def recipe(self, table: Table) -> tuple[Table, list[Fault]]:
        tasks = self._each(table, "tasks", self._task)
        written = tasks.entries["tasks"].node if "tasks" in tasks.entries else None
        self.written = dict(written.entries) if isinstance(written, Table) else {}
        made = self._each(tasks, "stages", self._stage)
        if self.made and (written is None or isinstance(written, (Table, Scalar))):
            place = next(iter(self.made.values())).key
            of_tasks = Table({**self.written, **self.made}, written.place if written is not None else place)
            made = Table({**made.entries, "tasks": Entry(of_tasks.place, of_tasks)}, made.place)
        return made, self.faults

    def _each(self, table: Table, group: str, change: Callable[[str, Table], Table]) -> Table:
        node = table.get(group)
        if not isinstance(node, Table):
            return table
        inner = {
            name: Entry(entry.key, change(name, entry.node)) if isinstance(entry.node, Table) else entry
            for name, entry in node.entries.items()
        }
        entries = {**table.entries, group: Entry(table.entries[group].key, Table(inner, node.place))}
        return Table(entries, table.place)

    def _task(self, name: str, table: Table) -> Table:
        return self._renamed(table, DATASET, "train", f"tasks.{name}", self._data)

    def _stage(self, name: str, table: Table) -> Table:
        if is_block(table):
            return self._each(table, "stages", lambda inner, of: self._stage(f"{name}.stages.{inner}", of))
        kind = table.get("stage")
        fields = self.fields_of(kind.value) if isinstance(kind, Scalar) and isinstance(kind.value, str) else ()
        path = f"stages.{name}"
        for alias, ours in KEYS.items():
            if ours in fields and alias not in fields:
                table = self._renamed(table, alias, ours, path)
        if "data" in fields:
            return self._renamed(table, DATASET, "data", path, self._data)
        if "tasks" in fields:
            split = "test" if isinstance(kind, Scalar) and kind.value == "evaluate" else "train"
            return self._renamed(table, DATASET, "tasks", path, lambda node: self._as_tasks(node, split))
        return table

    def _renamed(
        self, table: Table, alias: str, ours: str, path: str, value: Callable[[Node], Node] = lambda node: node
    ) -> Table:
        """The table with one key under our name, in the place where it stood."""
        if alias not in table.entries:
            return table
        if ours in table.entries:
            what = f"`{path}.{alias}` and `{path}.{ours}` are one key under two names"
            where = str(table.entries[alias].key)
            self.faults.append(Fault(what, where, f"`{ours}` stands at {table.entries[ours].key}", f"keep `{ours}`"))
            return Table({key: entry for key, entry in table.entries.items() if key != alias}, table.place)
        entries = {
            ours if key == alias else key: Entry(entry.key, value(entry.node)) if key == alias else entry
            for key, entry in table.entries.items()
        }
        return Table(entries, table.place)

    def _data(self, node: Node, split: str = "train") -> Node:
        """A data set as we name it: a name of the Hub that is no file here gets its scheme, and the split."""
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or is_hub_data(node.value):
            return node
        is_here = any((folder / node.value).exists() for folder in (node.place.folder, Path()))
        if is_here or Path(node.value).suffix in _ENDINGS or not is_hub_model(node.value):
            return node
        return Scalar(f"hf://{node.value}?split={split}", node.place, node.plain)

    def _as_tasks(self, node: Node, split: str) -> Node:
        """The names of a task that is made of the data set, put beside the others."""
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            return node
        name = folder_name(Path(node.value.partition("?")[0]).name.partition(".")[0])
        before = self.made.get(name)
        if name in self.written:
            what, fix = f"`{DATASET}` would be the task `{name}`, which there is already", f"write `tasks: [{name}]`"
            self.faults.append(Fault(what, str(node.place), fix=fix))
        else:
            known = dict(before.node.entries) if before is not None and isinstance(before.node, Table) else {}
            known.setdefault(split, Entry(node.place, self._data(node, split)))
            self.made[name] = Entry(node.place, Table(known, node.place))
        return Items([Scalar(name, node.place)], node.place)
