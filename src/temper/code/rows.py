"""The tests in a row of data, whatever shape people gave them.

| columns | found in |
|---|---|
| `tests`, `test_cases`: a list of `{input, output}`, `{inputs: [], outputs: []}`, either as JSON text | rLLM, PRIME |
| `input_output` (`fn_name` inside for calls) | APPS, TACO |
| `public_test_cases`, `private_test_cases` (`testtype`, `metadata.func_name`) | LiveCodeBench |
| `official_tests`, `examples`, `time_limit`, `memory_limit` | Codeforces |
| `verification_info`, `reward_model.ground_truth` with any of these inside | open-r1, verl |
| `test` + `entry_point` (the reply continues `prompt`) | HumanEval(+) |
| `test_list`, `test_setup_code` or `test_imports` | MBPP(+) |
| `test` with functions `test_*` of what it imports from `solution` | KodCode |
| `{functional: "def check…"}`, lines of asserts | LeetCode |
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import pickle
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from temper.code.limits import DEFAULTS, Limits
from temper.code.tests import Call, Case, Language, Script, Stdin, Tests, called, fixtures_missing, from_solution

CONTAINERS = (
    "tests", "test_cases", "input_output", "official_tests", "verification_info", "reward_model", "ground_truth",
    "unit_tests", "testcases", "testcase", "in_outs",
)  # fmt: skip
SOLUTIONS = (
    "solutions", "solution", "canonical_solution", "reference_solution", "gold_standard_solution", "code",
    "solution_code", "gold_solution", "completion",
)  # fmt: skip
# Columns that say something of the tests, or of how a program is run
READ = {
    *CONTAINERS, *SOLUTIONS, "public_test_cases", "private_test_cases", "metadata", "examples", "entry_point",
    "fn_name",
    "func_name", "test", "test_list", "test_setup_code", "test_imports", "time_limit", "timeout", "time_limit_s",
    "time_limit_ms", "memory_limit", "memory_limit_mb", "tolerance", "language", "lang", "checker", "generated_checker",
    "checker_code", "special_judge", "interaction_format", "interactor",
}  # fmt: skip
LARGEST = 1 << 28  # bytes of tests in one row, unpacked
_LANGUAGES: dict[str, Language] = {
    "python": "python", "python3": "python", "py": "python", "cpp": "cpp", "c++": "cpp", "c++17": "cpp", "cpp17": "cpp",
}  # fmt: skip


class NoTests(ValueError):
    """Why a row has no tests that can be run."""


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests of a row, with its own limits, tolerance and language. Raises NoTests with the reason.

    >>> read_tests({"problem": "Add.", "tests": [{"input": "1 2", "output": "3"}]}).cases
    (Stdin(input='1 2', output='3'),)
    >>> read_tests({"test_list": ["assert add(1, 2) == 3"]}).cases
    (Script(source='assert add(1, 2) == 3', bound=('add',)),)
    >>> read_tests({"tests": []})
    Traceback (most recent call last):
        ...
    temper.code.rows.NoTests: `tests` is empty
    """
    _refuse_what_needs_more(row)
    tests = _found(row)
    if not tests.cases:
        raise NoTests("it has no test")
    tolerance = row.get("tolerance")
    tolerance = float(tolerance) if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool) else None
    language = _LANGUAGES.get(str(row.get("language") or row.get("lang") or "").lower(), tests.language)
    if language == "cpp" and any(not isinstance(case, Stdin) for case in tests.cases):
        raise NoTests("tests of C++ programs must be inputs and outputs")
    return replace(tests, limits=limits_of(row), tolerance=tolerance, language=language)


def _refuse_what_needs_more(row: Mapping[str, Any]) -> None:
    for name in ("checker", "generated_checker", "checker_code", "special_judge"):
        if row.get(name) not in (None, "", False):
            raise NoTests(f"`{name}`: a checker program of the problem's own is not run yet")
    for name in ("interaction_format", "interactor"):
        if row.get(name) not in (None, "", False):
            raise NoTests(f"`{name}`: interactive problems cannot be tested")


def _found(row: Mapping[str, Any]) -> Tests:
    if row.get("public_test_cases") or row.get("private_test_cases"):
        return _live(row)
    test, entry = row.get("test"), row.get("entry_point")
    if row.get("test_list"):
        lines = _lines(row)
        if isinstance(test, str) and "assert" in test:  # MBPP+: the lines, and a script of many more
            return Tests((*lines.cases, *_script(test, "", "").cases))
        return lines
    if isinstance(test, str) and test.strip():
        return _script(test, entry if isinstance(entry, str) else "", _starter(row, entry))
    name = _name_of(row)
    for column in CONTAINERS:
        if column in row and row[column] is not None:
            cases = _cases(opened(row[column]), name, f"`{column}`")
            shown = (
                _cases(opened(row["examples"]), name, "`examples`")
                if column == "official_tests" and row.get("examples")
                else ()
            )
            return Tests((*shown, *cases), public=len(shown))
    empty = next((column for column in CONTAINERS if column in row), None)
    if empty:
        raise NoTests(f"`{empty}` is null")
    raise NoTests("no column of tests (`tests`, `test_cases`, `input_output`, `test_list`, `test`)")


