"""Kernels and engine on a device against plain torch, each with its error and what is allowed, as a JSON line.

    python bench/gpu_checks.py [--device cpu]

With half precision the yardstick is what rounding alone does: plain torch in that precision against plain torch in
float32. On a CPU the kernel runs in Triton's interpreter (TRITON_INTERPRET=1), or masks take its place.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from temper.data.batching import make_batch
from temper.kernels import decode_triton, varlen
from temper.kernels.attention import NAME, Options, Partial, register
from temper.kernels.decode_triton import Runs, attend_runs, blank, merge_pieces
from temper.kernels.forwards import in_place
from temper.kernels.layers import training_forwards
from temper.kernels.masked import MaskedBlocks
from temper.kernels.runs import Row
from temper.rollout.engine import Request, Sampling
from temper.rollout.slots import SlotEngine
from temper.train.forward import plan_batch, score_targets
from temper.types import Completion, Example

YARDSTICK = 2.0  # times what rounding alone does
LEAST = 2e-5  # of the largest value: float32 sums in another order

Check = Callable[[str], dict[str, Any]]


def judged(error: float, allowed: float, **more: Any) -> dict[str, Any]:
    return {"error": error, "allowed": allowed, "passed": bool(error <= allowed), **more}


def distance(found: Tensor, exact: Tensor) -> float:
    """The largest difference, of the largest value."""
    exact = exact.double().cpu()
    return float((found.double().cpu() - exact).abs().max() / exact.abs().max())


# -- attention ---------------------------------------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "groups": {"lengths": (130, 3, 40), "each": 5},
    "one row a run": {"lengths": (5, 1, 64, 17), "each": 1},
    "window": {"lengths": (100, 12), "each": 3, "window": 9},
    "softcap": {"lengths": (70, 8), "each": 3, "softcap": 5.0},
    "wide heads": {"lengths": (90, 7), "each": 4, "size": 128},
}


def decode_attention(device: str, name: str, dtype: torch.dtype, pieces: int) -> dict[str, Any]:
    """The decode kernel against masks in float32."""
    shape = {"heads": 14, "key_heads": 2, "size": 64, "window": None, "softcap": None, **SHAPES[name]}
    torch.manual_seed(0)
    lengths, each, runs = torch.tensor(shape["lengths"]), shape["each"], len(shape["lengths"])
    rows = torch.arange(runs * each).view(runs, each)
    kept = (runs, shape["key_heads"], int(lengths.max()) + 8, shape["size"])
    keys, values = (torch.randn(kept).to(dtype) for _ in range(2))
    for tensor in (keys, values):  # what stands behind a run must never be looked at
        for run, length in enumerate(lengths.tolist()):
            tensor[run, :, length:] = float("nan")
    query = torch.randn(runs * each, shape["heads"], shape["size"]).to(dtype)
    starts = torch.zeros(runs, dtype=torch.long)
    positions = (lengths - 1).repeat_interleave(each)
    table = Runs(torch.arange(runs), lengths, starts, rows)
    options = Options(shape["size"] ** -0.5, shape["window"], shape["softcap"])

    def ask(way: Any, count: int, where: str, kind: torch.dtype) -> Tensor:
        out = blank(count, len(query), shape["heads"], shape["size"], torch.device(where))
        moved = Runs(*(part.to(where) for part in table))
        asked, seen, mixed = (tensor.to(where, kind) for tensor in (query, keys, values))
        way(asked, seen, mixed, moved, positions.to(where), options, out)
        return merge_pieces(Partial(*out), torch.float32)

    exact = ask(decode_triton._with_masks, 1, "cpu", torch.float32)
    rounded = LEAST if dtype == torch.float32 else 2.0 ** (-8 if dtype == torch.bfloat16 else -11)
    return judged(distance(ask(attend_runs, pieces, device, dtype), exact), YARDSTICK * rounded)


def packed_attention(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Flash attention over packed runs against masks in float32: values and gradients of queries, keys and values."""
    torch.manual_seed(0)
    prefix, runs = range(70), (range(70, 161), range(161, 194))
    rows = [Row(prefix), *(Row(run, prefix) for run in runs), Row(range(194, 230))]
    positions = torch.tensor([*range(70), *range(70, 161), *range(70, 103), *range(36)])
    shapes = [(230, heads, 64) for heads in (14, 2, 2, 14)]
    inputs = [torch.randn(shape).to(dtype) for shape in shapes]

    def ask(flash: bool, where: str, kind: torch.dtype) -> Tensor:
        *leaves, weights = (tensor.to(where, kind) for tensor in inputs)
        leaves = [leaf.requires_grad_() for leaf in leaves]
        if flash:
            mixed = varlen.attend(*leaves, varlen.spans_of(rows, torch.device(where)), 0.125)  # type: ignore[call-arg]
        else:
            mixed = MaskedBlocks(rows, positions.to(where)).attend(*leaves, Options(0.125, None, None))  # type: ignore
        gradients = torch.autograd.grad((mixed * weights).sum(), leaves)
        return torch.cat([part.detach().double().flatten().cpu() for part in (mixed, *gradients)])

    exact = ask(False, "cpu", torch.float32)
    plain = distance(ask(False, device, dtype), exact)
    usable = device == "cuda" and varlen.works_on(torch.device(device), dtype, 14, 2, 64)
    return judged(distance(ask(usable, device, dtype), exact), YARDSTICK * max(plain, LEAST), flash=usable)


