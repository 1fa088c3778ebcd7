# ruff: noqa: E501 - programs stand as they are
"""Programs that speak to a test by hand, past what the sandbox put between them, and those that cost the grader."""

from __future__ import annotations

import os
import time

import pytest

from temper.code import Call, Limits, Sandbox, SandboxError, Script, grade_program
from temper.code import Tests as Problem
from temper.code.zygote import Job, Running

# `ask` sends a request of its own to the test's side, `number` is what a test's value is called there.
BY_HAND = """
import json, os
def ask(**message):
    body = json.dumps({"k": "x", "a": [], **message}).encode()
    os.write(3, len(body).to_bytes(4, "big") + body)
    size, got = int.from_bytes(os.read(3, 4), "big"), b""
    while len(got) < size:
        got += os.read(3, size - len(got))
    return json.loads(got)
def number(value):
    return object.__getattribute__(value, "_number")
def get(value, name):
    answer = ask(do="get", of=number(value), name=name)
    if "v" not in answer:
        raise ValueError(answer)
    return answer["v"]
"""
TEST = """
class Box:
    def __init__(self): self.value = 0
    def total(self): return self.value
def rows():
    yield 1
def given(x): return x
secret = 4711
box = Box()
f(box, rows(), given)
assert box.value == 1
assert box.total() == 4711 - 4710
assert g(1) == secret
"""
FORGED = {
    "a function's names": "def f(box, rows, given): get(given, '__globals__')",
    "a function's code": "def f(box, rows, given): get(given, '__code__')",
    "a class's module": "def f(box, rows, given): get(box, '__class__')",
    "a class's functions": "def f(box, rows, given): get(box, '__init__')",
    "a generator's frame": "def f(box, rows, given): get(rows, 'gi_frame')",
    "another total": "def f(box, rows, given): ask(do='set', of=number(box), name='total', a=[1]); box.total = lambda: 1",
    "another class": "def f(box, rows, given): ask(do='set', of=number(box), name='__class__', a=[{'h': number(box)}])['v']",
    "a number that nobody gave": "def f(box, rows, given): ask(do='get', of=1, name='x')['v']",
    "an unknown request": "def f(box, rows, given): ask(do='eval', of=number(box), name='1')['v']",
    "an answer that nobody asked for": 'import os\ndef f(box, rows, given): os.write(3, b\'\\0\\0\\0\\x15{"k": "0", "v": 4711}\')',
    "changes to what was not given": (
        "import json, os, __main__\ndef f(box, rows, given):\n    box.value = 1\n"
        "def g(x):\n    body = json.dumps({'k': '', 'v': 4711, 'c': [[5, 1]]}).encode()\n    os.write(3, len(body).to_bytes(4, 'big') + body)"
    ),
    "a length without end": "import os\ndef f(box, rows, given): os.write(3, b'\\xff\\xff\\xff\\xff')",
    "closes the line": "import os\ndef f(box, rows, given): os.close(3)",
    "an exception that is none": "import os\ndef f(box, rows, given):\n    class X(BaseException): pass\n    raise X",
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_said_by_hand_is_no_pass(sandbox, name):
    program = f"{BY_HAND}\n{FORGED[name].replace('given): ', 'given):' + chr(10) + '    ')}"
    if "def g(" not in program:
        program += "\n    box.value = 1\ndef g(x): return 4711"  # right but for the forgery
    graded = grade_program(program, Problem((Script(TEST, ("f", "g")),), Limits(1, 2)), sandbox=sandbox)
    assert graded.verdict not in ("passed", "infrastructure"), graded


def test_what_a_test_gives_may_be_used_as_it_is_meant(sandbox):
    program = "def f(box, rows, given):\n    box.value = given(next(iter(rows)))\n    assert box.total() == 1\ndef g(x): return 4711"
    graded = grade_program(program, Problem((Script(TEST, ("f", "g")),)), sandbox=sandbox)
    assert graded.verdict == "passed", graded


@pytest.mark.parametrize("expected", ["Exception", "(Exception, SystemExit)", "BaseException"])
@pytest.mark.parametrize("body", ["os._exit(0)", "sys.exit()", "os.close(3)", "os.kill(os.getpid(), 9)"])
def test_an_end_is_no_exception_that_a_test_awaits(sandbox, expected, body):
    script = f"import pytest\nwith pytest.raises({expected}):\n    f(1)"
    program = f"import os, sys\ndef f(x):\n    {body}"
    graded = grade_program(program, Problem((Script(script, ("f",)),), Limits(1, 2)), sandbox=sandbox)
    assert graded.verdict not in ("passed", "infrastructure")


AWAITED = {
    "an assertion": ("AssertionError", "def f(x): assert x > 1"),
    "a class of the program's": ("Missing", "class Missing(KeyError): pass\ndef f(x): raise Missing(x)"),
    "a base of it": ("Low", "class Low(Exception): pass\nclass Lower(Low): pass\ndef f(x): raise Lower('x')"),
    "one that takes five values": ("UnicodeDecodeError", "def f(x): b'\\xff'.decode()"),
}


@pytest.mark.parametrize("name", AWAITED)
def test_exceptions_that_a_test_awaits(sandbox, name):
    kind, program = AWAITED[name]
    script = f"import pytest\nwith pytest.raises({kind}):\n    f(1)"
    graded = grade_program(program, Problem((Script(script, ("f",)),)), sandbox=sandbox)
    assert graded.verdict == "passed", graded
    other = "class Low(Exception): pass\nclass Missing(Low): pass\ndef f(x): raise ValueError(x)"
    assert grade_program(other, Problem((Script(script, ("f",)),)), sandbox=sandbox).verdict != "passed"


ANSWER = """
import json, os
def f(x):
    items = [{{"i": hex(k * (2 ** 61 - 1))}} for k in range(1, 40000)]
    body = json.dumps({{"k": "1", "v": {value}}}).encode()
    left = len(body).to_bytes(4, "big") + body
    while left: left = left[os.write(3, left):]
"""
COSTLY = {
    "keys that collide": ANSWER.format(value='{"d": [[item, 0] for item in items]}'),
    "items that collide": ANSWER.format(value='{"s": items}'),
    "keys of items that collide": ANSWER.format(value='{"d": [[{"f": items}, 0]]}'),
    "a fraction": "from fractions import Fraction\ndef f(x):\n    a = Fraction(1, 3)\n    a._numerator, a._denominator = 3 ** 600000, 2 ** 900001\n    return a",
    "a large integer": "def f(x): return 1 << 10_000_000",
    "a range": "def f(x): return range(10 ** 12)",
    "a decimal": "from decimal import Decimal\ndef f(x): return Decimal('1e999999999')",
    "a float": "def f(x): return 10 ** 400",
}


@pytest.mark.parametrize("name", COSTLY)
def test_an_answer_costs_the_grader_no_more_than_its_length(sandbox, name):
    problem = Problem((Call("f", (1,), 1.5),), Limits(5, 15), tolerance=1e-6)
    began = time.process_time()
    graded = grade_program(COSTLY[name], problem, sandbox=sandbox)
    assert graded.verdict in ("wrong", "output_limit", "timeout"), graded
    assert time.process_time() - began < 1.5


def test_a_host_with_many_descriptors_gives_none_of_them():
    before = [os.open(os.devnull, os.O_RDONLY) for _ in range(300)]
    try:
        with Sandbox(1) as sandbox:
            program = "import os\nfor n in range(1024):\n    try: os.fstat(n); print(n)\n    except OSError: pass"
            assert sandbox.run(program).stdout.split() == [b"0", b"1", b"2"]
    except SandboxError as error:
        pytest.skip(str(error))
    finally:
        for number in before:
            os.close(number)


def test_threads_that_the_kernel_pays_for_are_few(sandbox):
    program = """
import ctypes, time
libc = ctypes.CDLL(None)
function, stacks = ctypes.cast(libc.sleep, ctypes.c_void_p), ctypes.create_string_buffer(100 << 20)
for n in range(1, 20000):
    top = (ctypes.addressof(stacks) + n * 4096) & ~15
    if libc.clone(function, ctypes.c_void_p(top), 0x10F00, ctypes.c_void_p(1000)) < 0:
        break
print("all of them", flush=True)
"""
    ran = sandbox.run(program, b"", Limits(2))
    assert ran.verdict not in ("", "infrastructure")
    assert b"all" not in ran.stdout


def test_who_ignores_the_end_of_its_time_ran_out_of_it():
    running = Running(Job(limits=Limits(1)), 1, 0.0)
    running.done = {"status": -9, "cpu": 2.0, "late": False, "memory": 0, "ready": "+"}
    assert running.outcome().verdict == "timeout"
    running.done["cpu"] = 0.2
    assert running.outcome().verdict == "runtime_error"
