"""The shell completes what the parsers have: commands, options, their values, shipped recipes, files."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from temper import cli
from temper.commands.completion import SHELLS, verbs
from temper.recipe.sources import shipped_recipes


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, str]:
    import contextlib
    import io

    made = {}
    for shell in SHELLS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert cli.main(["completion", shell]) == 0
        made[shell] = out.getvalue()
    return made


def completed(script: str, *words: str, cwd=None) -> list[str]:
    """What bash offers for the last of the words."""
    array = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _temper; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, cwd=cwd)
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_values_recipes_and_files(scripts, tmp_path):
    (tmp_path / "tiny-of-mine.yaml").touch()
    bash = scripts["bash"]
    assert completed(bash, "temper", "exp") == ["explain", "export-metrics", "export-log", "export"]
    assert set(cli.COMMANDS) <= set(completed(bash, "temper", ""))
    assert completed(bash, "temper", "plan", "--str") == ["--strict"]
    assert completed(bash, "temper", "export", "m", "d", "--dtype", "b") == ["bfloat16"]
    found = completed(bash, "temper", "run", "tiny", cwd=tmp_path)
    assert found == [name for name in shipped_recipes() if name.startswith("tiny")] + ["tiny-of-mine.yaml"]
    assert completed(bash, "temper", "completion", "f", cwd=tmp_path) == ["fish"]


def test_every_option_that_help_shows_is_in_every_script(scripts):
    for verb in verbs():
        assert any("--help" in option.names for option in verb.options)
        for option in verb.options:
            for name in (name for name in option.names if name.startswith("--")):
                assert name in scripts["bash"]
                assert f"'{name}[" in scripts["zsh"]
                assert f"-l {name[2:]}" in scripts["fish"]


def test_what_help_hides_is_not_completed(scripts):
    assert all("--tied" not in script for script in scripts.values())


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_shell_can_read_it(scripts, shell, check, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(scripts[shell])
    subprocess.run([shell, check, str(tmp_path / "script")], check=True, capture_output=True)


def test_another_shell_is_told(capsys):
    assert cli.main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
