"""Rewards from a user's own file: found, compiled, and tried once before anything runs."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from temper.errors import ConfigError, Fault
from temper.text.reply import parse_reply
from temper.types import Message, Prompt, Reply

SIGNATURE = "(prompt, reply) -> float"
BATCH_TOLERANCE = 1e-2  # by which a reply's value may depend on its batch: a narrow model rounds it otherwise


def load_function(name: str, folder: Path | None = None, signature: str = SIGNATURE) -> Callable[..., Any]:
    """The function that `path/to/file.py:function` names. Raises ConfigError with file and line, also where it does
    not take the arguments of `signature`."""
    path_text, _, function = name.rpartition(":")
    if not path_text.endswith(".py") or not function:
        fix = f"name the function too: `{name.rstrip(':')}:FUNCTION`"
        raise ConfigError(Fault(f"the reward `{name}` names no function", fix=fix))
    path = _find(path_text, folder)
    found: Any = getattr(_execute(path), function, None)
    if not callable(found):
        what = "is not a function" if found is not None else "does not exist"
        raise ConfigError(Fault(f"the reward function `{function}` {what}", str(path), fix=_nearest(path, function)))
    _check_signature(found, path, function, signature)
    return cast("Callable[..., Any]", found)


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


def _execute(path: Path) -> ModuleType:
    """The module at `path`, run under a name of its own; a file is run once however many of its functions are used."""
    source = _read(path)
    name = f"temper_reward_{hashlib.blake2b(source + os.fsencode(path), digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # no import: that writes files beside it
    except SyntaxError as error:
        del sys.modules[name]
        where = f"{error.filename or path}:{error.lineno or 1}:{error.offset or 1}"
        raise ConfigError(Fault("a syntax error in a reward file", where, str(error.msg))) from None
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(Fault("a reward file cannot be loaded", _line_of(error, path), describe(error))) from None
    return module


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(Fault("a reward file cannot be read", str(path), error.strerror or str(error))) from None


def _line_of(error: BaseException, path: Path) -> str:
    """The last line of the user's own file that the error went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def describe(error: BaseException) -> str:
    """An exception in one line: its type and what it says.

    >>> describe(KeyError("answer"))
    "KeyError: 'answer'"
    """
    try:
        said = str(error)
    except Exception:
        said = "(its message cannot be shown)"
    return f"{type(error).__name__}: {said}".removesuffix(": ")[:500]


def _nearest(path: Path, function: str) -> str:
    names = [name for name, value in vars(_execute(path)).items() if callable(value) and not name.startswith("_")]
    close = difflib.get_close_matches(function, names, n=1)
    if close:
        return f"did you mean `{path}:{close[0]}`?"
    return f"define `def {function}(prompt, reply):` there"


def _check_signature(function: Callable, path: Path, name: str, wanted: str) -> None:
    code = getattr(function, "__code__", None)
    where = f"{path}:{code.co_firstlineno}" if code else str(path)
    fix = f"define it as `def {name}{wanted}:`"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        why = "it is async or a generator"
        raise ConfigError(Fault(f"the reward `{name}` is not a plain function", where, why, fix))
    try:
        signature = inspect.signature(function)
        signature.bind(*[None] * (wanted.count(",") + 1))
    except ValueError:  # a builtin that does not tell its signature
        return
    except TypeError as error:
        why = f"expected `{wanted}`, got `{name}{signature}`: {error}"  # pyright: ignore[reportPossiblyUnbound]
        raise ConfigError(Fault(f"the reward `{name}` has the wrong signature", where, why, fix)) from None


# -- what a reward returns --------------------------------------------------------------------------------------------


class WrongReturn(TypeError):
    """A reward returned something that is not a finite number."""


def checked(value: object) -> float:
    """The reward as a float. Raises WrongReturn for anything but a finite real number (a Boolean is one).

    >>> checked(True), checked(0.5)
    (1.0, 0.5)
    >>> checked(None)
    Traceback (most recent call last):
        ...
    temper.rewards.user.WrongReturn: got None, expected one finite float
    """
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, Exception):  # a batch says so where it failed on one reply
        raise value
    shown = "None" if value is None else str(value) if isinstance(value, Real) else f"a {type(value).__qualname__}"
    if not isinstance(value, Real) and hasattr(value, "__len__") and not isinstance(value, str):
        shown += " (rewards are scored one reply at a time)"
    raise WrongReturn(f"got {shown}, expected one finite float")


