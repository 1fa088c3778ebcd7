"""Chat templates are programs that came with somebody's model: compiled once, sandboxed, limited.

A template is tried in a process of its own first (this file, run as a script, needs only Jinja), where a bomb meets a
limit of processor time and of memory; only then is it compiled here. `render` keeps cheap limits for good: on repeated
text, on powers, on the total length of ranges, on the length of what is written.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE = 1_000_000  # characters; the longest templates in use have some 20,000
MAX_OUTPUT = 2_000_000  # characters written beyond 20 times what the messages hold
MAX_RANGE = 100_000  # items of all ranges of one rendering
TRIAL_CPU_SECONDS = 1.0
TRIAL_MEMORY = 400 * 2**20
DATE = "26 Jul 2024"  # what `strftime_now` says: a prompt must be the same tomorrow (Llama 3's own fallback)

Turn = Mapping[str, str]


class TemplateRefused(Exception):
    """A template that does not compile, or refuses these messages; the text says why."""


class LimitBroken(TemplateRefused, TemplateError):
    """A template that grows past a limit, whatever it is given."""


class _Limited(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where `*` and `**` cannot make something huge."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise LimitBroken("powers are not allowed in a chat template")
        for value, times in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(times, int) and len(value) * times > MAX_RANGE:
                raise LimitBroken(f"a repetition of {len(value) * times:,} items (limit {MAX_RANGE:,})")
        return super().call_binop(context, operator, left, right)


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's words for other trainers; here it only renders."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(source: str, messages: Sequence[Turn], add_generation_prompt: bool, tokens: Mapping[str, str]) -> str:
    """The text of a conversation. `tokens` are the special tokens by role name (`bos_token`, `eos_token`, …).

    >>> render("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    ...        [{"role": "user", "content": "Hi"}], False, {"eos_token": "</s>"})
    'Hi</s>'

    Raises TemplateRefused.
    """
    limit = MAX_OUTPUT + 20 * sum(len(message["content"]) for message in messages)
    parts, length = [], 0
    try:
        for part in compile_template(source).generate(
            messages=messages,
            add_generation_prompt=add_generation_prompt,
            tools=None,
            documents=None,
            range=_range_with_budget(),
            **tokens,
        ):
            length += len(part)
            if length > limit:
                raise LimitBroken(f"it writes more than {limit:,} characters")
            parts.append(part)
    except TemplateRefused:
        raise
    except RecursionError:
        raise LimitBroken("it calls itself without end") from None
    except MemoryError:
        raise LimitBroken("it does not fit in memory") from None
    except Exception as problem:  # whatever somebody's template stumbles over, the user is told in one line
        raise TemplateRefused(f"{problem}" or type(problem).__name__) from None
    return "".join(parts)


@lru_cache(maxsize=64)
def compile_template(source: str) -> Template:
    """The template with the names that chat templates expect. Raises TemplateRefused."""
    if len(source) > MAX_SOURCE:
        raise TemplateRefused(f"it is {len(source):,} characters long (limit {MAX_SOURCE:,})")
    environment = _Limited(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    environment.filters["tojson"] = _tojson
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: DATE
    try:
        return environment.from_string(source)
    except TemplateError as problem:
        line = getattr(problem, "lineno", None)
        raise TemplateRefused(f"line {line}: {problem}" if line else f"{problem}") from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as problem:
        raise TemplateRefused(f"it does not compile: {type(problem).__name__}") from None


def _range_with_budget() -> Callable[..., range]:
    left = [MAX_RANGE]

    def limited_range(*bounds: int) -> range:
        items = range(*bounds)
        left[0] -= len(items)
        if left[0] < 0:
            raise LimitBroken(f"its ranges have more than {MAX_RANGE:,} items")
        return items

    return limited_range


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja's own filter escapes HTML characters, which no chat template means
    if isinstance(indent, int) and indent > 64:
        raise LimitBroken(f"an indent of {indent} characters")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


# ---- the trial, in a process of its own ----------------------------------------------------------------------------

_ASK = {"role": "user", "content": "What is 2 + 2?"}
_REPLY = {"role": "assistant", "content": "<think>\n2 + 2 = 4\n</think>\n\n<answer>4</answer>"}
_SYSTEM = {"role": "system", "content": "You are a careful assistant."}
_TRIALS: tuple[tuple[list[dict[str, str]], bool], ...] = (
    ([_ASK], True),
    ([_ASK, _REPLY], False),
    ([_ASK, _REPLY, _ASK], True),
    ([_SYSTEM, _ASK], True),
    ([_SYSTEM] + [_ASK, _REPLY] * 20 + [_ASK], True),
    ([{"role": "user", "content": "word " * 4000}], True),
)


@lru_cache(maxsize=64)
def try_template(source: str, tokens: tuple[tuple[str, str], ...] = ()) -> str | None:
    """What is wrong with a template that nobody has vouched for, or None: it compiles, ends and stays small.

    >>> try_template("{% for m in messages %}{{ m.content }}{% endfor %}") is None
    True
    >>> try_template("{{ 'a' * 10**9 }}")
    'powers are not allowed in a chat template'
    """
    if len(source) > MAX_SOURCE:
        return f"it is {len(source):,} characters long (limit {MAX_SOURCE:,})"
    request = json.dumps({"source": source, "tokens": dict(tokens)}).encode()
    try:
        child = subprocess.run([sys.executable, "-I", __file__], input=request, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "it does not end"
    if child.returncode == -signal.SIGPROF:
        return f"it takes more than {TRIAL_CPU_SECONDS:g} s of processor time"
    if child.returncode:
        return "it does not fit in memory, or crashes the template engine"
    return json.loads(child.stdout)["refused"]


def _trial() -> None:
    request = json.loads(sys.stdin.buffer.read())
    _limit_this_process()
    try:
        refused = _first_refusal(request["source"], request["tokens"])
    except MemoryError:
        refused = "it does not fit in memory"
    sys.stdout.write(json.dumps({"refused": refused}))


def _first_refusal(source: str, tokens: Mapping[str, str]) -> str | None:
    for position, (turns, opened) in enumerate(_TRIALS):
        try:
            text = render(source, turns, opened, tokens)
        except LimitBroken as refusal:
            return str(refusal)
        except TemplateRefused as refusal:
            if position == 0:  # a template may refuse a system turn or a second turn, but not the plainest question
                return str(refusal)
        else:
            if position == 0 and _ASK["content"] not in text:
                return "it does not write what the user says"
    return None


def _limit_this_process() -> None:
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, TRIAL_CPU_SECONDS)  # its default action ends the process, even inside C code
    for limit, value in ((resource.RLIMIT_AS, TRIAL_MEMORY), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # macOS knows no limit of address space; the limits above still hold
            continue


if __name__ == "__main__":
    _trial()
