"""Products of ever other sizes: what oneDNN keeps for each stays bounded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from temper.kernels.product import has_onednn

MANY_SHAPES = """
import resource, torch
from pathlib import Path
from temper.kernels import choice
from temper.kernels.product import linear
choice.pin("onednn")
torch.set_num_threads(1)
weight = torch.randn(384, 128, requires_grad=True)

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

def products(first, count):
    for rows in range(first, first + count):
        linear(torch.randn(rows, 128), weight).sum().backward()

products(200, 80)
before = megabytes()
products(300, 150)
print(megabytes() - before)
"""


@pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")
def test_memory_does_not_grow_with_the_number_of_shapes() -> None:
    done = subprocess.run([sys.executable, "-c", MANY_SHAPES], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50  # 267 without a bound
