"""The policy's weights to the servers that sample for it: by a directory that both can read.

Whole models: the server stands still, reads the files (`reload_weights`), drops what it had computed with the old
weights, is told the version's name, and goes on. Adapters: a new adapter for each version, under its name. Either way
the name is asked for afterwards, and a checksum of what the server holds must have changed with the weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, ResourceError, TemperError
from temper.models.adapters import has_adapters
from temper.rollout.wire import Server, Trouble, told

DEVELOPMENT = "start it with VLLM_SERVER_DEV_MODE=1: vLLM offers these routes only then"
ADAPTERS = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
LOOKED_AT = 4096  # numbers of a tensor
MARK = "complete"  # written last: what lies beside it is whole


@dataclass(frozen=True)
class Version:
    """Weights under a name that no others have, and the directory that holds them."""

    name: str
    folder: Path
    is_adapter: bool = False


def write_version(model: Any, folder: Path, name: str) -> Version:
    """The weights of `model` below `folder`; of a model with adapters the adapters alone."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / MARK).write_text(name, encoding="utf-8")
    return Version(name, out.resolve(), has_adapters(model))


def forget_versions(folder: Path, but: str = "") -> None:
    """Remove what `write_version` wrote, but for the version of that name."""
    for mark in sorted(folder.glob(f"*/{MARK}")):
        if mark.parent.name != but:
            shutil.rmtree(mark.parent, ignore_errors=True)


def sample_of(model: Any) -> bytes:
    """A digest of some numbers of every trained tensor: an update that moves any of them in earnest changes it."""
    digest = blake2b(digest_size=16)
    for parameter in model.parameters():
        if parameter.requires_grad:
            digest.update(parameter.detach().flatten()[:LOOKED_AT].float().cpu().numpy().tobytes())
    return digest.digest()


def deliver(server: Server, version: Version, before: Version | None) -> Mapping[str, str]:
    """Make the server answer with `version`; the checksums of what it then holds, {} where it cannot tell.

    Raises ConfigError where it lacks the routes, ResourceError where it cannot be reached or fails.
    """
    try:
        if version.is_adapter:
            _deliver_adapter(server, version, before)
            return {}
        _deliver_model(server, version)
    except Trouble as trouble:
        raise _failed(server, trouble, ADAPTERS if version.is_adapter else DEVELOPMENT) from None
    if (held := held_by(server)) is not None and held != version.name:
        raise ResourceError(told(server, "the server did not take the new weights", f"it says it holds `{held}`"))
    return checksums(server)


def _deliver_model(server: Server, version: Version) -> None:
    server.post("/pause?mode=keep")
    # after a failure it stays paused: half of its weights may be new ones, and nothing must be drawn from them
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(version.folder)}, "timeout": server.timeout}
    server.post("/collective_rpc", body)
    server.post("/reset_prefix_cache")
    server.post("/update_weight_version", {"new_version": version.name})
    server.post("/resume")


def _deliver_adapter(server: Server, version: Version, before: Version | None) -> None:
    server.post("/v1/load_lora_adapter", {"lora_name": version.name, "lora_path": str(version.folder)})
    if before is not None:
        try:
            server.post("/v1/unload_lora_adapter", {"lora_name": before.name})
        except Trouble as trouble:
            if trouble.gone:
                raise  # else it had lost it already


def _failed(server: Server, trouble: Trouble, hint: str) -> TemperError:
    what = "the server did not take the new weights"
    if trouble.status in (404, 405):
        return ConfigError(told(server, what, str(trouble), hint))
    again = "see that it is up and can read that directory, then run the same command again"
    return ResourceError(told(server, what, str(trouble), again))


def held_by(server: Server) -> str | None:
    """The name of the weights that the server says it holds; None where it cannot tell. Raises Trouble where it cannot
    be reached."""
    try:
        said = server.get("/weight_info")
    except Trouble as trouble:
        if trouble.gone or trouble.status not in (404, 405):
            raise
        return None
    return str(said.get("weight_version")) if isinstance(said, Mapping) else None


def checksums(server: Server) -> Mapping[str, str]:
    """Digests of the weights that the server holds, by name; {} where it cannot tell."""
    try:
        said = server.post("/weight_checker", {"action": "checksum"})
    except Trouble:
        return {}
    found = said.get("checksums") if isinstance(said, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def check_arrival(servers: Sequence[Server], found: Sequence[Mapping[str, str]], before: Mapping[str, str]) -> None:
    """Raises ResourceError where servers hold different weights, or still those of `before`."""
    known = [(server, sums) for server, sums in zip(servers, found, strict=True) if sums]
    for server, sums in known:
        if sums != known[0][1]:
            why = f"its weights are not those of {known[0][0].url}"
            raise ResourceError(told(server, "two servers hold different weights", why, "start both alike"))
        if sums == before:
            why = "their checksums are what they were before the update"
            raise ResourceError(told(server, "the new weights never arrived", why, "see what the server's log says"))


def lost(server: Server, held: str, version: Version) -> ResourceError:
    """A server that was started again, or updated by somebody else, in the middle of a step."""
    why = f"it answered with `{held}` in place of `{version.name}`"
    fix = "run the same command again: it goes on from the last checkpoint"
    return ResourceError(told(server, "a server lost the policy's weights", why, fix))
