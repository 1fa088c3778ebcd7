"""Triton's kernels against plain formulas in float64, and layers that they are put in place of against the model's own.

They run on a GPU where there is one; else in Triton's interpreter, in a process of its own. Compiling needs neither.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn

from temper.data.batching import make_batch
from temper.kernels import draw_triton, fast_triton, fused_triton, joined
from temper.kernels.forwards import in_place
from temper.kernels.fused_triton import HeadNorms, Places
from temper.kernels.layers import decoder_layers, training_forwards
from temper.rollout import buffers as slot_buffers
from temper.rollout.buffers import Buffers, Layout
from temper.rollout.engine import Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.slots import SlotEngine
from temper.train.forward import plan_batch, score_targets
from temper.types import Example

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))

from launches import count_step
from launches import tiny_model as launches_model

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
kernels = pytest.mark.skipif(not fused_triton.serves(DEVICE), reason="runs on a GPU, or in the interpreter's process")
WIDTHS = {torch.float32: 2e-6, torch.bfloat16: 1e-2}
both = pytest.mark.parametrize("dtype", WIDTHS, ids=["float32", "bfloat16"])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double().cpu() - expected.double().cpu()).norm() / expected.double().norm().clamp_min(1e-30))


def assert_same(
    function: Callable[..., Any], exact: Callable[..., Any], inputs: list[Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Values, and gradients of the inputs for the same gradients of the values; `exact` is asked in float64."""
    rounded = [x.to(dtype) for x in inputs]
    results = []
    for call, leaves in ((function, [x.to(DEVICE) for x in rounded]), (exact, [x.double() for x in rounded])):
        leaves = [x.clone().requires_grad_() for x in leaves]
        out = call(*leaves)
        outs = list(out) if isinstance(out, tuple) else [out]
        draw = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=draw).to(dtype).to(x.device, x.dtype) for x in outs]
        torch.autograd.backward(outs, weights)
        results.append([x.detach() for x in outs] + [x.grad for x in leaves])
    errors = [relative(found, expected) for found, expected in zip(*results, strict=True)]
    assert max(errors) <= WIDTHS[dtype], errors


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def normed(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    return x * (weight + offset) / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@kernels
@both
@pytest.mark.parametrize(("rows", "size", "offset"), [(1, 5, 0.0), (7, 24, 1.0), (3, 1030, 0.0)])
def test_norms_are_the_formula(rows: int, size: int, offset: float, dtype: torch.dtype) -> None:
    x, added, weight = numbers(rows, size), numbers(rows, size, seed=1), numbers(size)
    eps = 1e-3
    formula = partial(normed, eps=eps, offset=offset)
    assert_same(lambda x, w: fused_triton.rms_norm(x, w, eps, offset), formula, [x, weight], dtype)

    def with_residual(x: Tensor, added: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        return x + added, normed(x + added, w, eps, offset)

    assert_same(
        lambda x, a, w: fused_triton.add_norm(x, a, w, eps, offset), with_residual, [x, added, weight], dtype
    )


@kernels
def test_a_norms_weight_hears_of_rows_beyond_those_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_triton, "PROGRAMS", 2)
    monkeypatch.setattr(fused_triton, "TILE", 16)
    formula = partial(normed, eps=1e-6, offset=0.0)
    assert_same(lambda x, w: fused_triton.rms_norm(x, w, 1e-6), formula, [numbers(11, 6), numbers(6)])


@kernels
@both
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 7), (2, 1100)])
def test_gates_are_the_formula(rows: int, size: int, activation: str, dtype: torch.dtype) -> None:
    own = {"silu": nn.functional.silu, "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh")}[activation]
    assert_same(
        lambda x: fused_triton.gated(x, activation), lambda x: own(x[:, :size]) * x[:, size:],
        [3 * numbers(rows, 2 * size)], dtype,
    )  # fmt: skip


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """[N, H, D] with rotary positions."""
    first, second = x.chunk(2, -1)
    return x * cosine[:, None].to(x) + torch.cat([-second, first], -1) * sine[:, None].to(x)


