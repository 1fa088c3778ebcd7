"""Commands whose ends lead nowhere: one error, the code of resources, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.ends import COMMANDS, ENDS

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
WRITES = ("run", "init", "report --out")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """The exit code of every command with every end, and what it said on standard error."""
    env = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("ends")
    done = subprocess.run([sys.executable, "-m", "fakes.ends"], cwd=folder, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("end", ENDS)
def test_a_command_with_an_end_that_leads_nowhere(outcomes, command, end):
    code, said = outcomes[f"{command} {end}"]
    assert "Traceback" not in said
    assert "internal bug" not in said
    lacks = end in ("closed", "full") or (end == "no_file" and command in WRITES)
    if lacks:
        assert code == 4, said
        assert said.count("error:") == 1, said
    elif end == "few_handles":
        assert code in (0, 4), said
    else:
        assert code == 0, said


def shell(line: str, folder: Path, **environment: str | None) -> tuple[int, str]:
    """The exit code, and what was said on standard error, of `temper` (`T`) in a shell."""
    env = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", "T": f"{sys.executable} -m temper"}
    env |= {key: value for key, value in environment.items() if value is not None}
    for key in [key for key, value in environment.items() if value is None]:
        env.pop(key, None)
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("end", [">&-", "> /dev/full", "< /dev/null >&- <&-"])
def test_so_it_is_at_the_end_of_a_process(tmp_path, end):
    code, said = shell(f"$T init {end}", tmp_path)
    assert code == 4, said
    assert said.count("error:") == 1
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_no_home_and_a_plain_language_are_no_obstacle(tmp_path):
    code, said = shell("$T init", tmp_path, HOME=None, LANG="C", LC_ALL="C")
    assert code == 0, said


def test_a_directory_that_is_gone_is_told(tmp_path):
    code, said = shell("mkdir gone; cd gone; rmdir ../gone; $T init", tmp_path)
    assert code == 4, said
    assert said.count("error:") == 1
