"""Tasks of reasoning-gym: a set by name, size, seed and config, written as a file by a process that can be ended.

A row says which entry of which set it is; the reward `gym` (`rewards/gym.py`) holds replies against that entry.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from temper.errors import ConfigError, Exit, Fault, TemperError
from temper.rewards.gym import JUNK, JUNK_AT_MOST, entries, score_entry

TIMEOUT = 300.0  # seconds for a set to be made and tried
SPARE = 10  # entries looked at for each that is wanted, where some are not
TRIED = 20  # entries, from the first to the last, that a set is tried on
_BOOT = "import json, sys; path = json.loads(sys.argv[1]); sys.path[:] = path; from temper.data.gym import main; main()"


def gym_file(name: str, size: int, seed: int, config: Mapping[str, Any], unlike: tuple[int, int] | None = None) -> Path:
    """The file of a set's prompts, made and tried once a process; with `unlike`, the size and seed of another file of
    it, of prompts that are not in that one, and each once, as far as the set has so many. Raises ConfigError for a set
    that does not exist or cannot be made, or whose own answers do not score 1 (junk 0, and all the same twice);
    TemperError without the library."""
    spec: dict[str, Any] = {"set": name, "size": size, "seed": seed, "config": dict(config)}
    if unlike is not None:
        spec["unlike"] = dict(zip(("size", "seed"), unlike, strict=True))
    key = hashlib.blake2b(json.dumps(spec, sort_keys=True).encode(), digest_size=8).hexdigest()
    if key not in _made:
        path = Path(_folder()) / f"{name if name.isidentifier() else 'set'}-{key}.jsonl"
        try:
            _make(spec, path)
            _made[key] = path
        except TemperError as error:
            _made[key] = error
    found = _made[key]
    if isinstance(found, TemperError):
        raise found
    return found


_made: dict[str, Path | TemperError] = {}  # a set that cannot be made is not tried again
_folders: list[str] = []


def _folder() -> str:
    if not _folders:
        _folders.append(tempfile.mkdtemp(prefix="temper-gym-"))
        atexit.register(shutil.rmtree, _folders[0], ignore_errors=True)
    return _folders[0]


def _make(spec: Mapping[str, Any], path: Path) -> None:
    what = f"the reasoning-gym set `{spec['set']}`"
    command = [sys.executable, "-B", "-P", "-c", _BOOT, json.dumps(sys.path), json.dumps(spec), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(Fault(f"{what} was not made within {TIMEOUT:g} s", fix="a smaller `size`")) from None
    said = done.stdout.strip().splitlines()
    try:
        found = json.loads(said[-1])
    except (IndexError, ValueError):
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ConfigError(Fault(f"{what} cannot be made", why=why)) from None
    if found.get("missing"):
        fault = Fault(f"{what} needs reasoning-gym, which is not installed", fix='pip install "temper-rl[gym]"')
        raise TemperError(fault, Exit.OPTIONAL_PART)
    if found.get("problem"):
        raise ConfigError(Fault(f"{what} {found['problem']}", why=found.get("why", ""), fix=found.get("fix", "")))


# -- in the process of its own ----------------------------------------------------------------------------------------


def main() -> None:
    """Write the rows of the set in `sys.argv[2]` to the file in `sys.argv[3]`; say in a line of JSON what is wrong."""
    spec, path = json.loads(sys.argv[2]), Path(sys.argv[3])
    try:
        found = _written(spec, path)
    except ImportError:
        found = {"missing": True}
    except BaseException as error:
        found = {"problem": "cannot be made", "why": f"{type(error).__name__}: {error}"[:500]}
    print("\n" + json.dumps(found), flush=True)


def _written(spec: Mapping[str, Any], path: Path) -> dict[str, str]:
    import difflib

    import reasoning_gym.factory  # type: ignore[import-not-found]

    known = sorted(reasoning_gym.factory.DATASETS)
    if spec["set"] not in known:
        close = difflib.get_close_matches(spec["set"], known, n=1)
        fix = f"did you mean `{close[0]}`?" if close else f"one of {', '.join(known)}"
        return {"problem": "does not exist", "fix": fix}
    unlike, of_set = spec.get("unlike"), {name: spec[name] for name in ("set", "size", "seed", "config")}
    if unlike is not None:
        of_set["size"] *= SPARE
    made, again = entries(of_set), entries(of_set, fresh=True)
    size = min(spec["size"], len(made))
    for index in sorted({i * (size - 1) // max(1, TRIED - 1) for i in range(TRIED)}):
        if problem := _problem(made, again, index):
            return {"problem": f"cannot be trusted: {problem}", "why": f"entry {index} of {size}"}
    chosen = range(size) if unlike is None else _unlike(made, entries({**of_set, **unlike}), size)
    with path.open("w", encoding="utf-8") as stream:
        for index in chosen:
            entry = made[index]
            answer = entry["answer"]
            row = {"question": entry["question"], "answer": None if answer is None else str(answer)}
            stream.write(json.dumps({**row, "gym": {**of_set, "index": index}}, ensure_ascii=False) + "\n")
    return {}


def _unlike(made: Any, other: Any, wanted: int) -> list[int]:
    """The first `wanted` entries whose questions are not in `other` nor before; where there are not so many, with more
    of the first ones, whatever they ask."""
    asked = {other[index]["question"] for index in range(len(other))}
    found: dict[int, None] = {}
    for index in range(len(made)):
        if len(found) == wanted:
            break
        if (question := made[index]["question"]) not in asked:
            asked.add(question)
            found[index] = None
    more = (index for index in range(len(made)) if index not in found)
    return sorted([*found, *islice(more, wanted - len(found))])


def _problem(made: Any, again: Any, index: int) -> str:
    """What is wrong with an entry, "" if nothing is."""
    entry, other = made[index], again[index]
    if (entry["question"], entry["answer"]) != (other["question"], other["answer"]):
        return "made twice from one seed, its entries differ"
    own = [score_entry(made, entry["answer"], entry) for _ in range(2)]
    if own[0] != own[1]:
        return f"its own answer scores {own[0]:g}, then {own[1]:g}"
    if own[0] != 1.0:
        return f"its own answer scores {own[0]:g}, not 1"
    junk = score_entry(made, JUNK, entry)
    return "" if junk <= JUNK_AT_MOST else f"junk scores {junk:g}, not 0"
