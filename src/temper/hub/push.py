"""A model directory sent to the Hub: one commit to a repository that is private unless somebody said otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from temper.environment import is_offline
from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.hub.cache import library

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot be a repository, TemperError with exit code 9 without huggingface_hub."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(("-", ".", ".git")):
        raise ConfigError(Fault(f"--push `{name}` names no repository", fix="write `--push ORG/NAME`"))
    library("")


def push(folder: Path, name: str, private: bool = True) -> str:
    """Send every file of `folder` and return the address. A repository that is there already keeps who may see it.

    Raises TemperError with exit code 4: no network, or `HF_HUB_OFFLINE`; 2: no access token, or none that may write.
    """
    hub = library("")
    was_offline = hub.constants.HF_HUB_OFFLINE
    try:
        if is_offline():
            raise hub.errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
        hub.constants.HF_HUB_OFFLINE = False  # for this once: the rest of the process stays offline
        api = hub.HfApi()
        address = api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, repo_type="model", commit_message="Model trained with temper"
        )
    except Exception as error:
        raise _refused(folder, name, error) from None
    finally:
        hub.constants.HF_HUB_OFFLINE = was_offline
    return str(address)


def _refused(folder: Path, name: str, error: Exception) -> TemperError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    kept = f"the model is in {folder}"
    if status in (401, 403) or kind == "LocalTokenNotFoundError":
        why = f"the Hub asks for an access token that may write there; {kept}"
        fix = f"`hf auth login`, then the same command with another DIR, or `hf upload {name} {folder}`"
        return ConfigError(Fault(f"`{name}` was not sent to the Hub", why=why, fix=fix))
    why = "HF_HUB_OFFLINE is set" if kind == "OfflineModeIsEnabled" else f"{kind}: {' '.join(str(error).split())[:160]}"
    fix = f"where there is a network: `hf upload {name} {folder}`"
    return TemperError(Fault(f"`{name}` was not sent to the Hub", why=f"{why}; {kept}", fix=fix), Exit.RESOURCES)
