"""The file of a checkpoint's tensors: read by safetensors as it was given, whatever the tensors are like."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from temper.train.checkpoint import DTYPES, write_tensors


def test_every_kind_of_tensor_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = torch.arange(256).float()
    given = {f"{dtype}": torch.arange(7).to(dtype) for dtype in DTYPES}
    given |= {
        "a number": torch.tensor(1.5), "empty": torch.zeros(0, 3), "turned": torch.arange(6.0).view(2, 3).T,
        "trained": torch.nn.Parameter(torch.randn(3, 5, dtype=torch.bfloat16)), "one": table, "again": table,
        "part": table[3:9], "\u00fc\"": torch.tensor([True]),
    }  # fmt: skip
    write_tensors(given, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(given)
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor.detach()), name


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    given = {name: torch.randn(4) for name in "abc"}
    for file in ("x", "y"):
        write_tensors(given, tmp_path / file)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
