"""`temper doctor`: a healthy machine passes, and each thing that is not healthy says how to mend it."""

from __future__ import annotations

import argparse
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from model_zoo import make

from temper.commands import doctor
from temper.commands.doctor import Check, check_files, check_packages, check_shipped, check_system, examine, render
from temper.commands.hacks import HACKS, run_hacks
from temper.errors import Exit


def examined(capsys, *arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    code = doctor.run(parser.parse_args(list(arguments)))
    return code, capsys.readouterr().out


def test_this_machine_is_well(capsys):
    code, out = examined(capsys, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["fail"] == 0
    states = {check["name"]: check["state"] for check in report["checks"]}
    for name in ("python", "torch", "transformers", "cpu", "gpu", "sandbox", "rewards"):
        assert states[name] == "ok", name
    assert sum(report[state] for state in ("ok", "warn", "fail")) == len(report["checks"])
    shapes = [check for check in report["checks"] if check["name"] == doctor.SHAPE]
    told = next(check["detail"] for check in report["checks"] if check["name"] == "products")
    assert f"of {len(shapes)} shapes" in told or not shapes


def test_every_line_that_is_not_ok_has_its_fix(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(metadata, "version", lambda _: "0.1")
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 1e18)
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1e18)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Windows")
    checks = list(examine(["format"]))
    for check in checks:
        assert check.fix or check.state == "ok", check
    states = {check.name: check.state for check in checks}
    assert states["torch"] == states["system"] == "fail"
    assert states["memory"] == states["disk"] == "warn"
    code, out = examined(capsys)
    assert code == Exit.CONFIG
    assert "fix: " in out
    assert doctor.SHAPE not in out


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    for check in check_packages():
        assert check.state == "fail"
        assert check.fix.startswith(f'pip install "{check.name}>=')


def test_the_packages_asked_for_are_those_of_the_project():
    text = (Path(__file__).parent.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    for package, least in doctor.REQUIRED.items():
        if package != "jinja2":  # comes with transformers
            assert f'"{package}>={least}"' in text


def test_a_broken_check_is_one_line_and_not_the_end(monkeypatch):
    monkeypatch.setattr(doctor, "check_system", lambda: 1 / 0)
    checks = list(examine(["accuracy"]))
    assert checks[0].state == "fail"
    assert "ZeroDivisionError" in checks[0].detail
    assert any(check.name == "rewards" for check in checks)


def test_the_rewards_of_the_default_recipe_see_through_every_hack():
    outcome = run_hacks(["accuracy", "format"])
    assert outcome == run_hacks(["accuracy", "format"])
    assert outcome.honest == 2
    assert outcome.rewarded == ()
    assert outcome.failing == ()
    assert run_hacks(["accuracy"]).honest == 1


def test_a_reward_that_is_fooled_is_warned_about_with_the_cases(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def mine(prompt, reply):\n    return float(prompt.gold in reply.text)\n")
    code, out = examined(capsys, "--rewards", f"{file}:mine")
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("warn") and "rewards" in line]
    for case in ("no tags", "two numbers in the answer"):
        assert case in line
    assert "wrong answer" not in line


@pytest.mark.parametrize("body", ["return None", "return 0.0", "raise ValueError(reply.text)"])
def test_a_reward_that_does_not_work_is_warned_about(body, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(f"def mine(prompt, reply):\n    {body}\n")
    code, out = examined(capsys, "--rewards", f"{file}:mine", "--json")
    assert code == 0
    assert any(check["name"] == "rewards" and check["state"] == "warn" for check in json.loads(out)["checks"])


def test_a_reward_that_does_not_exist_fails(capsys):
    code, out = examined(capsys, "--rewards", "accurracy")
    assert code == Exit.CONFIG
    assert "did you mean `accuracy`" in out


def test_no_hack_is_an_honest_reply():
    assert len(set(HACKS.values())) == len(HACKS)


def test_a_shipped_model_is_compared_with_its_hashes(tmp_path):
    from temper.artifacts import begin, seal

    final = tmp_path / "assets" / "tiny-base"
    final.parent.mkdir()
    made = begin(final)
    shutil.copytree(make("llama", tmp_path / "m"), made, dirs_exist_ok=True)
    seal(made, final, "0" * 8, {})
    check = next(check for check in check_shipped(tmp_path / "assets") if check.name == "tiny-base")
    assert check.state == "ok", check
    weights = final / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    check = next(check for check in check_shipped(tmp_path / "assets") if check.name == "tiny-base")
    assert (check.state, check.code) == ("fail", Exit.ARTIFACT)
    assert "model.safetensors" in check.detail


def test_an_installation_that_lacks_a_model_fails_and_says_which_recipe_makes_it(tmp_path):
    checks = list(check_shipped(tmp_path))
    assert {(check.name, check.state, check.code) for check in checks} == {
        ("tiny-base", "fail", Exit.ARTIFACT), ("tiny-code-base", "fail", Exit.ARTIFACT)
    }  # fmt: skip
    assert all(check.fix.endswith(check.name.replace("-", "_")) for check in checks)


def test_an_installation_without_recipes_or_c_sources_fails_and_names_them(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "smoke.yaml").write_text("")
    recipes, sources = check_files(tmp_path)
    assert (recipes.state, sources.state) == ("fail", "fail")
    assert "tiny.yaml" in recipes.detail
    assert "smoke" not in recipes.detail
    assert "decode.c" in sources.detail
    assert [check.state for check in check_files()] == ["ok", "ok"]


def test_control_characters_are_shown_not_sent():
    assert "\x1b" not in "".join(render(Check("gpu", "ok", "evil\x1b[31m", "x\x1b")))


def test_the_system_is_named():
    assert [check.name for check in check_system()] == ["python", "system"]
