"""Whatever moment a run dies at, the same command goes on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fakes
import pytest
from forked import Command, wait_for

from temper.artifacts import hash_file

TESTS = Path(__file__).parent.parent


def seen(folder: Path) -> set[str]:
    """Everything below a folder that may be changing, and every step that was taken."""
    found = {os.path.join(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)}
    for file in folder.glob("stages/*/metrics.jsonl"):
        found |= {f"{file}:{number}" for number in range(file.read_text().count("\n"))}
    return found


def hashes(folder: Path) -> dict[str, str]:
    """The hash of everything that the stages made; manifests record what it cost, so they are left out."""
    kept = [path for path in folder.glob("artifacts/*/**/*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): hash_file(path) for path in kept}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE.replace("steps: 6", "steps: 6, sleep: 0.02"), encoding="utf-8")
    return path


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bytes(recipe, tmp_path):
    code, _, err = Command("run", recipe, "--out", tmp_path / "whole").finish()
    assert code == 0, err
    whole, out = hashes(tmp_path / "whole"), tmp_path / "killed"
    dice, killed = random.Random(0), 0
    for _ in range(30):
        mark, more = seen(out), dice.randint(1, 9)
        process = Command("run", recipe, "--out", out)
        wait_for(lambda mark=mark, more=more: len(seen(out) - mark) >= more, process)
        time.sleep(dice.random() * 0.02)
        process.kill()
        code, _, _ = process.finish()
        killed += code == -signal.SIGKILL
        if code == 0:
            break
    code, text, err = Command("run", recipe, "--out", out).finish()
    assert code == 0, err
    assert killed >= 5
    assert hashes(out) == whole
    assert not list(out.glob("artifacts/.*"))
    assert not list(out.rglob("*.tmp"))
    rows = [json.loads(line)["step"] for line in (out / "stages/03-second/metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4, 5, 6]
    assert "temper chat" in text


def test_what_a_killed_run_began_is_gone_where_it_is_not_made_again(tmp_path):
    recipe, out = tmp_path / "my.yaml", tmp_path / "out"
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 4000, sleep: 0.05}\n")
    process = Command("run", recipe, "--out", out)
    wait_for(lambda: list(out.glob("artifacts/.making-*")), process)
    process.kill()
    process.finish()
    [begun] = out.glob("artifacts/.making-*")
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 2}\n")
    code, _, err = Command("run", recipe, "--out", out, "--changed").finish()
    assert code == 0, err
    assert not begun.exists()
    assert not list(out.glob("artifacts/.*"))


@pytest.mark.parametrize(
    ("numbers", "code"),
    [([signal.SIGTERM], 75), ([signal.SIGINT], 130), ([signal.SIGTERM] * 2, 75), ([signal.SIGINT] * 2, 130)],
)
def test_signals_end_with_their_code_and_lose_nothing(tmp_path, numbers, code):
    recipe, out = tmp_path / "my.yaml", tmp_path / "out"
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 8, sleep: 0.15}\n")
    process = Command("run", recipe, "--out", out)
    wait_for(lambda: (out / "stages/01-a/metrics.jsonl").exists(), process)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.03)
    ended, text, err = process.finish()
    assert ended == code, err
    assert text == ""
    assert "Traceback" not in err
    if len(numbers) == 1:
        assert "run the same command again" in err
        assert list(out.glob("stages/01-a/checkpoints/step-*"))
    ended, _, err = Command("run", recipe, "--out", out).finish()
    assert ended == 0, err
    Command("run", recipe, "--out", tmp_path / "whole").finish()
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_second_process_is_refused_while_the_first_lives_and_not_after_a_kill(tmp_path):
    recipe, out = tmp_path / "my.yaml", tmp_path / "out"
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 4000, sleep: 0.05, save_steps: 1}\n")
    first = Command("run", recipe, "--out", out)
    wait_for(lambda: (out / "stages/01-a/checkpoints").exists(), first)
    code, _, err = Command("run", recipe, "--out", out).finish()
    assert code == 6, err
    assert f"pid {first.pid}" in err
    code, _, err = Command("plan", recipe, "--out", out).finish()
    assert code == 0, err
    first.kill()
    first.finish()
    process = Command("run", recipe, "--out", out)
    wait_for(lambda: (out / "stages/01-a/log.txt").read_text().count("stage 1/1") > 1, process)
    process.send_signal(signal.SIGTERM)
    assert process.finish()[0] == 75


def test_a_run_directory_deleted_under_a_run_ends_it_with_the_code_of_resources(tmp_path):
    import shutil

    recipe, out = tmp_path / "my.yaml", tmp_path / "out"
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 4000, sleep: 0.05, save_steps: 1}\n")
    process = Command("run", recipe, "--out", out)
    wait_for(lambda: (out / "stages/01-a/checkpoints").exists(), process)
    out.rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    code, _, err = process.finish()
    assert code == 4, err
    assert "the run directory is gone" in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_nobody_can_write_does_not_stop_a_run(tmp_path):
    recipe = tmp_path / "my.yaml"
    recipe.write_text("stages:\n  a: {stage: fake_train, steps: 2}\n")
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    command = f"{sys.executable} -m fakes run {recipe} --out {tmp_path / 'out'} 2>/dev/full | head -c 1"
    done = subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": path}, timeout=120, check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "done"
