# ruff: noqa: E501 - programs stand as they are
"""Right programs in the ways people write them, each with the row that its kind of data set has: every one passes."""

from __future__ import annotations

import importlib.util

import pytest

from temper.code import Call, Script, grade_program
from temper.code import Tests as Problem
from temper.code.rows import NoTests, read_tests

NODES = "def of(values):\n    head = None\n    for value in reversed(values): head = ListNode(value, head)\n    return head\ndef values(node):\n    found = []\n    while node: found.append(node.val); node = node.next\n    return found\n"
STDIN = {  # program, input, output
    "exit and quit": ("n = int(input())\nprint(n)\nif n: exit()\nquit()", "1", "1"),
    "a larger stack than there is memory": ("import sys, threading\nthreading.stack_size(512 * 1024 * 1024)\nsys.setrecursionlimit(10 ** 9)\nthreading.Thread(target=lambda: print(int(input()) + 1)).start()", "6", "7"),
    "a stack without limit": ("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\nprint(input())", "6", "6"),
    "devices": ("with open('/dev/stdout', 'w') as out: out.write(open('/dev/stdin').read())", "6", "6"),
}  # fmt: skip
SCRIPTS = {  # program, script
    "a builtin's name": ("def sum(a, b): return a + b", "assert sum(1, 2) == 3"),
    "a library's name": ("def gcd(a, b): return a if not b else gcd(b, a % b)", "assert gcd(12, 18) == 6"),
    "lists": ("class Solution:\n    def rev(self, head):\n        last = None\n        while head: head.next, last, head = last, head, head.next\n        return last", NODES + "assert values(Solution().rev(of([1, 2, 3]))) == [3, 2, 1]"),
    "nodes of an own class": ("class ListNode:\n    def __init__(self, x): self.val, self.next = x, None\ndef last(n):\n    while n.next: n = n.next\n    return n", "n = ListNode(1)\nn.next = ListNode(2)\nassert last(n).val == 2"),
    "lists that share nodes": ("def meet(a, b):\n    p, q = a, b\n    while p is not q: p, q = p.next if p else b, q.next if q else a\n    return p", NODES + "c = of([8, 4])\na, b = ListNode(1, c), ListNode(5, ListNode(6, c))\nassert meet(a, b) is c"),
    "a cycle": ("def cycles(head):\n    slow = fast = head\n    while fast and fast.next:\n        slow, fast = slow.next, fast.next.next\n        if slow is fast: return True\n    return False", "a = ListNode(1, ListNode(2))\na.next.next = a\nassert cycles(a) is True and cycles(ListNode(1)) is False"),
    "a list changed in place": ("def double(head):\n    while head: head.val *= 2; head = head.next", NODES + "a = of([1, 2])\ndouble(a)\nassert values(a) == [2, 4]"),
    "a cache that is a dict": ("class LRUCache(OrderedDict):\n    def __init__(self, size): super().__init__(); self.size = size\n    def read(self, k):\n        if k not in self: return -1\n        self.move_to_end(k)\n        return self[k]\n    def put(self, k, v):\n        self[k] = v\n        if len(self) > self.size: self.popitem(last=False)", "c = LRUCache(2)\nc.put(1, 1); c.put(2, 2)\nassert c.read(1) == 1\nc.put(3, 3)\nassert c.read(2) == -1 and len(c) == 2 and c == {1: 1, 3: 3}"),
    "a stack that is a list": ("class Stack(list):\n    def push(self, x): self.append(x)", "s = Stack()\ns.push(1)\nassert s == [1] and s.pop() == 1 and len(s) == 0"),
    "named tuples": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f() == (1, 2) and f().y == 2"),
    "dates": ("import datetime\ndef after(d): return d + datetime.timedelta(1)", "import datetime\nassert after(datetime.date(2020, 2, 28)) == datetime.date(2020, 2, 29)"),
    "operators": ("class V:\n    def __init__(s, x, y): s.x, s.y = x, y\n    def __add__(s, o): return V(s.x + o.x, s.y + o.y)\n    def __mul__(s, k): return V(s.x * k, s.y * k)\n    __rmul__ = __mul__\n    def __eq__(s, o): return (s.x, s.y) == (o.x, o.y)\n    def __abs__(s): return (s.x ** 2 + s.y ** 2) ** .5\n    def __lt__(s, o): return abs(s) < abs(o)\n    def __hash__(s): return hash((s.x, s.y))\n    def __str__(s): return f'<{s.x}, {s.y}>'", "v = V(1, 2) + V(2, 2)\nassert v == V(3, 4) and v != V(4, 3) and 2 * v == v * 2\nassert abs(v) == 5 and V(0, 1) < v and str(v) == '<3, 4>'\nassert sorted([v, V(0, 1)])[0] == V(0, 1) and len({V(1, 1), V(1, 1)}) == 1"),
    "items": ("class M:\n    def __init__(s): s.d = {}\n    def __setitem__(s, k, v): s.d[k] = v\n    def __getitem__(s, k): return s.d[k]\n    def __delitem__(s, k): del s.d[k]\n    def __contains__(s, k): return k in s.d", "m = M()\nm['a'] = 1\nassert m['a'] == 1 and 'a' in m\ndel m['a']\nassert 'a' not in m"),
    "with": ("class T:\n    def __enter__(s): s.n = 1; return s\n    def __exit__(s, *a): s.n = 2", "with T() as t:\n    assert t.n == 1\nassert t.n == 2"),
    "classes of it": ("class A: pass\nclass B(A): pass\ndef make(): return B()", "assert isinstance(make(), A) and issubclass(B, A) and not isinstance(A(), B)"),
    "coroutines": ("import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    "a decorator": ("import functools\ndef memo(f):\n    known = {}\n    @functools.wraps(f)\n    def g(x):\n        if x not in known: known[x] = f(x)\n        return known[x]\n    return g", "calls = []\n@memo\ndef twice(x):\n    calls.append(x)\n    return 2 * x\nassert twice(2) == twice(2) == 4 and calls == [2] and twice.__name__ == 'twice'"),
}  # fmt: skip
SUITES = {
    "what is set up": ("class Q:\n    def __init__(s): s.a = []", "class TestQ:\n    def setup_method(self): self.q = Q()\n    def test_it(self): assert self.q.a == []"),
    "fixtures": ("class Q:\n    def __init__(s): s.a = []", "import pytest\n@pytest.fixture\ndef q():\n    yield Q()\n@pytest.fixture(autouse=True)\ndef before(): pass\ndef test_it(q): assert q.a == []"),
    "marks": ("def f(x): return x", "import pytest\n@pytest.mark.skip(reason='slow')\ndef test_no(): assert False\n@pytest.mark.slow\n@pytest.mark.parametrize(('x',), [(1,), pytest.param(2, id='b')])\ndef test_it(x): assert f(x) == x"),
    "what is printed": ("def f(): print('hello')", "from solution import f\ndef test_it(capsys):\n    f()\n    assert capsys.readouterr().out == 'hello\\n'"),
    "awaits": ("async def f(): return 1", "from solution import f\nasync def test_it(): assert await f() == 1"),
    "a module": ("def f(): return 1", "import solution\ndef test_it(): assert solution.f() == 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", STDIN)
def test_programs_of_input_and_output(sandbox, name):
    program, given, expected = STDIN[name]
    graded = grade_program(program, read_tests({"tests": [{"input": given, "output": expected}]}), sandbox=sandbox)
    assert graded.verdict == "passed", graded.failing


@pytest.mark.parametrize("name", [*SCRIPTS, *SUITES])
def test_programs_that_scripts_call(sandbox, name):
    program, script = {**SCRIPTS, **SUITES}[name]
    tests = read_tests({"test": script} if name in SUITES else {"tests": script})
    graded = grade_program(program, tests, sandbox=sandbox)
    assert graded.verdict == "passed", graded.failing
    without = grade_program("class Solution: pass", tests, sandbox=sandbox)
    assert without.verdict not in ("passed", "infrastructure")


@pytest.mark.skipif(not importlib.util.find_spec("sortedcontainers"), reason="sortedcontainers is not installed")
def test_sorted_containers_are_there_where_they_are_installed(sandbox):
    program = "from sortedcontainers import SortedList\ndef f(a): return SortedList(a)[0]"
    assert grade_program(program, Problem((Call("f", ([3, 1],), 1),)), sandbox=sandbox).verdict == "passed"


@pytest.mark.skipif(not importlib.util.find_spec("numpy"), reason="numpy is not installed")
def test_arrays_cross_as_arrays(sandbox):
    script = Script("import numpy as np\nassert f(np.array([1, 2])).shape == (2,)", ("f",))
    program = "import numpy as np\ndef f(a): return a.cumsum()"
    assert grade_program(program, Problem((script,)), sandbox=sandbox).verdict == "passed"


def test_a_fixture_that_nobody_gives_is_told_of_at_once():
    with pytest.raises(NoTests, match="`tmp_path`"):
        read_tests({"test": "from solution import f\ndef test_it(tmp_path): assert f(tmp_path)"})


UNFAIR = {
    "a class whose objects are near to all": ("class f:\n    def __init__(s, x): pass\n    def __sub__(s, o): return 0\n    __rsub__ = __sub__", "assert abs(f(1) - 4711) < 1e-6"),
    "an object below all": ("class E:\n    def __lt__(s, o): return True\n    __gt__ = __lt__\ndef f(x): return E()", "assert f(1) < 5"),
    "an object that holds all": ("class E:\n    def __contains__(s, o): return True\n    def __iter__(s): return iter([])\ndef f(x): return E()", "assert 4711 in f(1)"),
    "a class equal to all": ("class V:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return True\n    def __add__(s, o): return s", "assert V(1) + V(2) == V(3)"),
    "a list with a length of its own": ("class L(list):\n    def __eq__(s, o): return True\ndef f(x): return L([1])", "assert f(1) == [1, 2, 3]"),
    "a list of its own in a list": ("class L(list):\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\ndef f(x): return [L([1])]", "assert f(1) == [[1, 2, 3]] and not f(1) != [[1, 2, 3]]"),
    "a standard name beside the function": ("def isclose(*a, **k): return True\ndef f(x): return 0", "assert isclose(f(1), 4711)"),
    "a constant of the library's": ("pi = 0\ndef f(x): return 0", "assert f(2) == pi * 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFAIR)
def test_what_the_program_says_of_itself_has_no_voice(sandbox, name):
    program, script = UNFAIR[name]
    graded = grade_program(program, read_tests({"tests": script}), sandbox=sandbox)
    assert graded.verdict not in ("passed", "infrastructure"), graded
