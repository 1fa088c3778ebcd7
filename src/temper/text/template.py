"""Chat templates are programs that came with somebody's model: compiled once, sandboxed, limited.

A template is tried in a process of its own first (this file, run as a script, needs only Jinja), where a bomb meets a
limit of processor time and of memory; only then is it compiled here. `render` keeps cheap limits for good: on repeated
text, on powers, on the total length of ranges, on the length of what is written.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
# What `strftime_now` formats: a prompt must be the same tomorrow (the day of Llama 3's own fallback). A run records it.
DATE = datetime(2024, 7, 26)

Turn = Mapping[str, str]


class TemplateRefused(Exception):
    """A template that does not compile, or refuses these messages; the text says why."""


@dataclass(frozen=True)
class Refusal:
    """Why a template is not used. `misfit`: it runs, but what it writes cannot be a prompt or a conversation."""

    why: str
    misfit: bool = False


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


def render(
    source: str,
    messages: Sequence[Turn],
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
    now: datetime = DATE,
) -> str:
    """The text of a conversation. `tokens` are the special tokens by role name (`bos_token`, `eos_token`, …), `now` is
    what a template that asks for the time is told.

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
            strftime_now=now.strftime,
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
    del environment.filters["random"]  # a prompt is the same each time
    environment.globals["raise_exception"] = _raise_exception
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

_WORDS = {
    "system": "You are a careful assistant ({}).",
    "user": "Question {}: what is 2 + 2?",
    "assistant": "Reply {}: it is 4.",
}
_LATER = DATE.replace(hour=13, minute=37, second=42, microsecond=123456)  # another time of the same day
_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")
_SHOWN = 160  # characters of what a template wrote


def _turns(roles: str) -> list[dict[str, str]]:
    """A conversation whose every turn has words of its own; `roles` are initials."""
    names = {name[0]: name for name in _WORDS}
    return [{"role": names[r], "content": _WORDS[names[r]].format(i + 1)} for i, r in enumerate(roles)]


_THOUGHT = {"role": "assistant", "content": "<think>\n2 + 2 = 4\n</think>\n\n<answer>4</answer>"}
_LONG = {"role": "user", "content": "First words. " + "word " * 4000 + "Last words."}
_TRIALS: tuple[tuple[list[dict[str, str]], bool], ...] = (
    (_turns("u"), True),
    (_turns("ua"), False),
    ([*_turns("u"), _THOUGHT], False),
    (_turns("uau"), True),
    ([*_turns("u"), _THOUGHT, *_turns("u")], True),
    (_turns("su"), True),
    (_turns("s" + "ua" * 20 + "u"), True),
    ([_LONG], True),
)


@lru_cache(maxsize=64)
def try_template(source: str, tokens: tuple[tuple[str, str], ...] = ()) -> Refusal | None:
    """What is wrong with a template that nobody has vouched for, or None: it compiles, ends and stays small, writes the
    same each time, and writes each turn of the user and of the assistant, once and in order.

    >>> try_template("{% for m in messages %}{{ m.content }}{% endfor %}") is None
    True
    >>> try_template("{{ 'a' * 10**9 }}").why
    'powers are not allowed in a chat template'
    >>> print(try_template("{{ messages[-1].content }}").why)
    of a conversation of 2 turns it leaves out turn 1, the user's: it writes "Reply 2: it is 4."
    """
    if len(source) > MAX_SOURCE:
        return Refusal(f"it is {len(source):,} characters long (limit {MAX_SOURCE:,})")
    request = json.dumps({"source": source, "tokens": dict(tokens)}).encode()
    try:
        child = subprocess.run([sys.executable, "-I", __file__], input=request, capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return Refusal("it does not end")
    if child.returncode == -signal.SIGPROF:
        return Refusal(f"it takes more than {TRIAL_CPU_SECONDS:g} s of processor time")
    if child.returncode:
        return Refusal("it does not fit in memory, or crashes the template engine")
    refused = json.loads(child.stdout)
    return None if refused is None else Refusal(**refused)


def _trial() -> None:
    request = json.loads(sys.stdin.buffer.read())
    _limit_this_process()
    try:
        refused = _first_refusal(request["source"], request["tokens"])
    except MemoryError:
        refused = Refusal("it does not fit in memory")
    sys.stdout.write(json.dumps(None if refused is None else vars(refused)))


def _first_refusal(source: str, tokens: Mapping[str, str]) -> Refusal | None:
    misfit, alone = None, {}
    for position, (turns, opened) in enumerate(_TRIALS):
        try:
            text = render(source, turns, opened, tokens)
        except LimitBroken as refusal:
            return Refusal(str(refusal))
        except TemplateRefused as refusal:
            if position == 0:  # a template may refuse a system turn or a second turn, but not the plainest question
                return Refusal(str(refusal))
        else:
            misfit = misfit or _unsteady(text, render(source, turns, opened, tokens, _LATER)) or _misread(turns, text)
            alone.setdefault(position, text)
    misfit = misfit or (_ends_unlike(alone[0], alone[1]) if 1 in alone else None)
    return None if misfit is None else Refusal(misfit, misfit=True)


def _ends_unlike(asked: str, answered: str) -> str | None:
    """What is wrong with how a reply begins: behind a question as it is asked, and where the reply stands in the text.
    Either may go on beyond the other, with a thought that is opened or an empty one."""
    question, reply = (_turns("ua")[i]["content"] for i in (0, 1))
    behind = asked.rpartition(question)[2]
    before = answered.partition(question)[2].partition(reply)[0]
    one, other = ("".join(text.split()) for text in (behind, before))
    if one.startswith(other) or other.startswith(one):
        return None
    asks, begins = _clip(behind, _SHOWN), _clip(before, _SHOWN)
    return f"a reply is asked for with {asks}, but where it stands it begins with {begins}"


def _unsteady(text: str, again: str) -> str | None:
    """What is wrong with two renderings of one conversation at two times of a day, of which there should be one."""
    if found := _ADDRESS.search(text):
        return f"it writes an address in memory, which is another each time: {_clip(text[found.start() - 30 :], 60)}"
    if text == again:
        return None
    differs = next((i for i, (a, b) in enumerate(zip(text, again, strict=False)) if a != b), 0)
    first, second = (_clip(one[max(0, differs - 10) :], 30) for one in (text, again))
    return f"it writes a clock: the same conversation, rendered twice on one day, reads {first} and then {second}"


def _misread(turns: Sequence[Turn], text: str) -> str | None:
    """What is wrong with the turns as they stand in a rendering. A reply's thinking may be left out, a system turn be
    put anywhere."""
    last = -1
    for number, turn in enumerate(turns, start=1):
        said = turn["content"].rpartition("</think>")[2].strip()
        if turn["role"] == "system":
            continue
        of = f"of a conversation of {len(turns)} turn{'s' * (len(turns) > 1)} it"
        named, wrote = f"turn {number}, the {turn['role']}'s", f": it writes {_clip(text, _SHOWN)}"
        place = text.find(said, last + 1)
        if place < 0:
            moved = said in text
            return f"{of} {'puts' if moved else 'leaves out'} {named}{', before an earlier one' * moved}{wrote}"
        if text.count(said) > [one["content"] for one in turns].count(turn["content"]):
            return f"{of} writes {named}, more than once{wrote}"
        last = place
    return None


def _clip(text: str, length: int) -> str:
    return json.dumps(text if len(text) <= length else text[: length - 1] + "…", ensure_ascii=False)


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
