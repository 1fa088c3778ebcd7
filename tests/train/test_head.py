"""The chunked head: values and gradients of the naive one, in bounded memory, whatever a model does to its logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, SIZES, tiny_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from temper.data.batching import Batch, make_batch
from temper.kernels.attention import NAME, register
from temper.train import forward
from temper.train.forward import Scored, plan_batch, score_targets
from temper.train.head import Head, Parts, score_hidden
from temper.types import Example

Transform = tuple[float, float | None]
TRANSFORMS: list[Transform] = [(1.0, None), (0.25, None), (1.0, 3.0), (4.0, 2.0)]  # scale, softcap


def naive(head: Head, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head.linear(hidden) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    logprobs = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)


def case(dtype: torch.dtype, transform: Transform = (1.0, None), targets: int = 7) -> tuple[Head, Tensor, Tensor]:
    torch.manual_seed(0)
    head = Head(nn.Linear(6, 11, dtype=dtype), *transform)
    hidden = (3 * torch.randn(targets, 6)).to(dtype).requires_grad_()
    return head, hidden, torch.randint(11, (targets,))


def gradients(head: Head, hidden: Tensor, values: list[Tensor]) -> list[Tensor]:
    """Of a weighted sum of `values`, for the hidden states, the weight and the bias."""
    loss = sum((value * torch.linspace(-1, 2 + i, len(value))).sum() for i, value in enumerate(values))
    return list(torch.autograd.grad(loss, [hidden, *head.linear.parameters()]))  # type: ignore[arg-type]


def same(found: Any, expected: Any, tolerance: float) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance) for ours, theirs in pairs)


@pytest.mark.parametrize("piece", [1, 3, None])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("wanted", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["logprobs", "entropy", "both"])
def test_values_and_gradients_are_the_naive_ones(
    piece: int | None, temperature: float, transform: Transform, wanted: slice
) -> None:
    head, hidden, targets = case(torch.float64, transform)
    found, expected = score_hidden(head, hidden, targets, temperature, piece), naive(head, hidden, targets, temperature)
    assert same(found, expected, 1e-10)
    ours, theirs = (gradients(head, hidden, list(values[wanted])) for values in (found, expected))
    assert same(ours, theirs, 1e-10)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_float32_is_right_up_to_rounding(transform: Transform) -> None:
    head, hidden, targets = case(torch.float32, transform)
    found, expected = score_hidden(head, hidden, targets, 0.6, piece=3), naive(head, hidden, targets, 0.6)
    assert same(found, expected, 1e-5)
    assert same(gradients(head, hidden, list(found)), gradients(head, hidden, list(expected)), 1e-5)


def test_bfloat16_weights_give_float32_logprobs_and_bfloat16_gradients() -> None:
    head, hidden, targets = case(torch.bfloat16)
    found, expected = score_hidden(head, hidden, targets, 0.6, piece=3), naive(head, hidden, targets, 0.6)
    assert {value.dtype for value in found} == {torch.float32}
    assert same(found, expected, 0.05)
    ours, theirs = (gradients(head, hidden, list(values)) for values in (found, expected))
    assert {gradient.dtype for gradient in ours} == {torch.bfloat16}
    assert same(ours, theirs, 0.1)


def test_the_softmax_of_bfloat16_logits_is_not_rounded_to_bfloat16() -> None:
    head, hidden, targets = case(torch.bfloat16)
    head.linear.bias.data.zero_()
    logits = (hidden @ head.linear.weight.T).double()
    expected = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    assert torch.allclose(score_hidden(head, hidden, targets)[0].double(), expected, atol=1e-6)


def test_without_targets_there_is_nothing_and_gradient_zero() -> None:
    head, hidden, targets = case(torch.float32, targets=0)
    found = score_hidden(head, hidden, targets)
    assert [len(value) for value in found] == [0, 0]
    assert not any(gradient.any() for gradient in gradients(head, hidden, list(found)))


@pytest.mark.parametrize("frozen", ["weight", "hidden"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    head, hidden, targets = case(torch.float32)
    (head.linear.weight if frozen == "weight" else hidden).requires_grad_(False)
    sum(value.sum() for value in score_hidden(head, hidden, targets)).backward()  # type: ignore[union-attr]
    found = (hidden.grad, head.linear.weight.grad)
    assert [gradient is None for gradient in found] == [frozen == "hidden", frozen == "weight"]


def test_without_gradients_the_values_are_the_same() -> None:
    head, hidden, targets = case(torch.float32)
    with torch.no_grad():
        found = score_hidden(head, hidden, targets)
    assert same(found, score_hidden(head, hidden, targets), 0)


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_no_tensor_of_targets_times_vocabulary_is_made(entropy_gradient: bool) -> None:
    model = of_kind("llama", vocab_size=16384, hidden_size=16, num_hidden_layers=1)
    rows = [Example(tuple(range(i, i + 101)), (False,) + (True,) * 100) for i in range(8)]
    batch = make_batch(rows)
    score_targets(model, batch, plan_batch(batch))
    with Largest() as largest:
        scored = score_targets(model, batch, plan_batch(batch), entropy_gradient=entropy_gradient)
        (scored.logprobs_M + scored.entropy_M).sum().backward()
    assert largest.elements * 4 <= 16 << 20 < len(batch.targets) * 16384 * 4


def of_kind(kind: str, **options: Any) -> Any:
    """A model of any architecture, peaked enough to tell tokens apart."""
    register()
    config = AutoConfig.for_model(kind, **{**SIZES, **options})
    torch.manual_seed(0)
    return louder(AutoModelForCausalLM.from_config(config, attn_implementation=NAME).eval())


def louder(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def some_batch() -> Batch:
    replies = [(9, 10, 11), (12,), (13, 14, 15, 16)]
    return make_batch([Example((5, 6, 7, *reply), (False,) * 3 + (True,) * len(reply)) for reply in replies])


def score(model: Any, entropy_gradient: bool = True) -> Scored:
    batch = some_batch()
    return score_targets(model, batch, plan_batch(batch), 0.7, entropy_gradient)


def score_by_logits(model: Any) -> Scored:
    """From the logits of the whole model."""
    batch = some_batch()
    logits = model(
        input_ids=batch.tokens[None],
        position_ids=batch.positions[None],
        attention_plan=plan_batch(batch),
        use_cache=False,
    ).logits[0, batch.sources]
    logprobs = (logits / 0.7).log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return Scored(logprobs[torch.arange(len(batch.targets)), batch.targets], entropy)


def is_right(model: Any) -> bool:
    """Whether values and gradients are those of the whole model's logits."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    results = []
    for scored in (score(model), score_by_logits(model)):
        loss = (scored.logprobs_M * torch.linspace(-1, 1, 8) + 0.3 * scored.entropy_M).sum()
        results.append([scored.logprobs_M, scored.entropy_M, *torch.autograd.grad(loss, parameters)])
    return all(
        (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() + 1e-7 for ours, theirs in zip(*results, strict=True)
    )


def taken_apart(model: Any) -> Parts | None:
    return forward.take_apart(model, forward._probe)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_scored_by_chunks_and_right(architecture: str) -> None:
    model = tiny_model(architecture)
    assert taken_apart(model) is not None
    assert is_right(model)


@pytest.mark.parametrize(
    ("kind", "options", "scale", "softcap"),
    [
        ("gemma2", {"head_dim": 16, "final_logit_softcapping": 2.0}, 1.0, 2.0),
        ("granite", {"logits_scaling": 8.0}, 1 / 8, None),
        ("cohere", {"logit_scale": 0.0625}, 0.0625, None),
        ("phi", {}, 1.0, None),  # its head has a bias
    ],
)
def test_what_follows_the_head_is_part_of_the_logits(
    kind: str, options: dict[str, Any], scale: float, softcap: float | None
) -> None:
    model = of_kind(kind, **options)
    parts = taken_apart(model)
    assert parts is not None
    assert (parts.head.scale, parts.head.softcap) == (scale, softcap)
    assert (parts.head.linear.bias is not None) == (kind == "phi")
    assert is_right(model)


class Odd(LlamaForCausalLM):
    """Does to its tokens and its logits what its configuration does not tell."""

    def __init__(self, louder_tokens: float = 1.0, change: Any = lambda logits: logits):
        register()
        torch.manual_seed(0)
        super().__init__(AutoConfig.for_model("llama", **SIZES, attn_implementation=NAME))
        self.eval().post_init()  # logits near 0
        self.louder_tokens, self.change = louder_tokens, change

    def forward(self, input_ids: Tensor, **options: Any) -> Any:  # type: ignore[override]
        tokens = self.louder_tokens * self.get_input_embeddings()(input_ids)
        output = super().forward(inputs_embeds=tokens, **options)
        output.logits = self.change(output.logits)  # type: ignore[operator]
        return output


def with_learned_scale() -> Odd:
    model = Odd()
    model.scale = nn.Parameter(torch.ones(()))
    model.change = lambda logits: model.scale * logits  # type: ignore[operator]
    return model


def with_hook_on_head() -> Odd:
    model = Odd()
    model.lm_head.register_forward_hook(lambda module, inputs, output: output + inputs[0].sum() * model.added)
    model.added = 0.0  # until later
    return model


def with_zero_head() -> Odd:
    model = Odd(change=lambda logits: 3 * logits)
    nn.init.zeros_(model.lm_head.weight)
    return model


ODD = {
    "scaled": lambda: Odd(change=lambda logits: 1.5 * logits),
    "capped": lambda: Odd(change=lambda logits: 300 * torch.tanh(logits / 300)),
    "shifted": lambda: Odd(change=lambda logits: logits + torch.arange(100) / 1000),
    "louder tokens": lambda: Odd(louder_tokens=2.0),
    "learned scale": with_learned_scale,
    "hook on the head": with_hook_on_head,
    "zero head": with_zero_head,
}


@pytest.mark.parametrize("oddity", ODD)
def test_a_model_that_is_more_than_its_parts_is_called_whole(oddity: str) -> None:
    model = ODD[oddity]()
    assert taken_apart(model) is None
    assert is_right(model)


def test_a_model_that_only_might_have_been_odd_is_taken_apart() -> None:
    model = Odd()
    assert taken_apart(model) is not None
    assert is_right(model)


class Adapted(nn.Linear):
    """A head with a low-rank addition that starts at 0."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = linear.weight
        self.down, self.up = nn.Linear(linear.in_features, 2, bias=False), nn.Linear(2, linear.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.up(self.down(input))


def test_an_adapter_on_the_head_is_seen_even_where_it_adds_nothing_yet() -> None:
    model = tiny_model("qwen3")
    assert taken_apart(model) is not None
    model.lm_head = Adapted(model.lm_head)
    assert taken_apart(model) is None
    assert is_right(model)


class Wrapped(nn.Module):
    """As adapter libraries wrap a model: `base_model` is theirs, and unknown names are looked up in the model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.base_model = model

    def get_base_model(self) -> nn.Module:
        return self.base_model

    def forward(self, **options: Any) -> Any:
        return self.base_model(**options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)


def test_a_wrapped_model_with_adapters_inside_is_scored_through_them() -> None:
    model = tiny_model("llama").requires_grad_(False)
    before = score(model).logprobs_M
    attention = model.model.layers[0].self_attn
    attention.q_proj = Adapted(attention.q_proj)
    louder(attention.q_proj.up)
    wrapped = Wrapped(model)
    assert taken_apart(wrapped) is not None
    assert not torch.allclose(score(wrapped).logprobs_M, before)
    assert is_right(wrapped)


def test_trying_a_model_leaves_it_as_it_was() -> None:
    model = of_kind("llama", attention_dropout=0.5).train()
    model.model.norm.eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert taken_apart(model) is not None
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    score(model)
    monkeypatch.setattr(forward, "_probe", lambda _: pytest.fail("tried again"))
    score(model)


def test_entropy_is_a_metric_unless_its_gradient_is_asked_for() -> None:
    model = tiny_model("llama")
    assert not score(model, entropy_gradient=False).entropy_M.requires_grad
    assert score(model, entropy_gradient=True).entropy_M.requires_grad
