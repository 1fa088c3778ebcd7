"""Commands whose ends lead nowhere: one error, the code of resources, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
CALM = {"HOME": None, "LANG": "C", "LC_ALL": "C"}


def outcome(shell: str, folder: Path, **environment: str | None) -> tuple[int, str]:
    """The exit code, and what was said on standard error, of `temper` (`T`) in a shell."""
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "T": f"{sys.executable} -m temper"}
    env |= {key: value for key, value in environment.items() if value is not None}
    for key in [key for key, value in environment.items() if value is None]:
        env.pop(key, None)
    done = subprocess.run(["bash", "-c", shell], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["plan smoke", "--help", "init smoke mine.yaml"])
@pytest.mark.parametrize("end", [">&-", "> /dev/full"])
def test_output_that_goes_nowhere_is_one_error(tmp_path, command, end):
    code, said = outcome(f"$T {command} {end}", tmp_path)
    assert code == 4, said
    assert said.count("error:") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("end", ["2>&-", "2> /dev/full", "<&-"])
def test_other_ends_are_no_obstacle(tmp_path, end):
    code, said = outcome(f"$T plan smoke {end}", tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("limit", ["ulimit -n 10", "ulimit -f 0"])
def test_limits_are_a_matter_of_resources(tmp_path, limit):
    code, said = outcome(f"{limit}; $T {'plan smoke' if '-n' in limit else 'init smoke mine.yaml'}", tmp_path)
    assert code == 4, said
    assert said.count("error:") == 1
    assert "Traceback" not in said


def test_no_home_and_a_plain_language_are_no_obstacle(tmp_path):
    code, said = outcome("$T plan smoke", tmp_path, **CALM)
    assert code == 0, said


def test_a_directory_that_is_gone_is_told(tmp_path):
    code, said = outcome("mkdir gone; cd gone; rmdir ../gone; $T plan smoke", tmp_path)
    assert code == 4, said
    assert said.count("error:") == 1
