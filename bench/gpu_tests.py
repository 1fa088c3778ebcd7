"""The project's own tests that touch a device, where there is one; counts as one JSON line."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHERE = (
    "tests/kernels",
    "tests/rollout/test_slots.py",
    "tests/rollout/test_sampler.py",
    "tests/train/test_precision.py",
)


class Count:
    """A plugin of pytest that counts what became of tests."""

    def __init__(self) -> None:
        self.outcomes = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            if report.outcome == "failed":
                self.failed.append(report.nodeid)


def main() -> int:
    asked = sys.argv[1:] or [str(ROOT / place) for place in WHERE]
    count = Count()
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *asked], plugins=[count])
    print(json.dumps({**count.outcomes, "failures": count.failed, "code": int(code)}))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
