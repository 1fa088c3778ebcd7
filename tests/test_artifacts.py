"""An artifact is whole or does not exist; every changed byte is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper.artifacts import (
    MANIFEST,
    MARK,
    HashCache,
    InvalidArtifact,
    begin,
    clean_leftovers,
    hash_file,
    read_manifest,
    seal,
    verify,
    write_atomically,
)


def make(folder: Path, **files: str) -> Path:
    final = folder / "f00d"
    aside = begin(final)
    for name, text in {"a.txt": "alpha", "sub/b.txt": "beta", **files}.items():
        (aside / name).parent.mkdir(exist_ok=True)
        (aside / name).write_text(text)
    seal(aside, final, "f00d", {"stage": "x"})
    return final


def test_a_sealed_artifact_verifies_and_lists_every_file(tmp_path):
    final = make(tmp_path)
    manifest = verify(final, "f00d")
    assert dict(manifest.files) == {
        name: ((final / name).stat().st_size, hash_file(final / name)) for name in ("a.txt", "sub/b.txt")
    }
    assert manifest.about["stage"] == "x"
    assert manifest.size == 9
    assert [path.name for path in tmp_path.iterdir()] == ["f00d"]


def test_nothing_has_the_final_name_before_it_is_sealed(tmp_path):
    aside = begin(tmp_path / "f00d")
    (aside / "a.txt").write_text("x")
    assert not (tmp_path / "f00d").exists()
    clean_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_began_is_not_mixed_into_the_next(tmp_path):
    (begin(tmp_path / "f00d") / "old.txt").write_text("x")
    assert [path.name for path in begin(tmp_path / "f00d").iterdir()] == [".making"]  # whose it is, until it is sealed


@pytest.mark.parametrize("name", ["a.txt", "sub/b.txt"])
@pytest.mark.parametrize("change", ["flip", "cut", "grow", "remove", "empty"])
def test_every_change_to_a_file_is_noticed_and_the_file_named(tmp_path, name, change):
    final = make(tmp_path)
    path, data = final / name, (final / name).read_bytes()
    if change == "remove":
        path.unlink()
    else:
        changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x", "empty": b""}
        path.write_bytes(changed[change])
    with pytest.raises(InvalidArtifact) as error:
        verify(final, "f00d")
    assert error.value.file == path


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[]", b"3", b"{}", b'{"format": 1}', b'{"format": 2, "fingerprint": "f00d", "files": {}}',
     b'{"format": 1, "fingerprint": 3, "files": {}}', b'{"format": 1, "fingerprint": "f00d", "files": []}',
     b'{"format": 1, "fingerprint": "f00d", "files": {"a": 3}}', b"\xff\xfe", b"[" * 100_000,
     b'{"format": 1, "fingerprint": "f00d", "files": {"../x": {"size": 1, "sha256": ""}}}',
     b'{"format": 1, "fingerprint": "f00d", "files": {"/x": {"size": 1, "sha256": ""}}}',
     b'{"format": 1, "fingerprint": "f00d", "files": {"a": {"size": "1", "sha256": ""}}}'],
)  # fmt: skip
def test_without_a_manifest_to_be_believed_there_is_no_artifact(tmp_path, content):
    final = make(tmp_path)
    if content is None:
        (final / MANIFEST).unlink()
    else:
        (final / MANIFEST).write_bytes(content)
    with pytest.raises(InvalidArtifact) as error:
        read_manifest(final)
    assert error.value.file == final / MANIFEST


def test_an_artifact_under_another_name_is_not_taken(tmp_path):
    with pytest.raises(InvalidArtifact, match="made for f00d"):
        verify(make(tmp_path), "beef")


def test_a_link_is_no_part_of_an_artifact(tmp_path):
    aside = begin(tmp_path / "f00d")
    (aside / "a").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="regular files only"):
        seal(aside, tmp_path / "f00d", "f00d", {})
    assert not (tmp_path / "f00d").exists()


def test_what_stood_in_the_place_of_an_artifact_is_kept_aside(tmp_path):
    (make(tmp_path) / "a.txt").write_text("mine")
    make(tmp_path)
    assert (tmp_path / "f00d" / "a.txt").read_text() == "alpha"
    assert (tmp_path / ".damaged-f00d" / "a.txt").read_text() == "mine"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.binary(max_size=40), min_size=1), st.data())
def test_any_flipped_bit_anywhere_is_noticed(tmp_path, files, data):
    shutil.rmtree(tmp_path / "f00d", ignore_errors=True)
    aside = begin(tmp_path / "f00d")
    for name, content in files.items():
        (aside / name).write_bytes(content)
    seal(aside, tmp_path / "f00d", "f00d", {})
    verify(tmp_path / "f00d", "f00d")
    name = data.draw(st.sampled_from([name for name, content in files.items() if content] or [""]))
    if name:
        bit = data.draw(st.integers(0, len(files[name]) * 8 - 1))
        changed = bytearray(files[name])
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "f00d" / name).write_bytes(bytes(changed))
        with pytest.raises(InvalidArtifact):
            verify(tmp_path / "f00d", "f00d")


def test_a_kill_while_sealing_leaves_all_or_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; from temper.artifacts import begin, seal\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; final = Path(sys.argv[1]) / str(n); aside = begin(final)\n"
        "    for i in range(3): (aside / str(i)).write_bytes(bytes([i]) * 10000)\n"
        "    print(n, flush=True); seal(aside, final, str(n), {})\n"
    )
    for delay in (0.0, 0.003, 0.011):
        folder = tmp_path / str(delay)
        process = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        clean_leftovers(folder)
        found = sorted(folder.iterdir())
        assert found
        for path in found:
            assert len(verify(path, path.name).files) == 3


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_the_hash_of_a_directory_changes_with_any_name_or_content(tmp_path):
    def content(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        return HashCache().hash(folder)

    contents = [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "12", "b": ""}, {"a": "1", "c": "2"}, {"a": "1"}]
    hashes = [content(**files) for files in contents]
    assert len(set(hashes)) == len(hashes)
    assert content(a="1", b="2") == hashes[0]


def test_hidden_files_are_not_content(tmp_path):
    (tmp_path / "a").write_text("x")
    before = HashCache().hash(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("x")
    (tmp_path / ".cache").write_text("x")
    assert HashCache().hash(tmp_path) == before


def test_a_remembered_hash_is_used_until_size_or_a_time_changes(tmp_path, monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    path = tmp_path / "a"
    path.write_text("one")
    os.utime(path, ns=(10**18, 10**18))
    first = HashCache()
    first.hash(path)
    told = {str(path): [*first.used[str(path)][:3], "remembered"]}
    assert HashCache(told).hash(path) == "remembered"
    path.write_text("two")
    os.utime(path, ns=(10**18, 10**18))  # its time set back
    assert HashCache(told).hash(path) == hash_file(path)
    told[str(path)][2] = path.stat().st_ctime_ns
    os.utime(path, ns=(10**18, 10**18 + 1))
    assert HashCache(told).hash(path) == hash_file(path)
    path.write_text("longer")
    os.utime(path, ns=(10**18, 10**18))
    assert HashCache(told).hash(path) == hash_file(path)


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    cache = HashCache()
    cache.hash(path)
    assert str(path) not in cache.used


@pytest.mark.parametrize("remembered", [{"a": 3}, {"a": []}, {"a": [1, 2]}, {"a": [None, None, None]}])
def test_a_torn_memory_of_hashes_is_no_harm(tmp_path, remembered):
    path = tmp_path / "a"
    path.write_text("one")
    assert HashCache({str(path): remembered["a"]}).hash(path) == hash_file(path)


def test_writing_atomically_replaces_the_whole_content(tmp_path):
    path = tmp_path / "a.json"
    for value in (1, "é"):
        write_atomically(path, json.dumps(value, ensure_ascii=False))
    assert path.read_text(encoding="utf-8") == '"é"'
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_killed_before_its_mark_was_written_is_cleared(tmp_path):
    for name, files in {"a1": (), "b2": (MARK,), "c3": (MARK, "mine.txt")}.items():
        (tmp_path / f".making-{name}").mkdir()
        for file in files:
            (tmp_path / f".making-{name}" / file).touch()
    clean_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".making-c3"]  # somebody's file lies in it


def test_a_damaged_mark_is_nobodys_and_harms_nothing(tmp_path):
    aside = begin(tmp_path / ("f00d" * 8))
    mark = next(path for path in aside.iterdir() if path.name.startswith("."))
    mark.write_bytes(b"\xc3\xff")
    clean_leftovers(tmp_path)
    assert mark.exists()
    assert begin(tmp_path / ("f00d" * 8)) != aside
