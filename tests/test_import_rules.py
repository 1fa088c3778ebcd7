"""Imports go down only, and nothing heavy is imported before it is needed. Read from the source, not from a run."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "temper"

# From the top down. A module may import modules of its own layer's package and of every layer below.
LAYERS = (
    ("cli", "commands", "__main__"),
    ("api", "testing"),
    ("ui",),
    ("report", "runs"),
    ("serve",),
    ("pipeline",),
    ("planning", "launch"),
    ("recipe",),
    ("stages",),
    ("rollout", "train", "data"),
    ("trackers",),
    ("record",),
    ("models", "rewards", "hub"),
    ("text", "kernels", "algorithms", "code", "distributed"),
    (
        "types",
        "aside",
        "config",
        "benchmarks",
        "artifacts",
        "errors",
        "rng",
        "environment",
        "modelfiles",
        "halting",
        "masking",
        "sealed",
        "__init__",
    ),
)
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "rich", "yaml", "jinja2"}


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name below temper; "" is temper itself."""
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))}


@cache
def imports(path: Path, only_top: bool = False) -> list[tuple[int, str]]:
    """(line, dotted name) of all that a file imports; `only_top` leaves out what functions and type checkers import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        is_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_checking or (only_top and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            skipped |= {id(inner) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in names]
    return found


def ours(path: Path, only_top: bool = False) -> list[tuple[int, str]]:
    """Imports of temper's own modules, by their name below temper."""
    known = set(modules()) | {name.removesuffix(".__init__") for name in modules()}
    found = []
    for line, name in imports(path, only_top):
        if name.partition(".")[0] == "temper":
            inner = name.partition(".")[2]
            while inner and inner not in known:
                inner = inner.rpartition(".")[0]
            found.append((line, inner or "__init__"))
    return found


def layer(module: str) -> int:
    top = module.partition(".")[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", modules())
def test_every_module_belongs_to_a_layer(module):
    assert layer(module) >= 0


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module):
    wrong = []
    for line, name in ours(modules()[module]):
        same = name.partition(".")[0] == module.partition(".")[0]
        is_level = layer(name) == layer(module)
        if layer(name) < layer(module) or (is_level and not same and not is_allowed_across(module, name)):
            wrong.append(f"{module}:{line} imports {name}")
    assert not wrong


def room(module: str) -> str:
    return module.partition(".")[0]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Names that lead back to their first, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        found = next((way for other in sorted(edges[name]) if (way := walk(other, [*path, name]))), [])
        done.add(name)
        return found

    return next((way for name in sorted(edges) if (way := walk(name, []))), [])


def test_no_room_is_part_of_a_circle():
    edges: dict[str, set[str]] = {room(name): set() for name in modules()}
    for name, path in modules().items():
        edges[room(name)] |= {room(other) for _, other in ours(path)} - {room(name)}
    assert not circle(edges)


def test_no_module_is_part_of_a_circle():
    names = {name.removesuffix(".__init__") for name in modules()}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for name, path in modules().items():
        here = name.removesuffix(".__init__")
        edges[here] |= ({other for _, other in ours(path)} & names) - {here}
    assert not circle(edges)


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_only_what_people_call_reads_the_report():
    readers = {room(name) for name, path in modules().items() for _, other in ours(path) if room(other) == "report"}
    assert readers <= {"report", "api", "ui", "commands", "cli"}


SOCKETS = {"socket", "socketserver", "http", "urllib", "ssl", "asyncio", "requests", "httpx", "huggingface_hub"}
SOCKETS |= {"starlette", "uvicorn"}
# The endpoint asks a judge; a reward of a user's own may be `async`, and then has a loop in its own process.
# Code speaks to the process that runs programs over a pair of sockets that nobody else can reach; inside the sandbox,
# where none can be opened, tests await coroutines.
MAY_OPEN_SOCKETS = {
    "rewards.endpoint", "rollout.wire", "rewards.columns", "hub.cache", "code.zygote", "code.guest", "code.remote",
    "code.suites",
}  # fmt: skip
# The only modules that listen: `server` binds, each `app` answers. Nothing but their commands imports them.
MAY_OPEN_SOCKETS |= {"serve.server", "serve.app", "ui.app", "ui.actions"}


