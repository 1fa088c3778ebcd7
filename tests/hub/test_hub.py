"""Names of the Hub, against a Hub on loopback: found, pinned to a commit, and afterwards never asked for again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.hub import FakeHub, fake_hub
from forked import Command

from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.hub import cache
from temper.hub.names import data_name, is_hub_model
from temper.hub.splits import choose, splits_of

README = b"""---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files: socratic/*
---
# Sums
"""


def rows(*numbers: int) -> bytes:
    return "".join(json.dumps({"question": f"{n}+0?", "answer": f"#### {n}"}) + "\n" for n in numbers).encode()


REPOS = {
    "datasets/org/sums": {
        "README.md": README,
        "main/train-00000-of-00002.jsonl": rows(1, 2),
        "main/train-00001-of-00002.jsonl": rows(3),
        "main/test-00000-of-00001.jsonl": rows(4),
        "socratic/train.jsonl": rows(5),
    },
    "datasets/org/plain": {"test.jsonl": rows(6), "notes.txt": b"hello"},
    "models/org/tiny": {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle"},
}


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub(REPOS) as served:
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


def temper(hub: FakeHub | None, home: Path, *words: str, offline: str = "0") -> subprocess.CompletedProcess:
    """A command with its own cache; without a hub, no address answers."""
    hub_is = {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    inherited = {key: value for key, value in os.environ.items() if key not in ("TEMPER_HUB_OFFLINE", "HF_TOKEN")}
    env = {**inherited, "TRANSFORMERS_OFFLINE": "0", **hub_is, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if words[0] == "-c":
        return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=120)
    return subprocess.CompletedProcess(words, *Command(*words, environment=env).finish())


def test_a_split_loads_as_one_file_and_is_not_asked_for_again(hub: FakeHub, home: Path) -> None:
    name = "hf://org/sums?name=main&split=train"
    first = temper(hub, home, "check", name, "--json")
    assert first.returncode == 0, first.stderr
    (told,) = json.loads(first.stdout)["files"]
    assert (told["rows"], told["shape"]) == (3, "verifiable")
    hub.asked.clear()
    again = temper(hub, home, "check", name, "--json")
    assert again.stdout == first.stdout
    assert hub.asked == []
    assert temper(None, home, "check", name).returncode == 0


def test_a_branch_stays_at_the_commit_that_was_fetched(home: Path) -> None:
    name = "hf://org/plain?split=test"
    with fake_hub(dict(REPOS)) as moving:
        assert temper(moving, home, "check", name).returncode == 0
        before = moving.commit("datasets/org/plain")
        moving.repos["datasets/org/plain"] = {"test.jsonl": rows(7, 8), "train.jsonl": rows(9)}
        assert "1 row" in temper(moving, home, "check", name).stdout
        pinned = temper(moving, home, "check", f"{name}&revision={moving.commit('datasets/org/plain')}")
        assert "2 rows" in pinned.stdout, pinned.stderr
        assert before != moving.commit("datasets/org/plain")


def test_what_leaves_a_choice_lists_it(hub: FakeHub, home: Path) -> None:
    several = temper(hub, home, "check", "hf://org/sums")
    assert several.returncode == 3
    assert "main, socratic" in several.stderr
    assert "`name=main`" in several.stderr
    split = temper(hub, home, "check", "hf://org/sums?name=main")
    assert "there are train, test" in split.stderr
    assert "Traceback" not in split.stderr + several.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("check", "hf://org/nope"), 3, "no data set `org/nope` on the Hub"),
        (("check", "hf://org/plain?revision=v9"), 3, "no such revision"),
        (("check", "hf://org/plain?splt=test"), 2, "no `splt`"),
        (("eval", "org/nope", "--tasks", "arithmetic"), 5, "no model `org/nope` on the Hub"),
    ],
)
def test_what_is_not_there_is_one_error(hub: FakeHub, home: Path, words: tuple, code: int, says: str) -> None:
    done = temper(hub, home, *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error:") == 1
    assert says in done.stderr


def test_without_a_network_the_error_says_what_to_type_where_there_is_one(home: Path) -> None:
    done = temper(None, home, "check", "hf://org/sums?name=main&split=train")
    assert done.returncode == 3
    assert "hf download org/sums --repo-type dataset" in done.stderr
    model = temper(None, home, "chat", "org/tiny")
    assert model.returncode == 5
    assert "`hf download org/tiny`" in model.stderr


def test_a_user_who_wants_no_network_is_asked_first(hub: FakeHub, home: Path) -> None:
    hub.asked.clear()
    done = temper(hub, home, "check", "hf://org/sums?name=main&split=train", offline="1")
    assert done.returncode == 3
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert hub.asked == []


def test_what_was_fetched_by_hand_is_found_without_a_network(hub: FakeHub, home: Path) -> None:
    code = "import huggingface_hub as h; h.snapshot_download('org/sums', repo_type='dataset')"
    assert temper(hub, home, "-c", code).returncode == 0
    assert temper(None, home, "check", "hf://org/sums?name=main&split=train").returncode == 0


def test_a_recipe_takes_data_from_the_hub_and_its_fingerprint_names_the_commit(hub: FakeHub, home: Path) -> None:
    recipe = home.parent / "my.yaml"
    task = '{train: "hf://org/sums?name=main&split=train", test: "hf://org/sums?name=main&split=test"}'
    stage = "{stage: evaluate, models: [tiny-base], tasks: [sums]}"
    recipe.write_text(f"name: my\ntasks:\n  sums: {task}\nstages:\n  report: {stage}\n")
    code = (
        "import sys; from temper.planning.preflight import prepare\n"
        "plan, _ = prepare(sys.argv[1]); print(plan.stages[0].material['inputs'])"
    )
    done = temper(hub, home, "-c", code, str(recipe))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(hub.commit("datasets/org/sums")) == 2


def test_a_model_comes_without_pickles(hub: FakeHub, home: Path) -> None:
    code = "from temper.runs import resolve_model as of; print(sorted(f.name for f in of('org/tiny').iterdir()))"
    for served in (hub, None):
        done = temper(served, home, "-c", code)
        assert done.stdout.strip() == "['config.json', 'model.safetensors']", done.stderr


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(TemperError) as caught:
        cache.cached("org/sums", "dataset", "main", "my.yaml:3:4")
    assert caught.value.code == Exit.OPTIONAL_PART
    assert 'pip install "temper-rl[hub]"' in caught.value.render()


def test_names_are_read_strictly() -> None:
    assert data_name("hf://datasets/org/sums/main/train.jsonl").file == "main/train.jsonl"
    for wrong in ("hf://", "hf://org/../x", "hf://org/sums?split=a&split=b", "hf://org/sums?token=x", "hf://a b/c"):
        with pytest.raises(ConfigError):
            data_name(wrong)


def test_a_path_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_model("Qwen/Qwen3-0.6B")
    assert is_hub_model("Qwen/Qwen3-0.6B@main")
    (tmp_path / "Qwen").mkdir()
    for path in ("Qwen/Qwen3-0.6B", "./a/b", "/a/b", "a/b/c", "~/a", "model", "../a"):
        assert not is_hub_model(path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["data/train-00000-of-00001.parquet"], {"default": ["train"]}),
        (["data/default-00000-of-00001.parquet"], {"default": ["default"]}),
        (["train.jsonl", "test.jsonl", "dev.jsonl"], {"default": ["test", "train", "validation"]}),
        (["gpqa_diamond.csv", "gpqa_main.csv"], {"default": ["train"]}),
        (["main/train/0000.parquet", "main/test/0000.parquet"], {"main": ["test", "train"]}),
        (["train.parquet", "train.jsonl"], {"default": ["train"]}),
        (["README.md", "dataset_infos.json", "model.py"], {}),
    ],
)
def test_splits_are_found_by_the_names_of_files(files: list[str], expected: dict) -> None:
    assert {name: sorted(splits) for name, splits in splits_of(files).items()} == expected


def test_a_readme_that_cannot_be_read_is_no_harm() -> None:
    for readme in ("---\n: [\n---\n", "---\nconfigs: 5\n---\n", "---\nconfigs: [5, {data_files: }]\n---\n", "---"):
        assert splits_of(["test.jsonl"], readme) == {"default": {"test": ["test.jsonl"]}}
    assert isinstance(choose({}, "", "", "hf://a/b"), Fault)