# -- the engine --------------------------------------------------------------------------------------------------------


def small_model(device: str, dtype: torch.dtype, attention: str = NAME) -> Any:
    """A model of Qwen2's kind with random weights, the same every time, peaked enough to tell tokens apart."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    register()
    size: dict[str, Any] = {"vocab_size": 500, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    config = Qwen2Config(**size, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=1)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.to(device, dtype).eval()


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # then a token takes seconds


def asked(samples: int = 1 if INTERPRETED else 4) -> list[Request]:
    prompts = [(7, 8, 9), tuple(range(100, 104))]
    if not INTERPRETED:
        prompts += [tuple(range(5, 45)), tuple(range(104, 121))]
    return [Request(prompt, 100 * i + j) for i, prompt in enumerate(prompts) for j in range(samples)]


SAMPLING = Sampling(3 if INTERPRETED else 24, 1.0, stop_ids=(1, 2, 3))


def scored(model: Any, requests: list[Request], found: list[Completion]) -> Tensor:
    """The trainer's log-probs of what was drawn."""
    examples = [
        Example(request.prompt_ids + one.token_ids, (False,) * len(request.prompt_ids) + (True,) * len(one.token_ids))
        for request, one in zip(requests, found, strict=True)
    ]
    batch = make_batch(examples).to(model.device)
    with torch.no_grad():
        return score_targets(model, batch, plan_batch(batch)).logprobs_M.float().cpu()


