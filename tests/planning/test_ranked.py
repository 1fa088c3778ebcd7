"""What each of several ranks takes, told before they run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.cli import main
from temper.commands.doctor import check_directory, file_system


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["plan", "smoke", "--json", "--out", "run", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_rank_has_its_memory_and_what_it_sends(capsys: pytest.CaptureFixture[str]) -> None:
    alone = {stage["stage"]: stage for stage in planned(capsys)["stages"]}
    assert all("rank" not in stage for stage in alone.values())
    data = planned(capsys, "--ranks", "4")
    rank = {stage["stage"]: stage["rank"] for stage in data["stages"]}
    gradients = 4 * 935_040
    assert rank["evaluation"]["sent_bytes"] == 0
    sent = rank["reasoning_rl"]["sent_bytes"]
    assert sent % (3 * gradients) == 0  # a small model's gradients are told to all, for each micro-batch
    assert sent > 0
    assert rank["reasoning_rl"]["memory_bytes"] > alone["reasoning_rl"]["memory_bytes"]
    assert data["memory_bytes"] == 4 * max(r["memory_bytes"] for r in rank.values() if r["sent_bytes"])
    summed = planned(capsys, "--ranks", "4", "--set", "reasoning_rl.parallel=threads")
    [one] = [stage["rank"] for stage in summed["stages"] if stage["stage"] == "reasoning_rl"]
    assert one["sent_bytes"] == 2 * gradients * 3 // 4
    assert one["step_seconds"] is None  # nothing was measured


def test_of_a_model_in_parts_each_rank_holds_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU weights are computed with in bfloat16: 18 bytes a weight in one piece, 16 over the ranks in parts, and 2
    of a copy to sample from."""
    weights, key = 935_040, "reasoning_rl.fully_shard=true"

    def of(*words: str) -> dict:
        data = planned(capsys, "--for", "8xH100", *words)
        return next(stage["rank"] for stage in data["stages"] if stage["stage"] == "reasoning_rl")

    whole, parts = of(), of("--set", key)
    outside = 128 * (640 + 1)
    layer = (weights - outside) // 4
    put_together = 2 * (outside + 2 * layer) + 6 * (outside + layer)
    bucket = 4 * weights  # which whole gradients are sent in
    assert whole["memory_bytes"] - parts["memory_bytes"] == 18 * weights + bucket - (2 + 2) * weights - put_together
    turns, rest = divmod(parts["sent_bytes"], 7 * weights // 8)
    assert (turns - 2) % 8 == 0  # 2 + 2 + 4 bytes a weight in every turn, 2 for the copy
    assert rest == 0


def test_ranks_of_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    data = planned(capsys, "--for", "8xH100")
    assert data["ranks"] == 8
    [one] = [stage["rank"] for stage in data["stages"] if stage["stage"] == "reasoning_rl"]
    assert one["sent_bytes"] == 2 * 4 * 935_040 * 7 // 8
    assert main(["plan", "smoke", "--for", "8xH100", "--out", "run"]) == 0
    assert "reasoning_rl: each of 8:" in capsys.readouterr().out
    assert main(["plan", "smoke", "--ranks", "0"]) == 2


def test_directories_that_ranks_can_share(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    kinds = {"nfs4": "other machines may see it", "ext4": "on this machine alone", "fuse.gcsfuse": "a bucket"}
    for kind, said in kinds.items():
        mounts.write_text(f"disk / xfs rw 0 0\nshare {tmp_path} {kind} rw 0 0\nnone {tmp_path}/x tmpfs rw 0 0\n")
        assert file_system(tmp_path, mounts) == kind
        assert said in check_directory(tmp_path, mounts).detail
        assert not list(tmp_path.glob(".temper-doctor-*"))
    assert check_directory(tmp_path / "absent", mounts).state == "warn"
    assert file_system(tmp_path, tmp_path / "nothing") == ""
