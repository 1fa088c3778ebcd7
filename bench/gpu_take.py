"""One measurement of `gpu.sh`: a command under a time limit, what came of it in one JSON file, also when it failed.

    python bench/gpu_take.py OUT/3-step.json 120 COMMAND ...

The file holds the command, `ended` ("ok", "code N", "late", "no time left"), its seconds, the JSON object on the last
line of its standard output (`figures`; null if there is none), and the end of what it said on standard error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TAIL = 40  # lines of standard error that are kept
LEAST = 5.0  # seconds, below which nothing is begun


def take(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run `command`, for at most `limit` seconds, itself and what it starts."""
    entry: dict[str, Any] = {"command": list(command), "limit": limit, "ended": "no time left"}
    entry |= {"seconds": 0.0, "figures": None, "said": []}
    if limit < LEAST:
        return entry
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        out, said = process.communicate(timeout=limit)
        entry["ended"] = "ok" if process.returncode == 0 else f"code {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # bench/run.py ends what it measures
        try:
            out, said = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, said = process.communicate()
        entry["ended"] = "late"
    return entry | {
        "seconds": round(time.monotonic() - began, 1),
        "figures": last_object(out),
        "said": said.strip().splitlines()[-TAIL:],
    }


def last_object(text: str) -> dict[str, Any] | None:
    """The JSON object on the last line.

    >>> last_object('a table\\n{"seconds": 1}\\n'), last_object("nothing")
    ({'seconds': 1}, None)
    """
    try:
        found = json.loads(text.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def main() -> int:
    if len(sys.argv) < 4:
        print("usage: gpu_take.py FILE SECONDS COMMAND ...", file=sys.stderr)
        return 2
    file, limit, *command = sys.argv[1:]
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"{target.stem}: at most {limit} s", file=sys.stderr, flush=True)
    entry = take(command, float(limit))
    target.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    print(f"{target.stem}: {entry['ended']} after {entry['seconds']:.0f} s", file=sys.stderr, flush=True)
    for line in entry["said"][-5:] if entry["ended"] != "ok" else ():
        print(f"  {line}", file=sys.stderr)
    return 0 if entry["ended"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
