"""The command line: quick to answer, one block an error, the right exit code, standard output for results only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from forked import Command

from temper import __version__, cli
from temper.errors import Exit
from temper.record.rundir import Lock

TESTS = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")]),
}


def temper(*arguments: str | Path, cwd: str | Path = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(arguments, *Command(*arguments, cwd=cwd).finish())


def python(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user starts it, Python's own start and end included."""
    command = [sys.executable, "-m", "fakes", *map(str, arguments)]
    env = {**ENVIRONMENT, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(fakes.RECIPE, encoding="utf-8")
    return path


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], [], ["run", "--help"], ["--version"]])
def test_help_costs_little(arguments):
    began = os.times()
    done = python(*arguments)
    ended = os.times()
    assert done.returncode == 0
    assert done.stderr == ""
    spent = ended.children_user + ended.children_system - began.children_user - began.children_system
    assert spent < 0.5


def test_help_names_every_command(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in cli.COMMANDS)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"temper {__version__}\n"


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_every_command_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: temper {verb}" in capsys.readouterr().out


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "did you mean `run`?"), (["xyzzy"], "the commands are"), (["--nope"], "unrecognized arguments"),
        (["run"], "required: RECIPE"), (["run", "a", "b"], "unrecognized arguments"),
        (["run", "a", "--st", "x"], "--st"), (["run", "a", "--set"], "expected one argument"),
        (["run", "-rf"], "required: RECIPE"), ([""], "unknown command"),
        (["run", "a", "--out", ""], "names no directory"), (["run", "a", "--out", "x" * 300], "names no directory"),
        (["run", "a", "--out", "a\nb"], "names no directory"), (["plan", "a", "--out", "a\x07"], "names no directory"),
        (["ru\x1b[31mn"], "\\x1b[31m"), (["run", "no\x1b[31m"], "\\x1b[31m"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_block_with_code_2(arguments, said, capsys):
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert shown.err.count("error:") == 1
    assert "\x1b" not in shown.err


def test_the_faults_of_a_recipe_are_blocks_with_code_2(recipe):
    recipe.write_text(fakes.RECIPE.replace("steps: 6}", "stepz: 6}").replace("rows: 3", "rows: no"))
    done = temper("run", recipe)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("error:") == 2
    assert f"{recipe}:6:34" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_fault_is_told_once(recipe):
    text = "tasks: {t: {train: nope.jsonl}}\nstages:\n" + "".join(
        f"  {name}: {{stage: fake_train, tasks: [t]}}\n" for name in "abc"
    )
    recipe.write_text(text)
    done = temper("run", recipe)
    assert (done.returncode, done.stderr.count("error:")) == (3, 1)


def test_a_bug_is_one_block_with_code_70_and_a_traceback_only_with_debug(recipe, tmp_path):
    for arguments, shown in ((["run"], False), (["run", "--debug"], True)):
        done = temper(*arguments, recipe, "--set", "first.fail=bug", "--out", tmp_path / "out")
        assert done.returncode == 70
        assert done.stderr.count("error:") == 1
        assert "internal bug" in done.stderr
        assert "KeyError" in done.stderr
        assert "--debug" in done.stderr
        assert ("Traceback" in done.stderr) is shown


def test_ctrl_c_anywhere_is_code_130_without_a_traceback(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["run", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_that_is_not_there_is_told(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "sing", ("temper.commands.sing", "sing"))
    assert cli.main(["sing"]) == 9
    assert "not part of this installation" in capsys.readouterr().err


@pytest.mark.parametrize(("version", "platform"), [((3, 10), "linux"), ((3, 12), "win32"), ((2, 7), "darwin")])
def test_unsupported_systems_are_told_what_is_supported(version, platform):
    with pytest.raises(cli.ConfigError) as error:
        cli.check_system(version, platform)
    assert error.value.code == Exit.CONFIG
    assert "3.11" in error.value.faults[0].why
    assert "macOS" in error.value.faults[0].why


def test_a_reader_that_goes_away_is_no_error(recipe, tmp_path):
    command = f"{sys.executable} -m fakes run --help | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- surroundings -----------------------------------------------------------------------------------------------------


def test_it_works_without_a_home_in_the_c_locale_with_a_tight_umask(recipe, tmp_path):
    env = {key: value for key, value in ENVIRONMENT.items() if key in ("PYTHONPATH", "PATH")}
    command = [sys.executable, "-m", "fakes", "run", recipe, "--out", "out"]
    done = subprocess.run(
        command, env={**env, "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, umask=0o077,
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "run.json").stat().st_mode & 0o077 == 0
    assert temper("run", recipe, "--out", "out", cwd=tmp_path).returncode == 0


def test_messages_survive_a_terminal_that_cannot_show_them(recipe):
    recipe.write_text("name: 'größer\u2009als'\nstages: {a: {stage: fake_train}}\n", encoding="utf-8")
    done = python("run", recipe, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "is not allowed" in done.stderr


def test_a_current_directory_that_is_gone_is_told(recipe, tmp_path):
    command = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -P -m fakes run {recipe}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "current directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_a_run_may_reach_the_network():
    code = "import os; from temper.environment import go_offline; go_offline(); print(os.environ)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        assert f"'{name}': '1'" in done.stdout


# -- run and plan -----------------------------------------------------------------------------------------------------


def test_a_run_prints_its_result_and_logs_the_rest(recipe, tmp_path):
    done = temper("run", recipe, cwd=tmp_path)
    assert done.returncode == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for text in ("accuracy", "report:", "CPU-seconds", f"temper chat runs/{folder.name}"):
        assert text in done.stdout
    assert "Step 6/6:" in done.stderr
    assert "Step" not in done.stdout
    assert (folder / "report" / "index.html").is_file()
    again = temper("run", recipe, cwd=tmp_path)
    assert again.stdout == done.stdout
    assert "no step was taken" in again.stderr
    assert "Step" not in again.stderr


def test_a_run_as_json_is_one_object(recipe, tmp_path):
    done = temper("run", recipe, "--json", cwd=tmp_path)
    value = json.loads(done.stdout)
    assert value["recipe"] == "fake"
    assert value["ran"] == ["data", "first", "second", "report"]
    assert value["stages"]["second"]["steps"] == 6
    assert value["evaluation"]["k"] == 4
    assert value["cpu_seconds"] > 0


def test_a_plan_tells_what_runs_and_why_and_writes_nothing(recipe, tmp_path):
    done = temper("plan", recipe, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("never run") == 4
    assert not (tmp_path / "runs").exists()
    assert temper("run", recipe, cwd=tmp_path).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = temper("plan", recipe, "--set", "second.learning_rate=2e-4", cwd=tmp_path)
    assert "config key learning_rate changed 0.0001 -> 0.0002" in done.stdout
    assert "input @second will change" in done.stdout
    assert "2 to run, 2 done" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_does_not_take_a_trials_time_for_that_of_the_whole(recipe, tmp_path):
    assert temper("run", recipe, "--set", "second.steps=2", cwd=tmp_path).returncode == 0
    folder = next((tmp_path / "runs").iterdir())
    value = json.loads(temper("plan", recipe, "--out", folder, "--json", cwd=tmp_path).stdout)
    times = {stage["stage"]: stage["seconds"] for stage in value["stages"]}
    assert times["second"] is None
    assert None not in (times["first"], times["report"])


def test_a_plan_says_that_another_process_is_at_the_run(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    lock = Lock(tmp_path / "out" / "lock")
    done = temper("plan", recipe, "--out", "out", cwd=tmp_path)
    assert f"in use:  by another process (pid {os.getpid()}" in done.stdout
    lock.release()
    assert "in use" not in temper("plan", recipe, "--out", "out", cwd=tmp_path).stdout


def test_a_plan_as_json_has_every_stage(recipe, tmp_path):
    value = json.loads(temper("plan", recipe, "--json", cwd=tmp_path).stdout)
    assert [(stage["stage"], stage["state"], stage["runs"]) for stage in value["stages"]] == [
        (name, "run", True) for name in ("data", "first", "second", "report")
    ]
    assert value["exists"] is False
    assert value["stages"][0]["seconds"] is None


def test_an_error_comes_soon(recipe):
    recipe.write_text("a: " + "[" * 100_000)
    before = os.times()
    assert python("plan", recipe).returncode == 2
    assert os.times().children_user - before.children_user < 5
