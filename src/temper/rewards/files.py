"""A function of a user's own file: found in the trainer's process, run and looked at in the rewards' process."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

from temper.errors import ConfigError, Fault
from temper.rewards.returns import describe

Kind = Literal["pairs", "columns", "steps"]
SIGNATURE = "(prompt, reply) -> float"
STEP_SIGNATURE = "(prompt, reply, steps) -> list[float]"


@dataclass(frozen=True)
class Source:
    """Where a reward stands: `path/to/file.py:function`, the path as it was written, the `file` that it means and
    the digest of what is in it. It judges whole replies, or their `steps`."""

    path: str
    function: str
    file: str
    digest: str
    steps: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"


@dataclass(frozen=True)
class Traits:
    """What is known of a function once its file has run: how it is called, where it begins, what it says of itself."""

    kind: Kind
    where: str
    batch: bool = False
    overlaps: bool = False
    needs_gold: bool = False


def find_source(name: str, folder: Path | None = None, steps: bool = False) -> Source:
    """The file and the function that `path/to/file.py:function` names; the file is looked up in `folder`, then from
    here. Raises ConfigError where there is no such file."""
    path_text, _, function = name.rpartition(":")
    if not path_text.endswith(".py") or not function:
        fix = f"name the function too: `{name.rstrip(':')}:FUNCTION`"
        raise ConfigError(Fault(f"the reward `{name}` names no function", fix=fix))
    path = _find(path_text, folder)
    return Source(str(path), function, os.path.abspath(path), _digest(path), steps)


def _digest(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise ConfigError(Fault("a reward file cannot be read", str(path), error.strerror or str(error))) from None


def _find(path_text: str, folder: Path | None) -> Path:
    path = Path(path_text).expanduser()
    for candidate in ([] if folder is None else [folder / path]) + [path]:
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # a name too long, a NUL
            break
    beside = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(str(path), beside, n=1)
    fix = f"did you mean `{close[0]}`?" if close else "give the path of a Python file, from here or from the recipe"
    raise ConfigError(Fault(f"no such reward file `{path_text}`", str(path), fix=fix))


# -- in the rewards' process ------------------------------------------------------------------------------------------


def load_source(source: Source) -> tuple[Callable[..., Any], Traits]:
    """The function of a file, which is run for it. Raises ConfigError with file and line, also where it takes other
    arguments."""
    path = Path(source.path)
    module = _execute(source)
    found: Any = getattr(module, source.function, None)
    if not callable(found):
        what = "is not a function" if found is not None else "does not exist"
        fix = _nearest(path, module, source.function)
        raise ConfigError(Fault(f"the reward function `{source.function}` {what}", str(path), fix=fix))
    code = getattr(found, "__code__", None)
    where = f"{path}:{code.co_firstlineno}" if code else str(path)
    kind = _kind(found, source, where)
    batch = kind == "columns" or callable(getattr(found, "batch", None))
    overlaps = getattr(found, "overlaps", False) is True
    needs_gold = getattr(found, "needs_gold", False) is True
    return cast("Callable[..., Any]", found), Traits(kind, where, batch, overlaps, needs_gold)


def _execute(source: Source) -> ModuleType:
    """The module of a file, run under a name of its own; a file is run once however many of its functions are used. It
    may import what lies beside it."""
    path, file = source.path, Path(source.file)
    name = f"temper_reward_{hashlib.blake2b(os.fsencode(file), key=source.digest.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look their module up
    beside = str(file.parent)
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        exec(compile(file.read_bytes(), path, "exec"), module.__dict__)  # no import: that writes files beside it
    except SyntaxError as error:
        sys.modules.pop(name, None)
        where = f"{error.filename or path}:{error.lineno or 1}:{error.offset or 1}"
        raise ConfigError(Fault("a syntax error in a reward file", where, str(error.msg))) from None
    except BaseException as error:  # it may raise anything, and nothing of it is to end this process
        sys.modules.pop(name, None)
        raise ConfigError(Fault("a reward file cannot be loaded", line_of(error, path), describe(error))) from None
    return module


def line_of(error: BaseException, path: Path | str) -> str:
    """The last line of the user's own file that the error went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _nearest(path: Path, module: ModuleType, function: str) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    close = difflib.get_close_matches(function, names, n=1)
    if close:
        return f"did you mean `{path}:{close[0]}`?"
    return f"define `def {function}(prompt, reply):` there"


def _kind(function: Callable, source: Source, where: str) -> Kind:
    """How a function is called, by its parameters. Raises ConfigError for one that cannot be."""
    wanted, kind = (STEP_SIGNATURE, "steps") if source.steps else (SIGNATURE, "pairs")
    name = source.function
    fix = f"define it as `def {name}{wanted}:`"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin that does not tell its signature
        return kind
    if not source.steps and "completions" in signature.parameters:
        return "columns"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        why = "it is async or a generator"
        raise ConfigError(Fault(f"the reward `{name}` is not a plain function", where, why, fix))
    try:
        signature.bind(*[None] * (wanted.count(",") + 1))
    except TypeError as error:
        why = f"expected `{wanted}`, got `{name}{signature}`: {error}"
        if not source.steps:
            fix += f", or as TRL has it: `def {name}(prompts, completions, **columns) -> list[float]:`"
        raise ConfigError(Fault(f"the reward `{name}` has the wrong signature", where, why, fix)) from None
    return kind
