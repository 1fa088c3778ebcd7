"""Starting measured processes, one at a time, each fresh, all with the same Python, threads and environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import MemoryWatch
from workloads import Workload

HERE = Path(__file__).parent
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ChildError(Exception):
    """A measured process did not give a result; `kind` is "failed", "late" or "out of memory"."""

    def __init__(self, text: str, kind: str = "failed"):
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Runner:
    """Everything that the measured processes of one run share."""

    work: Workload
    folder: Path  # scratch
    steps: int
    threads: int
    sample_only: bool
    timeout: float

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def run(self, script: str, variant: str = "", watch: bool = False, **changes: Any) -> dict[str, Any]:
        """What `script` found. `variant` tells it which of several things to measure, `watch` adds an untimed step for
        "peak_memory_bytes", `changes` replace fields of the workload. Raises ChildError."""
        spec = {
            "workload": {**asdict(self.work), **changes},
            "model": str(self.model),
            "steps": self.steps,
            "watch": watch,
            "sample_only": self.sample_only,
            "variant": variant,
        }
        file = self.folder / "spec.json"
        file.write_text(json.dumps(spec), encoding="utf-8")
        log = self.folder / "child.log"
        environment = {**os.environ, **ENVIRONMENT, **dict.fromkeys(THREADS, str(self.threads))}
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, str(HERE / script), str(file)],
                stdout=subprocess.PIPE, stderr=errors, env=environment, text=True, start_new_session=True,
            )  # fmt: skip
            stop = threading.Timer(self.timeout, _kill, [process])
            stop.start()
            try:
                result = _listen(process)
                late = not stop.is_alive()
                with suppress(subprocess.TimeoutExpired):  # what it leaves running is ended below
                    process.wait(10)
            finally:
                stop.cancel()
                _kill(process)
        if result is None:
            if late:
                raise ChildError(f"{script} {variant} gave no result within {self.timeout:.0f} s", "late")
            text = log.read_text(encoding="utf-8", errors="replace")
            kind = "out of memory" if "OutOfMemoryError" in text else "failed"
            raise ChildError(f"{script} {variant} ended with code {process.returncode}:\n{_tail(text)}", kind)
        return result


def _listen(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Follow the events up to the result; None if the process ends without one."""
    watch, peak = MemoryWatch(process.pid), 0
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if message["event"] == "watch":
            watch.start()
        elif message["event"] == "watched":
            peak = watch.stop()
        elif message["event"] == "step":
            name = "warm-up" if message["number"] == 0 else f"step {message['number']}"
            print(f"  {name}: {message['seconds']:.3f} s", file=sys.stderr, flush=True)
        elif message["event"] == "result":
            message["peak_memory_bytes"] = message.get("peak_memory_bytes") or peak
            return message
    watch.stop()
    return None


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and what it started: they are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