def sampler_against_trainer(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Log-probs of drawn tokens by the engine, against float32 on a CPU; the trainer's error is the yardstick."""
    model, requests = small_model(device, dtype), asked()
    found = SlotEngine(model, 8, poll=4).generate(requests, SAMPLING)
    drawn = torch.tensor([value for one in found for value in one.sampler_logprobs])
    trainer = scored(model, requests, found)
    rounded = small_model("cpu", torch.float32)
    rounded.load_state_dict({name: value.cpu().float() for name, value in model.state_dict().items()})
    exact = scored(rounded, requests, found)
    ratio = trainer - drawn
    more = {
        "mean": float(ratio.abs().mean()),
        "k3_kl": float((ratio.exp() - 1 - ratio).mean()),
        "share_outside_0.8_1.25": float(((ratio.exp() < 0.8) | (ratio.exp() > 1.25)).float().mean()),
        "tokens": len(drawn),
    }
    error, yardstick = float((drawn - exact).abs().max()), float((trainer - exact).abs().max())
    return judged(error, YARDSTICK * max(yardstick, 1e-5), **more)


def tokens_of(engine: SlotEngine) -> list[tuple[int, ...]]:
    return [one.token_ids for one in engine.generate(asked(), SAMPLING)]


def differing(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> float:
    return sum(a != b for a, b in zip(found, wanted, strict=True)) / len(wanted)


def graphs_against_calls(device: str) -> dict[str, Any]:
    """A captured step against the same step called one operation at a time, also after updates of the weights in place:
    the share of completions that differ."""
    model = small_model(device, torch.float32)
    engine, called = SlotEngine(model, 8, poll=4), SlotEngine(model, 8, poll=4)
    called.graphs._captures = False
    places = [parameter.data_ptr() for parameter in model.parameters()]
    shares = []
    for _ in range(3):
        shares.append(differing(tokens_of(engine), tokens_of(called)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    moved = sum(a != b.data_ptr() for a, b in zip(places, model.parameters(), strict=True))
    captured = sum(step._replay not in (None, step._step) for step in engine.graphs._repeated.values())
    return judged(max(shares) + moved, 0.0, graphs=captured)


def poisoned_buffers(device: str) -> dict[str, Any]:
    """Keys and values that were left by others and are not a number change no completion."""
    engine = SlotEngine(small_model(device, torch.float32), 8, poll=4)
    wanted = tokens_of(engine)
    assert engine._buffers is not None
    for layers in (engine._buffers.own, engine._buffers.prompts, engine._buffers.prefix):
        for pair in layers:
            for tensor in pair:
                tensor.fill_(float("nan"))
    return judged(differing(tokens_of(engine), wanted), 0.0)


def slots_do_not_matter(device: str) -> dict[str, Any]:
    """The share of completions that another number of slots changes, in float32."""
    model = small_model(device, torch.float32)
    wanted = tokens_of(SlotEngine(model, 16))
    return judged(max(differing(tokens_of(SlotEngine(model, slots, poll=3)), wanted) for slots in (3, 5)), 0.1)


def training_gradient(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The gradient of packed log-probs, prompts shared, by the layers that training puts in place, against float32 on a
    CPU; transformers' own, one sequence at a time in the same precision, is the yardstick."""
    short = 5 if INTERPRETED else 1
    prompt = tuple(range(5, 5 + 40 // short))
    rows = [prompt + tuple((11 * i + 7 * j) % 480 + 5 for j in range((20 + 5 * i) // short)) for i in range(4)]
    examples = [Example(row, (False,) * len(prompt) + (True,) * (len(row) - len(prompt))) for row in rows]

    def packed(model: Any) -> Tensor:
        batch = make_batch(examples).to(model.device)
        return score_targets(model, batch, plan_batch(batch)).logprobs_M.float().sum()

    def plain(model: Any) -> Tensor:
        total = torch.zeros((), device=model.device)
        for row in rows:
            tokens = torch.tensor([row], device=model.device)
            logprobs = model(input_ids=tokens).logits[0, :-1].float().log_softmax(-1)
            total = total + logprobs.gather(1, tokens[0, 1:, None])[len(prompt) - 1 :].sum()
        return total

    def gradient(model: Any, way: Callable[[Any], Tensor]) -> Tensor:
        way(model).backward()
        return torch.cat([parameter.grad.double().flatten().cpu() for parameter in model.parameters()])

    start = small_model("cpu", dtype)  # rounded once, so that all have the same weights
    exact = gradient(copy.deepcopy(start).float(), packed)
    theirs = small_model(device, dtype, "sdpa")
    yardstick = float((gradient(theirs, plain) - exact).norm() / exact.norm())
    trained = copy.deepcopy(start).to(device)
    with in_place(training_forwards(trained, checkpointing=False, compiled=False)):
        found = float((gradient(trained, packed) - exact).norm() / exact.norm())
    return judged(found, YARDSTICK * max(yardstick, LEAST), yardstick=yardstick)


# -- all of them -------------------------------------------------------------------------------------------------------


def checks(device: str) -> dict[str, Check]:
    """By name, the cheapest first."""
    half = torch.bfloat16 if device == "cuda" else torch.float16  # Triton's interpreter cannot multiply bfloat16
    found: dict[str, Check] = {}
    for name in SHAPES:
        for dtype in (torch.float32, half):
            for pieces in (1, 4):
                label = f"decode attention, {name}, {str(dtype).removeprefix('torch.')}, {pieces} pieces"
                found[label] = lambda on, n=name, d=dtype, p=pieces: decode_attention(on, n, d, p)
    found[f"packed attention, {half}".replace("torch.", "")] = lambda on: packed_attention(on, half)
    for dtype in (torch.float32, half):
        kind = str(dtype).removeprefix("torch.")
        found[f"sampler against trainer, {kind}"] = lambda on, d=dtype: sampler_against_trainer(on, d)
        found[f"training gradient, {kind}"] = lambda on, d=dtype: training_gradient(on, d)
    found["graphs against calls"] = graphs_against_calls
    found["poisoned buffers"] = poisoned_buffers
    found["number of slots"] = slots_do_not_matter
    return found


def run(device: str, only: str = "", results: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """What each check found, put into `results` as it is found; one that raises has failed, with the reason."""
    results = {} if results is None else results
    for name, check in checks(device).items():
        if only not in name:
            continue
        began = time.perf_counter()
        try:
            result = check(device)
        except Exception as error:
            traceback.print_exc()
            result = {"error": None, "allowed": None, "passed": False, "raised": f"{type(error).__name__}: {error}"}
        results[name] = {**result, "seconds": round(time.perf_counter() - began, 2)}
        print(f"{'passed' if result['passed'] else 'FAILED'}: {name}: {result}", file=sys.stderr, flush=True)
    return results


def machine(device: str) -> dict[str, Any]:
    """What one must know to repeat a measurement."""
    import transformers

    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    found |= {"transformers": transformers.__version__, "triton": getattr(decode_triton.triton, "__version__", None)}
    found |= {"kernel": decode_triton.uses_kernel(torch.device(device)), "device": platform.processor() or "CPU"}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"device": card.name, "memory_bytes": card.total_memory, "cuda": torch.version.cuda}
        found |= {"capability": f"{card.major}.{card.minor}", "processors": card.multi_processor_count}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="kernels and engine on a device against plain torch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their name")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("error: there is no CUDA device", file=sys.stderr)
        return 4
    torch.backends.cuda.matmul.allow_tf32 = False
    results: dict[str, dict[str, Any]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # when it is late: what has been found is told
    try:
        run(given.device, given.only, results)
    finally:
        tell(given.device, results)
    return 0 if all(result["passed"] for result in results.values()) else 1


def tell(device: str, results: dict[str, dict[str, Any]]) -> None:
    failed = [name for name, result in results.items() if not result["passed"]]
    print(json.dumps({"machine": machine(device), "checks": results, "failed": failed}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
