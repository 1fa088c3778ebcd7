"""Whatever happens to the files of a run directory, the same command ends in the same bits or names the file."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest
from fakes.running import interrupt_after, run

from temper import cli
from temper.artifacts import hash_file
from temper.errors import Exit, TemperError
from temper.pipeline.run import Run, Stopped
from temper.report.gather import gather

HOWS = ("flip", "byte", "cut", "grow", "gone", "empty", "list", "null", "deep", "swap", "copy")
NOT_READ = ("lock", "config.yaml", "log.txt")
UNREAD = ("metrics.jsonl", "warnings.jsonl", "rollouts", "recipe.resolved.yaml")


pytestmark = pytest.mark.usefixtures("fake_kinds")


def files_of(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in NOT_READ and ".making-" not in str(path)
    )


def made(folder: Path) -> dict[str, str]:
    """The hash of everything the stages made, but for what it cost."""
    kept = [path for path in folder.glob("artifacts/[0-9a-f]*/**/*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): hash_file(path) for path in kept}


def spare_checkpoints(folder: Path) -> list[Path]:
    """All but the newest of each stage, and what stands beside the sealed records in it."""
    found = []
    for kept in folder.glob("stages/*/checkpoints"):
        found += [path.relative_to(folder) for path in sorted(kept.glob("step-*"))[:-1]]
    return found


def damage(path: Path, how: str, other: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    place = dice.randrange(len(data) or 1)
    rest = data[place + 1 :]
    if how == "gone":
        path.unlink()
    elif how == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        path.write_bytes({
            "flip": data[:place] + bytes([b ^ 1 << dice.randrange(8) for b in data[place : place + 1]]) + rest,
            "byte": data[:place] + bytes([dice.randrange(256)]) + rest, "cut": data[:place], "grow": data + data[:9],
            "empty": b"", "list": b"[]", "null": b"null", "copy": other.read_bytes(),
            "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        }[how])  # fmt: skip


def try_all(
    state: Path, again: Callable[[], object], rounds: int, seed: int, capfd,
    unread: tuple[str, ...] = ("recipe.resolved.yaml",),
) -> None:  # fmt: skip
    """Damage files of a copy of `state` at `out`, one a time, and look at what comes of it. What is `unread`, written
    anew or without a hash yet, need not be named."""
    dice = random.Random(seed)
    out = Path("out")
    names = [path.relative_to(state) for path in files_of(state)]
    dice.shuffle(names)
    whole = made(Path("whole"))
    for number in range(rounds):
        name, how, other = names[number % len(names)], dice.choice(HOWS), dice.choice(names)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(state, out)
        before = [file.read_bytes() for file in (out / name, out / other)]
        damage(out / name, how, out / other, dice)
        is_changed = before != [file.read_bytes() if file.exists() else None for file in (out / name, out / other)]
        capfd.readouterr()
        case = f"{number}: {how} of {name}, other {other}"
        try:
            again()
        except TemperError as error:
            named = " ".join(f"{fault.what} {fault.where} {fault.why}" for fault in error.faults)
            assert name.name in named or other.name in named, case
            continue
        assert {key: value for key, value in made(out).items() if key in whole} == whole, case
        is_read = not {*name.parts} & {*unread} and name.parent not in spare_checkpoints(state)
        if is_changed and is_read and how not in ("gone", "swap", "copy"):
            assert name.name in capfd.readouterr().err, case


def test_damage_to_a_finished_run_is_mended_or_told(tmp_path, capfd):
    recipe = tmp_path / "my.yaml"
    recipe.write_text(fakes.RECIPE, encoding="utf-8")
    run(recipe)
    shutil.copytree("out", "whole")
    try_all(Path("whole"), lambda: run(recipe), 60, 1, capfd)


def test_what_is_damaged_is_named_and_shown_to_nobody(tmp_path, capsys):
    recipe = tmp_path / "my.yaml"
    recipe.write_text(fakes.RECIPE, encoding="utf-8")
    run(recipe)
    shutil.copytree("out", "whole")
    capsys.readouterr()
    assert cli.main(["report", "whole", "--json"]) == 0
    assert "damaged and is left out" not in capsys.readouterr().err
    dice = random.Random(3)
    for path in files_of(Path("whole")):
        name = path.relative_to("whole")
        if name.name == "hashes.json" or name.suffix == ".safetensors" or "report" in name.parts:
            continue
        shutil.rmtree("out")
        shutil.copytree("whole", "out")
        damage(Path("out", name), "flip", Path("out", name), dice)
        assert cli.main(["report", "out", "--json"]) == 0
        told = capsys.readouterr().err
        assert f"{Path('out', name)} is damaged and is left out" in told
        assert [str(name) in text for text in gather(Path("out"))["damaged"]].count(True) == 1


def test_damage_to_a_half_done_run_is_mended_or_told(tmp_path, capfd, monkeypatch):
    recipe = tmp_path / "my.yaml"
    recipe.write_text(fakes.RECIPE, encoding="utf-8")
    run(recipe)
    shutil.move("out", "whole")
    interrupt_after(monkeypatch, "second", 5)
    with pytest.raises(Stopped):
        run(recipe)
    shutil.move("out", "half")
    try_all(Path("half"), lambda: run(recipe), 60, 2, capfd, UNREAD)


REAL = """\
name: real
threads: 1
tasks:
  sums: {train: rows.jsonl, test: tests.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  rl: {stage: grpo, model: "@base", tasks: [sums], reward_funcs: [length], max_steps: 4, save_steps: 1,
       num_generations: 2, prompts_per_step: 2, max_completion_length: 6, learning_rate: 1e-3, kl_penalty: 0}
  exam: {stage: evaluate, models: ["@base", "@rl"], tasks: [sums], num_samples: 1, max_completion_length: 6}
"""


def stop_stage(monkeypatch, name: str, asked: int) -> None:
    """Let one stage be asked to stop the `asked`-th time that it looks."""
    watch, looks = Run._watch, []

    def watching(self: Run, planned, work: Path, meter):
        look = watch(self, planned, work, meter)

        def stopping() -> bool:
            if planned.stage.name == name:
                looks.append(1)
                if len(looks) == asked:
                    self.stopper.code = Exit.PREEMPTED
            return look()

        return stopping

    monkeypatch.setattr(Run, "_watch", watching)


@pytest.mark.parametrize(("stage", "asked"), [("rl", 3), ("exam", 1)])
def test_damage_to_a_half_done_run_of_real_stages_is_mended_or_told(tmp_path, capfd, monkeypatch, stage, asked):
    for name, numbers in (("rows", range(8)), ("tests", range(20, 24))):
        rows = [{"prompt": f"What is {n} + 2?", "answer": str(n + 2)} for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "my.yaml"
    recipe.write_text(REAL, encoding="utf-8")
    with monkeypatch.context() as patched:
        stop_stage(patched, stage, asked)
        with pytest.raises(Stopped):
            run(recipe)
    shutil.copytree("out", "half")
    run(recipe)
    shutil.move("out", "whole")
    try_all(Path("half"), lambda: run(recipe), 8, 3, capfd, UNREAD)