def checked_all(values: object, count: int) -> Sequence[object]:
    """What a batch returned, if that is one value a reply. Raises WrongReturn for anything else.

    >>> checked_all([1.0, 0.5], 2)
    [1.0, 0.5]
    >>> checked_all([1.0], 2)
    Traceback (most recent call last):
        ...
    temper.rewards.user.WrongReturn: got 1 values for 2 replies
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        shown = "None" if values is None else f"a {type(values).__qualname__}"
        raise WrongReturn(f"got {shown}, expected a list with one finite float a reply")
    if len(values) != count:
        raise WrongReturn(f"got {len(values)} values for {count} replies")
    return values


_QUESTION = Prompt("probe", "probe", (Message("user", "What is 2+3?"),), gold="5")
PROBES: tuple[tuple[Prompt, Reply], ...] = tuple(
    (_QUESTION, parse_reply(text))
    for text in (
        "<think>First 2 and 3. So the result is 5.</think><answer>5</answer>",
        "<think>The result is 6.</think><answer>6</answer>",
        "no idea",
    )
)


def probe_rewards(
    rewards: Mapping[str, Callable[[Prompt, Reply], float]], samples: Sequence[tuple[Prompt, Reply]] = PROBES
) -> tuple[Fault, ...]:
    """Warnings about rewards tried twice on each sample: one that raises, one that says something else the second time,
    one whose `batch` says something else than it says of each reply alone.

    Raises ConfigError for a reward that returns anything but a finite number (`batch`: one a reply), all of them
    together.
    """
    faults: list[Fault] = []
    warnings: list[Fault] = []
    for name, reward in rewards.items():
        try:
            warning = _probe_alone(name, reward, samples) or _probe_batch(name, reward, samples)
            warnings += [warning] if warning else []
        except WrongReturn as error:
            fix = "return one finite float for each reply"
            faults.append(Fault(f"the reward `{name}` does not return a number", why=str(error), fix=fix))
    if faults:
        raise ConfigError(faults)
    return tuple(warnings)


def _probe_alone(name: str, reward: Callable, samples: Sequence[tuple[Prompt, Reply]]) -> Fault | None:
    for prompt, reply in samples:
        try:
            first, second = (checked(reward(prompt, reply)) for _ in range(2))
        except WrongReturn:
            raise
        except (Exception, SystemExit) as error:
            why = f"{describe(error)}, on the reply {reply.text[:60]!r}; such a reply scores 0 and is counted"
            return Fault(f"the reward `{name}` failed when it was tried", why=why)
        if first != second:
            why = f"{first:g}, then {second:g} for the same reply: runs cannot be repeated, and equal replies differ"
            return Fault(f"the reward `{name}` is not deterministic", why=why)
    return None


def _probe_batch(name: str, reward: Callable, samples: Sequence[tuple[Prompt, Reply]]) -> Fault | None:
    batch = getattr(reward, "batch", None)
    if batch is None or not samples:
        return None
    try:
        together = [checked(value) for value in checked_all(batch(samples), len(samples))]
    except WrongReturn as error:
        raise WrongReturn(f"`batch` {error}") from None
    except (Exception, SystemExit) as error:
        why = f"{describe(error)}; each reply is then scored alone"
        return Fault(f"`batch` of the reward `{name}` failed when it was tried", why=why)
    for (prompt, reply), one in zip(samples, together, strict=True):
        alone = checked(reward(prompt, reply))
        if not math.isclose(one, alone, rel_tol=BATCH_TOLERANCE, abs_tol=BATCH_TOLERANCE):
            why = f"{one:g}, and {alone:g} alone, for the reply {reply.text[:60]!r}"
            return Fault(f"`batch` of the reward `{name}` says something else than the reward", why=why)
    return None
