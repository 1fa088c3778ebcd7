"""The process in which rewards of a user's own run: what they break, close, change or end is not the trainer's.

Requests come on standard input (8 bytes of length, then a pickle), answers go to what was standard output, one JSON
value a line; what the rewards print goes to standard error. `worker.py` is the other end.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from temper.aside import Aside, Columns, held_of
from temper.errors import ConfigError
from temper.rewards.columns import ColumnsCall
from temper.rewards.files import Source, Traits, line_of, load_source
from temper.rewards.returns import ONLY, RewardFailure, WrongReturn, applied, checked, checked_all, describe
from temper.types import Prompt

SCALARS = (str, int, float, bool, type(None), Aside)


def serve(life: int) -> None:
    """Answer requests until there are no more, or the other end of the pipe `life` is closed."""
    _end_with_the_trainer(life)
    requests, answers = _take_pipes()
    owner = os.getpid()
    _write(answers, "ready")
    known: dict[Source, tuple[Callable[..., Any], Traits]] = {}
    while (request := _read(requests)) is not None:
        folder, source, items, together = request
        with contextlib.suppress(OSError):  # where a reward or the trainer went elsewhere; it may be gone
            os.chdir(folder or ".")
        for answer in _answers(known, source, items, together):
            if os.getpid() != owner:  # a fork that a reward left behind
                os._exit(0)
            _write(answers, answer)


def _take_pipes() -> tuple[int, int]:
    """Pipes to the trainer under numbers that no print goes to."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # standard error is closed
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    return requests, answers


def _end_with_the_trainer(life: int) -> None:
    """The end of the trainer closes this pipe, which then sends a signal whose default is to end the process: whatever
    a reward is doing, held in C code included."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _read(pipe: int) -> Any:
    """The next request, None at the end."""
    size = int.from_bytes(_exactly(pipe, 8), "big")
    raw = _exactly(pipe, size) if size else b""
    return pickle.loads(raw) if raw else None


def _exactly(pipe: int, size: int) -> bytes:
    parts = []
    while size and (part := os.read(pipe, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"" if size else b"".join(parts)


def _write(pipe: int, answer: Any) -> None:
    line = json.dumps(answer).encode() + b"\n"
    while line:
        line = line[os.write(pipe, line) :]


def _answers(known: dict, source: Source, items: Sequence[Any] | None, together: bool | str) -> Iterator[Any]:
    """The traits of a function where nothing is asked of it, else what it says of each item. An answer is a list:
    some of the items, in order. A call with all of them that fails is made again for each, unless it is the `ONLY`."""
    if source not in known:
        try:
            known[source] = load_source(source)
        except ConfigError as error:
            fault = error.faults[0]
            yield {"fault": [fault.what, fault.where, fault.why, fault.fix]}
            return
        function, traits = known[source]
        known[source] = (ColumnsCall(function) if traits.kind == "columns" else function, traits)
    yield "ready"  # its file has run: the time for an answer begins
    function, traits = known[source]
    if items is None:
        yield {"traits": asdict(traits)}
        return
    if together and traits.batch and items:
        call = function if traits.kind == "columns" else function.batch  # type: ignore[attr-defined]
        try:
            values = checked_all(call([_own(item) for item in items]), len(items))
        except BaseException as error:
            if len(items) == 1 or together == ONLY or not isinstance(error, Exception):
                yield [_failure(error, source)] * len(items)
                return
        else:
            both = zip(values, items, strict=True)
            yield [_outcome(source, traits, lambda value=value: value, item) for value, item in both]
            return
    if traits.kind == "columns":
        yield from ([_outcome(source, traits, lambda item=item: function([_own(item)])[0], item)] for item in items)
        return
    yield from ([_outcome(source, traits, lambda item=item: function(*_own(item)), item)] for item in items)


def _own(item: Sequence[Any]) -> tuple[Any, ...]:
    """An item whose row a reward may change without the next call seeing it."""
    prompt: Prompt = item[0]
    held = dict(held_of(prompt.row))
    if all(isinstance(value, SCALARS) for value in held.values()):
        return tuple(item)
    return (replace(prompt, row=Columns(copy.deepcopy(held))), *item[1:])


def _outcome(source: Source, traits: Traits, ask: Callable[[], Any], item: Sequence[Any]) -> Any:
    """A number, null where the reward does not apply, a list of numbers for steps, an object where it failed."""
    try:
        value = ask()
        if isinstance(value, Exception):
            raise value
        if traits.kind != "steps":
            return applied(value)
        if len(value) != len(item[2]):
            raise WrongReturn(f"got {len(value)} values for {len(item[2])} steps")
        return [checked(one) for one in value]
    except BaseException as error:
        return _failure(error, source)


def _failure(error: BaseException, source: Source) -> dict[str, Any]:
    said = str(error) if isinstance(error, (WrongReturn, RewardFailure)) else describe(error)
    return {"failed": said, "where": line_of(error, source.path), "wrong": isinstance(error, WrongReturn)}
