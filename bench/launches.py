"""How many kernels a decode step launches on a GPU, counted without one.

    python bench/launches.py
    python bench/launches.py --layers 28 --rows 64 --prefix 64

A step of a Qwen2 model with that many layers and tiny widths is taken on the CPU, and what it asks of torch and of
Triton is counted: every operation that computes or copies is one launch, views and new memory are none. (Triton's
kernels are not run, but for the one that says which tokens are fed: what they would write decides nothing about what
is launched.) So it is the least that a captured graph holds: cuBLAS splits a product in two where it thinks that pays,
and torch takes several launches for a sort or a running sum (cuts by `--top-p` or `--top-k`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

if __name__ == "__main__":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where a kernel is defined

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from temper.kernels.attention import NAME, register
from temper.kernels.forwards import in_place
from temper.kernels.layers import scoring_forwards
from temper.rollout.buffers import ALIVE, LENGTH, LIMIT, START, Buffers, Layout
from temper.rollout.engine import Sampling
from temper.rollout.slots import decode_step

PARTS = {
    "norm": "norms and residuals", "attn": "attention", "mlp": "gated unit", "rotary": "angles", "embed": "embedding",
    "head": "head",
}  # fmt: skip
REST = "what is fed and drawn"
NOTHING = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "alias", "_unsafe_view")
PROMPT = 5  # tokens


@dataclass
class Launches:
    """(part of the step, operation) of every launch."""

    made: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """A Markdown table: how many of what by part."""
        lines = ["| part | launches | of which |", "|---|---|---|"]
        for part in dict.fromkeys(part for part, _ in self.made):
            names = Counter(name for where, name in self.made if where == part)
            said = ", ".join(f"{count} {name}" for name, count in names.most_common())
            lines.append(f"| {part} | {names.total()} | {said} |")
        return "\n".join([*lines, f"| **together** | **{len(self.made)}** | |"])


class _Counting(TorchDispatchMode):
    """Counts torch's operations and, by `launch`, Triton's."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = Launches()
        self.inside: list[str] = []  # names of the modules that are being called

    def note(self, name: str, part: str | None = None) -> None:
        called = ".".join(self.inside[1:])
        found = next((title for key, title in PARTS.items() if key in called.rsplit(".", 1)[-1]), None)
        found = found or next((title for key, title in PARTS.items() if key in called), REST)
        self.launches.made.append((part or found, name))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        if not (func.is_view or name in NOTHING):
            self.note(name)
        return func(*args, **(kwargs or {}))

    def launch(self, kernel: Any, grid: Any) -> Any:
        def run(*args: Any, **named: Any) -> Any:
            self.note(kernel.__name__, "norms and residuals" if kernel.__name__ == "_norm" else None)
            if kernel.__name__ == "_feed":
                with _disable_current_modes():  # what its interpreter asks of torch is its own
                    kernel.run(*args, grid=grid, warmup=False, **named)

        return run


@contextmanager
def counted(model: nn.Module) -> Iterator[Launches]:
    """What is launched within, by the modules of `model` and beside them."""
    counting = _Counting()
    inner = tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))  # a hook would keep them apart
    names = {module: name or "model" for name, module in model.named_modules() if not name.endswith(inner)}
    hooks = [
        hook
        for module in names
        for hook in (
            module.register_forward_pre_hook(lambda module, _: counting.inside.append(names[module])),
            module.register_forward_hook(lambda *_: counting.inside.pop() and None),
        )
    ]
    try:
        with _triton(counting), counting:
            yield counting.launches
    finally:
        for hook in hooks:
            hook.remove()


def _triton(counting: _Counting) -> Any:
    from triton.runtime.jit import KernelInterface

    return mock.patch.object(KernelInterface, "__getitem__", lambda kernel, grid: counting.launch(kernel, grid))


def tiny_model(layers: int) -> Any:
    """Qwen2's layers, 14 heads on 2 as in the 0.5 B model; nothing else of its size matters to a count."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    register()
    size: dict[str, Any] = {"vocab_size": 64, "hidden_size": 56, "intermediate_size": 32, "num_hidden_layers": layers}
    config = Qwen2Config(**size, num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True)
    config._attn_implementation = NAME
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval()


def count_step(model: Any, rows: int, columns: int, prefix: int, sampling: Sampling, plain: bool = False) -> Launches:
    """The launches of one token of each of `rows` rows, two to a prompt, that may have `columns` tokens each; the
    prompts begin with the same `prefix` tokens. `plain`: with the model's own layers."""
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    of_layer = config.num_key_value_heads, size, size
    prompts = -(-rows // 2)
    layout = Layout(rows, columns, prompts, PROMPT, prefix, 2)
    buffers = Buffers(layout, [of_layer] * config.num_hidden_layers, model.dtype, model.device)
    buffers.reset(prefix)
    buffers.state[START], buffers.state[LIMIT] = prefix + PROMPT, columns
    buffers.state[LENGTH], buffers.state[ALIVE] = 2, 1
    groups = [(run, prefix + PROMPT, list(range(2 * run, min(rows, 2 * run + 2)))) for run in range(prompts)]
    buffers.look(groups)
    stop_ids = torch.tensor([1, 2])
    with torch.no_grad(), in_place(() if plain else scoring_forwards(model)), counted(model) as launches:
        decode_step(model, buffers, rows, sampling, stop_ids)
    return launches


def main() -> None:
    parser = argparse.ArgumentParser(description="kernels that a decode step launches, counted without a GPU")
    parser.add_argument("--layers", type=int, default=24, metavar="N")
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="decoded together, two to a prompt")
    parser.add_argument("--columns", type=int, default=64, metavar="N", help="tokens that a row may have")
    parser.add_argument("--prefix", type=int, default=0, metavar="N", help="tokens that all prompts begin with")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--top-k", type=int, default=0, metavar="K")
    parser.add_argument("--plain", action="store_true", help="with the model's own layers")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sampling = Sampling(given.columns, top_p=given.top_p, top_k=given.top_k)
    model = tiny_model(given.layers)
    launches = count_step(model, given.rows, given.columns, given.prefix, sampling, given.plain)
    if given.json:
        print(json.dumps({"launches": len(launches.made), "parts": Counter(part for part, _ in launches.made)}))
    else:
        print(launches.table())


if __name__ == "__main__":
    main()
