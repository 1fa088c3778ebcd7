"""What stands around programs where a recipe says so: bubblewrap, or nothing, loudly; never a lesser one by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from temper.code import Call, Limits, Sandbox, SandboxError, Script, Stdin, Tests, grade, tiers
from temper.code.canaries import examine
from temper.code.tiers import LOUD
from tests.code.attacks import DENIED, HEAD

LINES = [line for lines in DENIED.values() for line in lines.strip().splitlines()]
SOURCE = Path(tiers.__file__).parents[2]


@pytest.fixture(scope="module")
def bubblewrap():
    try:
        with Sandbox(1, "bubblewrap") as sandbox:
            yield sandbox
    except SandboxError as error:
        pytest.skip(error.faults[0].what)


def test_bubblewrap_holds_what_landlock_does(bubblewrap, tmp_path):
    assert bubblewrap.tier.startswith("bubblewrap")
    assert all(protection.on for protection in examine(bubblewrap))
    (tmp_path / "secret.txt").write_text("the answer is 4711")
    head = HEAD.format(outside=str(tmp_path / "secret.txt"), host=os.getpid())
    for line in LINES:
        if line == 'os.scandir("/").__next__()':  # its own root, with nothing in it but what it may read
            continue
        body = f"try:\n    {line}\nexcept BaseException:\n    print('denied')\nelse:\n    escaped()"
        ran = bubblewrap.run(head + body, b"", Limits(2, 4))
        assert not ran.broken, line
        assert b"ESCAPED" not in ran.stdout, (line, ran.stdout)
        assert b"4711" not in ran.stdout + ran.stderr, line
    assert os.listdir(tmp_path) == ["secret.txt"]


def test_programs_are_graded_under_bubblewrap_as_elsewhere(bubblewrap):
    cases = (Call("f", ([1, 2],), 3), Script("assert f([2]) == 2", ("f",)))
    assert grade("```python\ndef f(x): return sum(x)\n```", Tests(cases), sandbox=bubblewrap).verdict == "passed"
    assert grade("```python\nprint(input())\n```", Tests((Stdin("a", "a"),)), sandbox=bubblewrap).verdict == "passed"
    with pytest.raises(SandboxError, match="under bubblewrap"):
        grade("```cpp\nint main() {}\n```", Tests((Stdin("", ""),), language="cpp"), sandbox=bubblewrap)


def test_a_host_that_is_killed_leaves_no_bubblewrap(bubblewrap):
    code = (
        f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\nfrom temper.code import Limits, Sandbox\n"
        "s = Sandbox(1, 'bubblewrap')\nprint(s._every[0].process.pid, flush=True)\n"
        "s.run('while True: pass', b'', Limits(50, 50))"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    zygote = int(host.stdout.readline())
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    end = time.monotonic() + 30
    while Path(f"/proc/{zygote}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{zygote}").exists() or "Z" in Path(f"/proc/{zygote}/stat").read_text().split()[2]


def test_without_bubblewrap_nothing_is_run(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match="no bwrap") as caught:
        Sandbox(1, "bubblewrap")
    assert caught.value.code == 8


def test_none_has_limits_alone_and_says_so():
    with Sandbox(1, "none") as sandbox:
        assert sandbox.tier.startswith("none")
        assert sandbox.run("import os\nprint(len(os.listdir('/')) > 0)").stdout == b"True\n"
        assert sandbox.run("while True: pass", b"", Limits(1, 0.5)).verdict == "timeout"
        assert sandbox.run("x = bytearray(1 << 40)").verdict == "memory"
    assert "your files" in LOUD