def heads_of(x: Tensor, heads: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    whole = x.unflatten(-1, (-1, size))
    key_heads = (whole.shape[1] - heads) // 2
    return tuple(whole.split([heads, key_heads, key_heads], 1))  # type: ignore[return-value]


@kernels
@both
@pytest.mark.parametrize(("rows", "heads", "key_heads", "size"), [(1, 1, 1, 2), (3, 7, 1, 8), (2, 3, 3, 12)])
def test_rotation_is_the_formula(rows: int, heads: int, key_heads: int, size: int, dtype: torch.dtype) -> None:
    cosine, sine = numbers(2, rows, size).to(dtype)  # not even those of an angle
    x = numbers(rows, (heads + 2 * key_heads) * size)

    def exact(x: Tensor) -> tuple[Tensor, ...]:
        query, key, value = heads_of(x, heads, size)
        return turned(query, cosine, sine), turned(key, cosine, sine), value

    where = cosine.to(DEVICE), sine.to(DEVICE)
    assert_same(lambda x: fused_triton.rotated(x, *where, heads), exact, [x], dtype)


@kernels
@both
def test_keys_and_values_are_written_where_they_are_kept_and_nowhere_else(dtype: torch.dtype) -> None:
    rows, heads, size, columns = 3, 4, 6, torch.tensor([4, 0, 2])
    x, (cosine, sine) = numbers(rows, 8 * size).to(dtype), numbers(2, rows, size)
    weights = numbers(2, size).to(dtype)
    kept = torch.full((2, rows + 1, 2, 5, size), 9.0, dtype=dtype)
    keys, values = kept.to(DEVICE)
    query, _, _ = fused_triton.placed(
        x.to(DEVICE), cosine.to(DEVICE), sine.to(DEVICE), heads, HeadNorms(*weights.to(DEVICE), 1e-5, 1.0),
        Places(keys, values, columns.to(DEVICE)),
    )  # fmt: skip
    q, k, v = heads_of(x.double(), heads, size)
    q, k = (turned(normed(part, w.double(), 1e-5, 1.0), cosine, sine) for part, w in zip((q, k), weights, strict=True))
    kept = kept.double()
    for row, column in enumerate(columns):
        kept[0, row, :, column], kept[1, row, :, column] = k[row], v[row]
    for found, expected in ((query, q), (keys, kept[0]), (values, kept[1])):
        assert relative(found, expected) <= WIDTHS[dtype]


@kernels
def test_angles_are_torchs_far_out_too() -> None:
    frequencies, positions = 10_000.0 ** -(torch.arange(6) / 6), torch.tensor([0, 3, 70_000])
    cosine, sine = fused_triton.angles(positions.to(DEVICE), frequencies.to(DEVICE), 1.5, torch.float32)
    angle = torch.cat([positions[:, None].float() * frequencies] * 2, -1)
    torch.testing.assert_close(cosine.cpu(), 1.5 * angle.cos(), atol=2e-6, rtol=0)
    torch.testing.assert_close(sine.cpu(), 1.5 * angle.sin(), atol=2e-6, rtol=0)


# -- draws -------------------------------------------------------------------------------------------------------------


@kernels
@pytest.mark.parametrize("vocabulary", [5, 200])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_step_draws_and_writes_what_torch_does(
    temperature: float, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw_triton, "BLOCK", 32)  # so that a vocabulary is some blocks
    slots, sampling = 7, Sampling(9, temperature)
    logits = 3 * numbers(slots, vocabulary)
    logits[:, vocabulary // 2 + 3 :] = -1e30  # no tokens: more than a block of them
    logits[1, 1] = logits[2, :3] = 40.0  # one that is all, and three that are equal
    states = []
    for own in (True, False):
        made = Buffers(Layout(slots, 64, 2, 64, 0, 4), [(1, 4, 4)], torch.float32, DEVICE)
        made.state[0] = torch.arange(slots) * 977 - 3  # keys, one of them negative
        made.state[1], made.state[2] = 5, 11
        made.state[3] = torch.tensor([9, 9, 3, 9, 9, 9, 9])
        made.state[4] = torch.tensor([1, 2, 2, 4, 0, 5, 6])
        made.state[5] = torch.tensor([1, 1, 1, 1, 1, 0, 1])
        made.tokens.copy_(torch.arange(65).expand(slots, -1))
        with monkeypatch.context() as patch:
            if not own:
                patch.setattr(slot_buffers, "uses_kernel", lambda device: False)
            fed = made.fed(5)
            made.draw(made.slots, logits.to(DEVICE), sampling, torch.tensor([1, 2], device=DEVICE))
        states.append([*fed, made.state, made.tokens, made.logprobs])
    for found, expected in zip(*states, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# -- weights side by side ----------------------------------------------------------------------------------------------


def three_layers() -> list[Any]:
    torch.manual_seed(0)
    return [nn.Linear(4, out) for out in (6, 2, 3)]


def test_weights_side_by_side_are_the_same_parameters() -> None:
    layers = three_layers()
    before = [layer.weight.clone() for layer in layers]
    weights = [layer.weight for layer in layers]
    assert joined.joined(weights) is None
    joined.join(weights)
    whole = joined.joined(weights)
    assert whole is not None
    assert torch.equal(whole, torch.cat(before))
    with torch.no_grad():
        weights[1].mul_(2)
    assert torch.equal(whole[6:8], 2 * before[1])  # one memory
    places = [weight.data_ptr() for weight in weights]
    joined.join(weights)
    assert places == [weight.data_ptr() for weight in weights]
    weights[2].data = weights[2].data.clone()  # moved: seen, and put right
    assert joined.joined(weights) is None
    assert joined.joined([weights[0], torch.zeros(2, 5)]) is None


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("frozen", [(), (1,), (0, 1, 2)])
def test_one_product_says_and_teaches_what_three_do(frozen: tuple[int, ...], side_by_side: bool) -> None:
    layers, x = three_layers(), numbers(5, 4).requires_grad_()
    for number in frozen:
        layers[number].requires_grad_(False)
    if side_by_side:
        joined.join([layer.weight for layer in layers])
        joined.join([layer.bias for layer in layers])
    weights = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    found, expected = joined.product(x, layers), torch.cat([layer(x) for layer in layers], -1)
    torch.testing.assert_close(found, expected)
    assert isinstance(found.grad_fn, torch.autograd.graph.Node)
    assert ("_Product" in type(found.grad_fn).__name__) == side_by_side
    kind = numbers(5, 11)
    for one, other in zip(*(torch.autograd.grad(out, [x, *weights], kind) for out in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(joined.product(x, layers), expected)


# -- whole models ------------------------------------------------------------------------------------------------------


def short_model(architecture: str, layers: int = 2) -> Any:
    """The first layers of a tiny model: the interpreter is slow."""
    model = tiny_model(architecture)
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    return model


def gradients(model: Any, forwards: Any) -> Tensor:
    prompt = (5, 6, 7)
    rows = [prompt + tuple((7 * i + 3 * j) % 90 + 5 for j in range(length)) for i, length in enumerate((2, 1))]
    batch = make_batch([Example(row, (False,) * 3 + (True,) * (len(row) - 3)) for row in rows]).to(model.device)
    model.zero_grad()
    with in_place(forwards):
        logprobs = score_targets(model, batch, plan_batch(batch)).logprobs_M
        (logprobs * torch.arange(len(logprobs), device=model.device).cos()).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@kernels
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma2"])
def test_gradients_are_those_of_the_models_own_layers(architecture: str) -> None:
    model = short_model(architecture).to(DEVICE)
    own = gradients(model, ())
    forwards = fast_triton.fast_forwards(model)
    kinds = [forward.func.__name__ for _, forward in forwards]  # type: ignore[attr-defined]
    assert {"_norm", "_mlp", "_attention", "_layer", "_angles"} == set(kinds)
    assert kinds.count("_layer") == len(decoder_layers(model))
    assert relative(gradients(model, forwards), own) < 1e-5
    if architecture == "gemma2":
        checkpointed = training_forwards(model, checkpointing=True, compiled=False)
        assert relative(gradients(model, checkpointed), own) < 1e-5
    assert all("forward" not in vars(module) for module in model.modules())


@kernels
def test_half_precision_is_as_near_to_float32_as_the_models_own_layers() -> None:
    model = short_model("qwen2", 1).to(DEVICE, torch.bfloat16)
    exact = gradients(copy.deepcopy(model).float(), ())
    own = relative(gradients(model, ()), exact)
    assert relative(gradients(model, fast_triton.fast_forwards(model)), exact) < 1.5 * own


@kernels
def test_what_computes_something_else_is_left_alone() -> None:
    model = short_model("llama").to(DEVICE)
    first, odd = model.model.layers
    odd.mlp.act_fn = nn.GELU()  # exact, not by tanh
    first.input_layernorm.variance_epsilon = 0.3
    found = {module: forward.func.__name__ for module, forward in fast_triton.fast_forwards(model)}  # type: ignore[attr-defined]
    assert odd.mlp not in found
    assert "_layer" not in found.values()  # the first one cannot hand it what it does not take
    assert found[first.input_layernorm] == "_norm"
    assert not fast_triton.fast_forwards(tiny_model("llama").to(DEVICE, torch.float64))
    assert not fast_triton.fast_forwards(tiny_model("llama").to("meta"))


@kernels
def test_slots_draw_what_the_plain_layers_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = short_model("qwen3"), Sampling(3, 0.9, stop_ids=(1, 2, 3, 4))
    asked = [Request((9 + i,) * (1 + 2 * i), 10 * i + j) for i in range(2) for j in range(2 - i)]
    with monkeypatch.context() as patch:
        patch.setattr("temper.kernels.fast_triton.fast_forwards", lambda model: ())
        expected = NativeEngine(model).generate(asked, sampling)
    found = SlotEngine(model.to(DEVICE), 2, poll=2).generate(asked, sampling)
    assert [completion.token_ids for completion in found] == [completion.token_ids for completion in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.sampler_logprobs == pytest.approx(other.sampler_logprobs, abs=1e-4)


@kernels
@pytest.mark.parametrize(("rows", "columns", "prefix"), [(2, 64, 0), (1, 512, 64)])
def test_a_decode_step_of_24_layers_is_at_most_250_launches(rows: int, columns: int, prefix: int) -> None:
    counts = [
        Counter(part for part, _ in count_step(launches_model(layers), rows, columns, prefix, Sampling(columns)).made)
        for layers in (1, 2)
    ]
    of_a_layer = counts[1] - counts[0]
    assert of_a_layer == {"norms and residuals": 2, "attention": 5, "gated unit": 3}
    assert counts[0].total() + 23 * of_a_layer.total() <= 250


@kernels
def test_launches_are_counted_with_the_models_own_layers_too() -> None:
    made = count_step(launches_model(1), 2, 64, 0, Sampling(64), plain=True).made
    assert sum(part == "norms and residuals" for part, _ in made) == 18  # 6 a norm, of which there are three
    assert ("gated unit", "silu") in made
    assert len(made) > 40


# -- without a GPU -----------------------------------------------------------------------------------------------------

BF16, LONG, FP32 = "*bf16", "*i64", "*fp32"
SHAPE = {"H": 14, "K": 2, "D": 64, "HEADS": 32, "HALF": 32}
NORM = {"S": 896, "BLOCK": 1024, "ROWS": 1}
ROTATED = dict.fromkeys(["x", "cosine", "sine", "query", "key", "value", "query_scale", "key_scale"], BF16)
DRAWN = dict.fromkeys(["state", "tokens", "stops", "numbers"], LONG) | {"logprobs": FP32, "logits": BF16}
COMPILED: dict[str, tuple[Any, dict[str, str], dict[str, Any], int]] = {
    "_norm": (
        fused_triton,
        dict.fromkeys(["x", "added", "scale", "total", "out"], BF16) | {"inverse": FP32},
        NORM | {"ADDS": True},
        4,
    ),
    "_norm_backward": (
        fused_triton,
        dict.fromkeys(["x", "scale", "of_out", "of_total", "of_x"], BF16) | {"inverse": FP32, "parts": FP32},
        NORM | {"ADDED": True},
        4,
    ),
    "_gate": (fused_triton, {"x": BF16, "out": BF16}, {"S": 4864, "BLOCK": 1024}, 4),
    "_gate_backward": (fused_triton, dict.fromkeys(("x", "gradient", "of_x"), BF16), {"S": 4864, "BLOCK": 1024}, 4),
    "_angles": (
        fused_triton,
        {"positions": LONG, "frequencies": FP32, "cosine": BF16, "sine": BF16},
        {"D": 64, "HALF": 32},
        1,
    ),
    "_rotate": (fused_triton, ROTATED | {"columns": LONG}, SHAPE | {"NORMED": True, "PLACED": True}, 4),
    "_rotate_back": (
        fused_triton,
        dict.fromkeys(["query", "key", "value", "cosine", "sine", "of_x"], BF16),
        SHAPE,
        4,
    ),
    "_feed": (draw_triton, dict.fromkeys(["state", "tokens", "found"], LONG), {"BLOCK": 512}, 4),
    "_draw": (draw_triton, DRAWN, {"BLOCK": 8192, "STOPS": 2, "GREEDY": False}, 16),
}


@pytest.mark.skipif(INTERPRETED, reason="compiles")
@pytest.mark.parametrize("name", COMPILED)
def test_kernels_compile_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from triton import compile  # type: ignore[import-not-found]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found]
    from triton.compiler import ASTSource  # type: ignore[import-not-found]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, pointers, constants, warps = COMPILED[name]
    kernel = getattr(module, name)
    kinds = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr") | pointers
    reals = ("eps", "offset", "a", "b", "scale", "temperature")
    kinds |= {number: "fp32" for number in reals if kinds.get(number) == "i32"}
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    made = compile(ASTSource(kernel, kinds, constants, aligned), GPUTarget("cuda", 90, 32), {"num_warps": warps})
    assert made.metadata.shared <= 48 * 1024
    spilled = ".local" in made.asm["ptx"]
    assert not spilled or name == "_angles"  # whose far angles are brought near by a table


@pytest.mark.skipif(INTERPRETED or DEVICE.type == "cuda", reason="starts the interpreter's process")
def test_the_kernels_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