def _name_of(row: Mapping[str, Any]) -> str:
    name = row.get("fn_name") or row.get("func_name") or row.get("entry_point") or ""
    metadata = opened(row.get("metadata"))
    if not name and isinstance(metadata, Mapping):
        name = metadata.get("fn_name") or metadata.get("func_name") or ""
    return name if isinstance(name, str) else ""


def opened(value: Any) -> Any:
    """A value that may be written as JSON text, or packed as LiveCodeBench packs it."""
    if not isinstance(value, str) or not value.strip():
        return value
    if value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return value
    packed = _unpacked(value) if len(value) > 16 and re.fullmatch(r"[A-Za-z0-9+/=\s]+", value[:200]) else None
    return value if packed is None else opened(packed)


def _unpacked(value: str) -> str | None:
    """Base64, zlib and a pickle of one string: read so that nothing but that can come out."""
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(value, validate=False), LARGEST)
        if unzip.unconsumed_tail:
            raise NoTests(f"its tests are larger than {LARGEST >> 20} MB")
        found = _Strings(io.BytesIO(data)).load()
    except NoTests:
        raise
    except Exception:
        return None
    return found if isinstance(found, str) else None


class _Strings(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError("only a string is read")


def _cases(value: Any, name: str, where: str) -> tuple[Case, ...]:
    """The tests in a container of any of the shapes."""
    if isinstance(value, str):
        if "assert" in value:
            return (_asserts(value, where),)
        raise NoTests(f"{where} is text that is neither JSON nor a script of asserts")
    if isinstance(value, Mapping):
        return _cases_of_mapping(value, name, where)
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise NoTests(f"{where} is no list of tests ({type(value).__name__})")
    if not value:
        raise NoTests(f"{where} is empty")
    return tuple(case for number, item in enumerate(value, 1) for case in _case(item, name, f"{where}, test {number}"))


def _cases_of_mapping(value: Mapping[str, Any], name: str, where: str) -> tuple[Case, ...]:
    own = value.get("fn_name") or value.get("func_name") or name
    name = own if isinstance(own, str) else name
    functional = value.get("functional")
    if isinstance(functional, str) and functional.strip():
        return (_asserts(functional, where),)
    for inside in ("ground_truth", "test_cases", "tests"):
        if value.get(inside) is not None:
            return _cases(opened(value[inside]), name, f"{where}.{inside}")
    if "inputs" in value or "outputs" in value:
        inputs, outputs = opened(value.get("inputs")), opened(value.get("outputs"))
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise NoTests(f"{where}: `inputs` and `outputs` are not both lists")
        if len(inputs) != len(outputs):
            raise NoTests(f"{where}: {len(inputs)} inputs, {len(outputs)} outputs")
        if not inputs:
            raise NoTests(f"{where} is empty")
        wrapped = bool(name) and all(isinstance(output, list) and len(output) == 1 for output in outputs)
        return tuple(_pair(i, o, name, where, wrapped) for i, o in zip(inputs, outputs, strict=True))
    return tuple(_case(value, name, where))


def _case(item: Any, name: str, where: str) -> list[Case]:
    if isinstance(item, str):
        return [_asserts(item, where)]
    if not isinstance(item, Mapping):
        raise NoTests(f"{where} is no test ({type(item).__name__})")
    own = item.get("fn_name") or item.get("func_name") or name
    kind = str(item.get("testtype") or item.get("type") or "").lower()
    if kind.startswith(("stdin", "std_in")):
        own = ""
    given = next((item[key] for key in ("input", "inputs", "stdin") if key in item), None)
    wanted = next((item[key] for key in ("output", "outputs", "expected_output", "stdout") if key in item), None)
    if given is None and wanted is None:
        script = next((item[key] for key in ("assert", "assertion", "test", "functional", "code") if key in item), None)
        if isinstance(script, str):
            return [_asserts(script, where)]
    if wanted is None:
        raise NoTests(f"{where} has no `output`")
    if kind == "functional" and not own:
        raise NoTests(f"{where} calls a function, and nothing says which (`fn_name`)")
    return [_pair(given, wanted, own if isinstance(own, str) else "", where)]


def _pair(given: Any, wanted: Any, name: str, where: str, wrapped: bool = False) -> Case:
    if not name:
        return Stdin(_text(given, where), _text(wanted, where))
    if isinstance(given, str):  # one argument a line, each JSON
        try:
            arguments = [json.loads(line) for line in given.split("\n") if line.strip()]
        except ValueError:
            raise NoTests(f"{where}: an argument is no JSON") from None
    else:
        arguments = given if isinstance(given, list) else [] if given is None else [given]
    if isinstance(wanted, str) and isinstance(given, str):
        with contextlib.suppress(ValueError):
            wanted = json.loads(wanted)
    return Call(name, tuple(arguments), wanted, wrapped=wrapped)


def _text(value: Any, where: str) -> str:
    """Text for standard input or output: lists are lines, numbers as they are written."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(_text(item, where) for item in value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise NoTests(f"{where}: an input or output is {type(value).__name__}, not text")


def _asserts(source: str, where: str) -> Script:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise NoTests(f"{where} is no Python: {problem}") from None
    if not re.search(r"\bassert|\braises\b|self\.assert", source):
        raise NoTests(f"{where} asserts nothing")
    if missing := fixtures_missing(source):
        raise NoTests(f"{where} asks for pytest's `{missing[0]}`, which is not to be had in the sandbox")
    imported = from_solution(source)
    return Script(source, imported or called(source))


def _script(test: str, entry: str, starter: str) -> Tests:
    source = test
    if entry and re.search(r"def\s+check\s*\(", test) and not re.search(r"^check\s*\(", test, re.MULTILINE):
        source = f"{test.rstrip()}\n\ncheck({entry})\n"
    script = _asserts(source, "`test`")
    names = [entry.split("(")[0].split(".")[0], *script.bound] if entry else list(script.bound)
    bound = tuple(dict.fromkeys(names))
    return Tests((Script(source, bound),), starter=starter, entry=entry)


def _starter(row: Mapping[str, Any], entry: Any) -> str:
    """What the reply continues: HumanEval's prompt, which is the beginning of a program."""
    prompt = row.get("prompt")
    if not isinstance(entry, str) or not isinstance(prompt, str) or f"def {entry}" not in prompt:
        return ""
    try:
        ast.parse(prompt + "\n    pass\n")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return prompt


def _lines(row: Mapping[str, Any]) -> Tests:
    """MBPP: each line of asserts is a test, after what all of them need."""
    lines = opened(row["test_list"])
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise NoTests("`test_list` is no list of lines")
    setup = [row.get("test_setup_code"), *(row.get("test_imports") or [])]
    before = "".join(f"{text}\n" for text in setup if isinstance(text, str) and text.strip())
    return Tests(tuple(_asserts(before + line, "`test_list`") for line in lines))


def _live(row: Mapping[str, Any]) -> Tests:
    name = _name_of(row)
    parts = []
    for column in ("public_test_cases", "private_test_cases"):
        value = opened(row.get(column))
        parts.append(_cases(value, name, f"`{column}`") if value else ())
    return Tests((*parts[0], *parts[1]), public=len(parts[0]))


def limits_of(row: Mapping[str, Any]) -> Limits:
    """The row's own limits of time and memory, where it gives them; never less than the defaults' half second more.

    >>> limits_of({"time_limit": "1.5 seconds", "memory_limit": "256 megabytes"})
    Limits(seconds=1.5, wall=None, memory=536870912, output=4194304)
    """
    seconds = _number(row, ("time_limit", "timeout", "time_limit_s"))
    seconds = _number(row, ("time_limit_ms",), 1000) if seconds is None else seconds
    memory = _number(row, ("memory_limit", "memory_limit_mb"))
    if memory is not None and memory >= 1 << 20:  # bytes
        memory /= 1 << 20
    limits = DEFAULTS if seconds is None or not 0 < seconds <= 60 else replace(DEFAULTS, seconds=max(1.0, seconds))
    if memory is not None and memory > 256:  # an interpreter needs some before the program has any
        limits = replace(limits, memory=min(4 << 30, max(limits.memory, int(memory + 256) << 20)))
    return limits


def _number(row: Mapping[str, Any], names: Sequence[str], divide: float = 1.0) -> float | None:
    for name in names:
        value = row.get(name)
        match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|milli)?", str(value)) if value is not None else None
        if match and not isinstance(value, bool):
            return float(match.group(1)) / (1000.0 if match.group(2) else divide)
    return None


def solutions_of(row: Mapping[str, Any]) -> list[str]:
    """The reference programs of a row: text, or a list of texts (as JSON too), fences taken off.

    >>> solutions_of({"solutions": '["print(1)", "print(2)"]'})
    ['print(1)', 'print(2)']
    """
    from temper.code.extract import extract

    for column in SOLUTIONS:
        value = opened(row.get(column))
        if isinstance(value, Mapping):
            value = value.get("solution") or value.get("code")
        every = value if isinstance(value, list) else [value]
        texts = [item.get("code") if isinstance(item, Mapping) else item for item in every]
        found = [text for text in texts if isinstance(text, str) and text.strip()]
        if found:
            return [(extract(text) or extract(text, "cpp") or text) if "```" in text else text for text in found]
    return []
