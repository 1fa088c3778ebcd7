"""The commands for a GPU machine: what they write whatever happens, what is made of it, that checks can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parent.parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import gpu_checks  # noqa: E402
import gpu_take  # noqa: E402
from gpu_recipe import settings, summary  # noqa: E402
from gpu_report import PLANNED, load, render  # noqa: E402
from gpu_take import take  # noqa: E402


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_measurement_keeps_its_figures_and_how_it_ended() -> None:
    fine = take(python("print('table'); print('{\"a\": 1}')"), 60)
    assert (fine["ended"], fine["figures"]) == ("ok", {"a": 1})
    failed = take(python("import sys; print('{\"a\": 2}'); sys.exit('no such device')"), 60)
    assert (failed["ended"], failed["figures"], failed["said"]) == ("code 1", {"a": 2}, ["no such device"])
    assert take(python("print('[1]')"), 60)["figures"] is None
    assert take(python("1"), 1)["ended"] == "no time left"


def test_one_that_is_late_is_stopped_with_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_take, "LEAST", 0)
    late = take(["sh", "-c", "sleep 100 & sleep 100"], 0.2)  # whose child holds its standard output open
    assert (late["ended"], late["figures"]) == ("late", None)
    assert late["seconds"] < 90


@pytest.mark.parametrize(
    "only", ["sampler against trainer, float32", "gradient, float16", "poisoned", "decode attention, window"]
)
def test_checks_pass_on_a_cpu(only: str) -> None:
    results = gpu_checks.run("cpu", only)
    assert results
    assert [name for name, result in results.items() if not result["passed"]] == []


def test_a_kernel_that_looks_too_far_fails_its_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_checks.attend_runs

    def wrong(query, keys, values, runs, positions, options, out) -> None:
        right(query, keys, values, runs._replace(lengths_R=runs.lengths_R + 1), positions, options, out)

    monkeypatch.setattr(gpu_checks, "attend_runs", wrong)
    results = gpu_checks.run("cpu", "decode attention, groups")
    assert not any(result["passed"] for result in results.values())


def test_a_check_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu_checks, "attend_runs", refuse)
    (result, *_) = gpu_checks.run("cpu", "decode attention, groups").values()
    assert (result["passed"], result["raised"]) == (False, "RuntimeError: no kernel image")


def test_every_stage_that_computes_is_put_on_the_device() -> None:
    given = settings("smoke", "cuda")
    assert "--set=reasoning_rl.device=cuda" in given
    assert not any("world" in setting for setting in given)
    assert summary({}, None)["stages"] == {}


def test_the_shell_script_takes_its_parts_by_number(tmp_path: Path) -> None:
    """A measurement that cannot run (here: no interpreter that knows temper) is written down, the next one tried."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\ncase $1 in *gpu_take.py) shift; echo "$@" >> "$ASKED"; exit 1;; esac\n')
    fake.chmod(0o755)
    asked = tmp_path / "asked"
    environment = {**os.environ, "PYTHON": str(fake), "ASKED": str(asked), "DEVICE": "cpu"}
    for part in "12345":
        done = subprocess.run(["bash", BENCH / "gpu.sh", part, tmp_path / "out"], env=environment)
        assert done.returncode == 1
    lines = asked.read_text().splitlines()
    names = [Path(line.split()[0]).stem for line in lines]
    assert names == [name for name in PLANNED if name != "2-tiny"]  # which is for a GPU
    assert all(Path(line.split()[3]).exists() for line in lines)
    assert all(float(line.split()[1]) <= 600 for line in lines)
    wrong = subprocess.run(["bash", BENCH / "gpu.sh"], capture_output=True, text=True, env=environment)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "gpu.sh PART" in wrong.stderr


def test_the_report_has_a_row_for_everything_planned(tmp_path: Path) -> None:
    ours = {"seconds": 2.0, "cpu_seconds": 2.0, "tokens_per_second": 131072.0, "peak_memory_bytes": 24e9}
    line = {
        "workload": "h200-05b", "parameters": 494e6, "config": {"prompts": 32, "group": 16, "prompt_tokens": 256},
        "lengths": {"min": 512, "max": 512}, "temper": ours, "other": {**ours, "seconds": 12.0}, "ratio": 6.0,
        "floor_share": 0.5, "floor": {"training": 0.4},
        "spread": {"temper": {"sampling_seconds": 1.2, "training_seconds": 0.8}},
    }  # fmt: skip
    checks = {
        "graphs": {"error": 0.0, "allowed": 0.0, "passed": True},
        "window": {"error": None, "allowed": None, "passed": False, "raised": "RuntimeError: no"},
    }
    entry = {"ended": "ok", "seconds": 9.0, "said": []}
    for name, figures in {"3-step-trl": line, "1-checks": {"machine": {"device": "H200"}, "checks": checks}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**entry, "figures": figures}))
    late = {"ended": "late", "seconds": 240.0, "figures": None, "said": ["reading | weights"]}
    (tmp_path / "5-15b-alone.json").write_text(json.dumps(late))
    text = render(load(tmp_path))
    assert "| h200-05b | 494 M | 32 × 16 | 256 + 512 | 2.00 s | 1.20 s | 131,072 | 0.50 | 0.50 | 24.0 GB |" in text
    assert "**6.00**" in text
    assert "late, 240 s | reading / weights" in text
    assert "| window | **failed** | RuntimeError: no |" in text
    assert all(name in text for name in PLANNED)
    assert torch.__version__ not in text  # nothing of this machine
