"""What a launch file has to know of a recipe and of the machines, and the file that comes of it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Exit, Fault
from temper.recipe.recipe import Recipe, Stage

TEMPLATES = {
    "slurm": "slurm.sh.j2",
    "skypilot": "skypilot.yaml.j2",
    "kubernetes": "kubernetes.yaml.j2",
    "ray": "ray.py.j2",
}
PORT = 8000  # of the first server of a machine; the next ones follow
MEET = 29500  # the port at which ranks meet
AGAIN = (Exit.PREEMPTED, Exit.RESOURCES)  # after these the same command goes on; the last is of a rank that was lost
MOST_RESTARTS = 50  # of a run that was stopped or lost a machine


@dataclass(frozen=True)
class Servers:
    """vLLM servers for the stages that name some: `a_node` of them on each of `nodes` machines, `gpus` each."""

    stages: tuple[str, ...]
    model: str
    nodes: int
    a_node: int
    gpus: int
    max_lora_rank: int  # 0: no adapters
    key_variable: str | None

    @property
    def settings(self) -> list[str]:
        """Keys of the recipe that say where the servers are; a list of addresses follows each."""
        return [f"{stage}.engine.servers=" for stage in self.stages]


@dataclass(frozen=True)
class Job:
    """A run on `nodes` machines with `gpus` devices each, and on those of its servers."""

    recipe: str
    name: str
    settings: tuple[str, ...]
    shared: str
    out: str
    nodes: int
    gpus: int
    time: str
    image: str
    servers: Servers | None

    @property
    def command(self) -> list[str]:
        """The run, but for where its servers are."""
        settings = [word for setting in self.settings for word in ("--set", setting)]
        return ["run", self.recipe, "--out", self.out, *settings]

    @property
    def all_nodes(self) -> int:
        return self.nodes + (self.servers.nodes if self.servers is not None else 0)


def servers_of(recipe: Recipe, nodes: int, a_node: int, gpus: int) -> Servers | None:
    """The servers that the recipe's stages ask for; None where none does. Raises ConfigError for stages that cannot be
    served by servers started before the run."""
    stages = [stage for stage in recipe.stages if getattr(stage.config, "engine", None) is not None]
    if not stages:
        return None
    faults: list[Fault] = []
    models: dict[str, str] = {}
    for stage in stages:
        model, steps = _origin(recipe, stage)
        engine: Any = stage.config.engine  # type: ignore[attr-defined]
        if model is None:
            what = f"servers of the stage `{stage.name}` cannot be started: its model is made from nothing in the run"
            faults.append(Fault(what, fix="train it in a run of its own first, then start from its artifact"))
        elif engine.weights == "keep" and steps:
            what = f"servers of the stage `{stage.name}` keep the weights they start with, which the run is to make"
            faults.append(Fault(what, fix="leave `engine.weights` at `send`, or start from a finished model"))
        else:
            models[model] = stage.name
    if len(models) > 1:
        told = ", ".join(f"`{stage}` starts from {model}" for model, stage in models.items())
        faults.append(Fault("stages with servers start from different models", why=told, fix="one run for each"))
    if faults:
        raise ConfigError(faults)
    loras = [getattr(stage.config, "lora", None) for stage in stages]
    rank = max((lora.r for lora in loras if lora is not None), default=0)
    keys = {stage.config.engine.api_key_env for stage in stages} - {None}  # type: ignore[attr-defined]
    return Servers(
        tuple(stage.name for stage in stages), next(iter(models)), nodes, a_node, gpus, rank, next(iter(keys), None)
    )


def _origin(recipe: Recipe, stage: Stage) -> tuple[str | None, int]:
    """The model that a stage's own came from, as servers can be given it, and how many stages trained it on the way."""
    trained = 0
    while True:
        keys = (f"{stage.path}.model", f"{stage.path}.models.0")
        ref = next((ref for ref in stage.references if ref.kind == "model" and ref.key in keys), None)
        if ref is None:
            return None, trained
        if ref.stage is None:
            is_here = ref.path is not None and not ref.commit
            return str(ref.path.resolve()) if is_here and ref.path is not None else ref.text, trained
        stage = recipe.by_name[ref.stage]
        trained += stage.kind != "import_model"


def slug(name: str) -> str:
    """A name that every scheduler takes.

    >>> slug("My recipe_2!"), slug("…")
    ('my-recipe-2', 'temper')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "temper"


def render(kind: str, job: Job, command: Sequence[str]) -> str:
    """The launch file for the scheduler `kind`; `command` is what printed it."""
    import jinja2

    folder = Path(__file__).parent / "templates"
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    engine.filters |= {"q": shlex.quote, "j": lambda value: json.dumps(value, ensure_ascii=True), "words": words}
    template = engine.get_template(TEMPLATES[kind])
    again = "".join(letter if letter.isprintable() else " " for letter in words(command))
    return template.render(
        job=job, servers=job.servers, port=PORT, meet=MEET, restarts=MOST_RESTARTS, again=again,
        codes=[int(code) for code in AGAIN],
        final=sorted(int(code) for code in Exit if code not in (Exit.OK, Exit.INTERRUPTED, *AGAIN)),
    )  # fmt: skip


def words(command: Sequence[str]) -> str:
    """A command as a shell reads it."""
    return " ".join(map(shlex.quote, command))


def faults_of(nodes: int, gpus: int, server_nodes: int, server_gpus: int) -> Iterator[Fault]:
    """What is wrong with these numbers."""
    for name, value in (("--nodes", nodes), ("--gpus", gpus), ("--server-nodes", server_nodes)):
        if value < 1:
            yield Fault(f"{name} {value}: there is at least one")
    if server_gpus < 1 or (gpus > 0 and gpus % server_gpus):
        yield Fault(f"--server-gpus {server_gpus}: {gpus} devices a machine are not shared out evenly by it")
