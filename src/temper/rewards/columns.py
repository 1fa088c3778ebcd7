"""Rewards as TRL has them, `f(prompts, completions, **columns) -> list[float | None]`, called as TRL calls them.

Prompts and completions are strings or, for functions that look into messages, lists of messages; columns are those of
the prompts' rows, each as a list with one value a completion. A function may be `async`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import CodeType
from typing import Any

from temper.aside import Aside, held_of
from temper.rewards.returns import RewardFailure, applied, checked_all
from temper.types import Prompt, Reply

Pair = tuple[Prompt, Reply]
# What the gold answer is called by functions written for other files: given where the rows have no such column.
GOLD = ("gold", "answer", "solution", "ground_truth", "target", "label")
# What TRL hands a function beside columns, and what it is here.
BESIDE: dict[str, Any] = {
    "trainer_state": None,
    "log_extra": lambda *_, **__: None,
    "log_metric": lambda *_, **__: None,
}


class ColumnsCall:
    """A function of this shape, called with pairs of (prompt, reply).

    >>> def brevity(completions, limit, **columns):
    ...     return [float(len(text) <= most) for text, most in zip(completions, limit)]
    >>> from temper.types import Message
    >>> prompt = Prompt("1", "t", (Message("user", "2+3"),), "5", row={"limit": 3})
    >>> ColumnsCall(brevity)([(prompt, Reply("abc", None, None, False)), (prompt, Reply("abcd", None, None, False))])
    [1.0, 0.0]
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._parameters = inspect.signature(function).parameters
        self._takes_all = any(one.kind is one.VAR_KEYWORD for one in self._parameters.values())
        self._reads_messages = _reads_messages(function)
        self._form: bool | None = None  # whether it takes messages, once a call has shown it
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, pairs: Sequence[Pair]) -> list[float | None]:
        """One value a pair. Raises what the function raises, WrongReturn for anything but one number or None each,
        RewardFailure for a column that the rows do not have."""
        lists = any(isinstance(held_of(prompt.row).get("prompt"), list) for prompt, _ in pairs)
        preferred = self._reads_messages or lists
        if self._form is not None:
            return self._values(pairs, self._form)
        try:
            values, form = self._values(pairs, preferred), preferred
        except (TypeError, KeyError, IndexError, AttributeError):  # it may have expected the other form
            try:
                values, form = self._values(pairs, not preferred), not preferred
            except Exception:
                pass
            else:
                self._form = form
                return values
            raise
        self._form = form
        return values

    def _values(self, pairs: Sequence[Pair], messages: bool) -> list[float | None]:
        said = self._function(**self._arguments(pairs, messages))
        if inspect.iscoroutine(said):
            self._loop = self._loop or asyncio.new_event_loop()
            said = self._loop.run_until_complete(said)
        if hasattr(said, "tolist"):  # an array
            said = said.tolist()
        return [applied(_number(value)) for value in checked_all(said, len(pairs))]

    def _arguments(self, pairs: Sequence[Pair], messages: bool) -> dict[str, Any]:
        prompts, replies = [prompt for prompt, _ in pairs], [reply for _, reply in pairs]
        given: dict[str, Any] = {name: _column(prompts, name) for name in _columns(prompts)}
        given |= BESIDE
        given |= {name: [prompt.gold for prompt in prompts] for name in GOLD if name not in given}
        if messages:
            given["prompts"] = [_turns(prompt) for prompt in prompts]
            given["completions"] = [[{"role": "assistant", "content": reply.text}] for reply in replies]
        else:
            given["prompts"] = [prompt.text for prompt in prompts]
            given["completions"] = [reply.text for reply in replies]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        wanted = {name: one.default for name, one in self._parameters.items() if one.kind in named}
        missing = [name for name, default in wanted.items() if name not in given and default is inspect.Parameter.empty]
        if missing:
            columns = ", ".join(_columns(prompts)) or "none"
            raise RewardFailure(f"it asks for the column `{missing[0]}`; the rows have {columns}")
        return given if self._takes_all else {name: given[name] for name in wanted if name in given}


def _number(value: Any) -> Any:
    """What an array of one number holds."""
    return value.item() if hasattr(value, "item") else value


def _columns(prompts: Sequence[Prompt]) -> list[str]:
    """The columns of any of the rows; those that hold a prompt or a completion are arguments of their own."""
    names = dict.fromkeys(name for prompt in prompts for name in prompt.row)
    return [name for name in names if name not in ("prompt", "completion", "prompts", "completions")]


def _column(prompts: Sequence[Prompt], name: str) -> Sequence[Any]:
    """The column's value in each row; where large values were set aside each is read when it is asked for."""
    aside = any(isinstance(held_of(prompt.row).get(name), Aside) for prompt in prompts)
    return _Aside(prompts, name) if aside else [prompt.row.get(name) for prompt in prompts]


class _Aside(Sequence[Any]):
    def __init__(self, prompts: Sequence[Prompt], name: str):
        self._prompts, self._name = prompts, name

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        return self._prompts[place].row.get(self._name)


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _reads_messages(function: Callable[..., Any]) -> bool:
    """Whether the word "content" stands in the function or in one that it calls of the same file."""
    inner = inspect.unwrap(function)
    if not hasattr(inner, "__code__"):
        inner = type(inner).__call__
    known = getattr(inner, "__globals__", {})
    waiting, seen = [getattr(inner, "__code__", None)], set()
    while waiting:
        code = waiting.pop()
        if not isinstance(code, CodeType) or code in seen:
            continue
        seen.add(code)
        if "content" in code.co_consts:
            return True
        waiting += [*_nested(code), *(getattr(known.get(name), "__code__", None) for name in code.co_names)]
    return False


def _nested(code: CodeType) -> Iterator[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))
