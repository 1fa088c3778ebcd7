"""A model sent to a Hub on loopback: private unless said otherwise, nothing sent without leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.hub import FakeHub, fake_hub

from temper.errors import ConfigError
from temper.hub.push import check_name

pytest.importorskip("huggingface_hub")

SCRIPT = """
import sys
from pathlib import Path
from temper.errors import TemperError
from temper.hub.push import push
try:
    print(push(Path(sys.argv[1]), sys.argv[2], private=sys.argv[3] == "private"))
except TemperError as error:
    print(error.render())
    sys.exit(error.code)
"""


def pushed(hub: FakeHub | None, folder: Path, name: str, how: str = "private", token: str = "", offline: str = "0"):
    env = {key: value for key, value in os.environ.items() if key not in ("TEMPER_HUB_OFFLINE", "HF_TOKEN")}
    env |= {"HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "HF_HOME": str(folder.parent / "hf"),
            "HF_HUB_OFFLINE": offline, "TRANSFORMERS_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    env |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-c", SCRIPT, str(folder), name, how]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "README.md").write_text("# Mine")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def test_every_file_arrives_in_a_private_repository(folder: Path) -> None:
    with fake_hub({}) as hub:
        hub.token = "hf_test"
        done = pushed(hub, folder, "org/mine", token="hf_test")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "org/mine" in done.stdout
        assert hub.made == {"org/mine": True}
        sent = {name: data for name, data in hub.repos["models/org/mine"].items() if name != ".gitattributes"}
        assert sent == {file.name: file.read_bytes() for file in folder.iterdir()}
        assert pushed(hub, folder, "org/open", "public", token="hf_test").returncode == 0
        assert hub.made["org/open"] is False


def test_without_leave_nothing_is_sent_and_the_model_is_kept(folder: Path) -> None:
    with fake_hub({}) as hub:
        hub.token = "hf_test"
        done = pushed(hub, folder, "org/mine", token="hf_wrong")
    assert done.returncode == 2
    assert "hf auth login" in done.stdout
    assert "hf_wrong" not in done.stdout + done.stderr
    assert not hub.repos


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_it_is_told_how_to_send_it_later(folder: Path, offline: str) -> None:
    done = pushed(None, folder, "org/mine", token="hf_test", offline=offline)
    assert done.returncode == 4
    assert f"hf upload org/mine {folder}" in done.stdout


@pytest.mark.parametrize("name", ["mine", "org/", "/mine", "a/b/c", "org/mi ne", "org/..", "org/a--b", "org/x.git", ""])
def test_what_is_no_repository_is_told_before_anything_is_written(name: str) -> None:
    with pytest.raises(ConfigError, match="names no repository"):
        check_name(name)
