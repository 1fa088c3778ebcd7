"""What temper did not make, it neither renames nor deletes, wherever it lies and however often a run is run."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from fakes.running import interrupt_after, run, weights

from temper.errors import ArtifactError, ConfigError
from temper.pipeline.run import Stopped

pytestmark = pytest.mark.usefixtures("fake_kinds")


NAMES = (
    "other_project", ".making-thesis", ".making-beef", f".making-{'0123abcd' * 4}", ".damaged-thesis", "0123abcd" * 4,
    "step-000001", ".writing-000001", "07-thesis", "thesis.tmp", ".thesis.tmp", ".old-thesis",
)  # fmt: skip


def plant(folders: list[Path]) -> dict[Path, str]:
    """Foreign files, and directories with a file, under names like those that temper uses."""
    planted = {}
    for folder in folders:
        for name in NAMES:
            (folder / name).mkdir(exist_ok=True)
            planted[folder / name / "thesis.txt"] = name
        planted[folder / ".x.json.tmp"] = "file"
    for path, text in planted.items():
        path.write_text(text)
    return planted


def test_foreign_things_in_every_folder_of_a_run_stay(recipe, monkeypatch):
    interrupt_after(monkeypatch, "second", 3)
    with pytest.raises(Stopped):
        run(recipe)
    folders = [Path(root) for root, _, _ in os.walk("out") if Path(root).parent.name != "artifacts"]
    folders = [folder for folder in folders if not folder.name.startswith("step-")]
    planted = plant(folders)
    for settings, changed in (([], False), ([], False), (["first.learning_rate=0.5"], True), ([], True)):
        run(recipe, *settings, changed=changed)
    left = {path.name: path.read_text() for path in Path("out").rglob("thesis.txt")}
    assert left
    moved = [path for path, text in planted.items() if not path.exists()]
    assert all("03-second" in str(path) or "02-first" in str(path) for path in moved)  # with the stage's own directory
    assert sum(1 for _ in Path("out").rglob("thesis.txt")) == len(planted) - len(folders)


@pytest.mark.parametrize("link", ["artifacts", "stages", "stages/.old", "stages/02-first/checkpoints"])
def test_nothing_is_renamed_or_deleted_behind_a_link(recipe, tmp_path, link):
    big, place = tmp_path / "big", Path("out", link)
    big.mkdir()
    planted = plant([big])
    place.parent.mkdir(parents=True)
    place.symlink_to(big)
    Path("out/lock").touch()
    if link.endswith("checkpoints"):
        (place.parent / "stage.json").touch()  # a stage's directory, its record torn
    for _ in range(2):
        result = run(recipe)
        assert {path: path.read_text() for path in planted} == planted
    shutil.copytree(big, tmp_path / "before", symlinks=True)
    with pytest.raises(ConfigError, match="behind a link") if link in ("stages", "stages/.old") else nullcontext():
        run(recipe, "first.learning_rate=0.5", changed=True)
    assert {path: path.read_text() for path in planted} == planted
    before = {path.relative_to(tmp_path / "before") for path in (tmp_path / "before").rglob("*")}
    assert before <= {path.relative_to(big) for path in big.rglob("*")}
    assert result.record["state"] == "done"


def test_a_damaged_artifact_behind_a_link_is_told_and_stays(recipe, tmp_path):
    (tmp_path / "big").mkdir()
    Path("out").mkdir()
    Path("out/artifacts").symlink_to(tmp_path / "big")
    path = weights(run(recipe), "first")
    path.write_text("other")
    with pytest.raises(ArtifactError) as error:
        run(recipe)
    assert error.value.faults[0].where == str(path)
    assert path.read_text() == "other"


def test_a_second_damaged_artifact_does_not_cost_the_first(recipe):
    path = weights(run(recipe), "first")
    for text in ("one", "two"):
        path.write_text(text)
        run(recipe)
    kept = sorted(Path("out/artifacts").glob(f".damaged-{path.parent.name}*/model.safetensors"))
    assert [file.read_text() for file in kept] == ["one", "two"]


def test_a_foreign_directory_in_the_place_of_a_stage_is_told(recipe):
    Path("out/stages/02-first").mkdir(parents=True)
    Path("out/lock").touch()
    Path("out/stages/02-first/thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="has the place of a stage"):
        run(recipe)
    assert Path("out/stages/02-first/thesis.txt").read_text() == "x"