def test_only_named_modules_may_open_a_socket():
    found = set()
    for name, path in modules().items():
        for _, outside in imports(path):
            if outside.partition(".")[0] in SOCKETS and not outside.startswith("urllib.parse"):
                found.add(name)
    assert found <= MAY_OPEN_SOCKETS


def test_only_commands_and_the_page_open_a_server():
    readers = {room(name) for name, path in modules().items() for _, other in ours(path) if room(other) == "serve"}
    assert readers <= {"serve", "ui", "commands"}


def is_allowed_across(module: str, name: str) -> bool:
    """Packages of one layer may use one another, but for `algorithms`, which knows only torch and types."""
    return module.partition(".")[0] != "algorithms"


STAGE_HELPERS = {
    "stages",
    "stages.__init__",
    *(f"stages.{name}" for name in ("context", "models", "rewards", "prompts", "draws", "chunks", "rollouts", "idle")),
    "stages.ahead",
    "stages.claims",
    "stages.credit",
    "stages.forced",
    "stages.presets",
    "stages.programs",
    "stages.served",
}


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("stages.")])
def test_stages_never_import_one_another(module):
    others = [name for _, name in ours(modules()[module]) if name.startswith("stages.") and name not in STAGE_HELPERS]
    assert not others


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("algorithms.")])
def test_algorithms_know_only_torch_and_types(module):
    path = modules()[module]
    outside = {name.partition(".")[0] for _, name in imports(path)} - {"temper", "torch", "__future__", "typing"}
    assert outside <= {"collections", "dataclasses", "math"}
    assert {name for _, name in ours(path)} <= {"types", "algorithms"} | {
        name for name in modules() if name.startswith("algorithms.")
    }


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("rewards")])
def test_rewards_know_no_torch(module):
    assert not {name.partition(".")[0] for _, name in imports(modules()[module])} & {"torch", "transformers", "numpy"}


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("data.") and name != "data.batching"])
def test_data_that_is_no_batch_of_tensors_imports_no_torch_at_the_top(module):
    assert not {name.partition(".")[0] for _, name in imports(modules()[module], only_top=True)} & {"torch"}


def reached(module: str) -> set[str]:
    """Everything that importing a module imports, first-party modules followed."""
    seen, waiting, outside = set(), [module], set()
    known = modules()
    while waiting:
        name = waiting.pop()
        packages = [".".join(name.split(".")[:depth]) + ".__init__" for depth in range(1, name.count(".") + 1)]
        for inner in (name, f"{name}.__init__", *packages, "__init__"):
            if inner in known and inner not in seen:
                seen.add(inner)
                waiting += [found for _, found in ours(known[inner], only_top=True)]
                outside |= {found.partition(".")[0] for _, found in imports(known[inner], only_top=True)}
    return outside


@pytest.mark.parametrize("module", ["cli", *(name for name in modules() if name.startswith("commands."))])
def test_the_command_line_answers_without_importing_anything_heavy(module):
    assert not reached(module) & HEAVY


@pytest.mark.parametrize("module", ["pipeline.run", "pipeline.sweep", "api.running"])
def test_torch_is_loaded_by_the_stages_that_need_it_alone(module):
    assert not reached(module) & {"torch", "transformers"}


def test_following_imports_finds_what_is_imported_indirectly():
    assert {"yaml", "pydantic"} <= reached("pipeline.run")
    assert "torch" in reached("stages.sft")


def test_nothing_imports_what_the_library_does_not_declare():
    project = (SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    allowed = {"temper", "yaml", "huggingface_hub", "jinja2"}  # the last two come with transformers
    allowed |= {name for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "rich")
                if f'"{name}' in project}  # fmt: skip
    allowed |= {"pyarrow", "datasets", "peft", "reasoning_gym", "triton", "bitsandbytes", "torchao"}
    allowed |= {"tensorboard", "wandb", "trackio", "math_verify", "starlette", "uvicorn"}  # extras, imported lazily
    import sys

    for module, path in modules().items():
        outside = {name.partition(".")[0] for _, name in imports(path)} - set(sys.stdlib_module_names)
        assert outside <= allowed, f"{module} imports {outside - allowed}"
