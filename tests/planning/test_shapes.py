"""What `plan` says a forward pass keeps is what autograd is handed, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import ARCHITECTURES, tiny_model
from torch.autograd.graph import saved_tensors_hooks

from temper.data.batching import make_batch
from temper.kernels import fused
from temper.kernels.attention import register
from temper.kernels.compiler import compiler
from temper.kernels.trunk import trunk_forwards
from temper.models.adapters import LoraConfig, add_adapters
from temper.planning.shapes import Shape, Training, model_size, size_by_config
from temper.train.forward import plan_batch, score_targets
from temper.train.learner import Learner, OptimizerConfig
from temper.train.losses import LossSum
from temper.types import Example

SHAPES = [
    Shape(64, 160, 3, 4, 2, 16, 500, 512),
    Shape(48, 96, 2, 6, 1, 16, 300, 512),  # queries wider than the hidden states
    Shape(64, 128, 5, 2, 2, 32, 200, 512, tie_word_embeddings=False),
]
WAYS = [
    Training(),
    Training(together=True),
    Training(rank=4),
    Training(checkpointing=True),
    Training(rank=4, checkpointing=True),
    Training(width=2, fused=False, keeps_logits=False),
    Training(width=2, fused=False, checkpointing=True, keeps_logits=False),
]


def llama(shape: Shape):
    from transformers import LlamaConfig, LlamaForCausalLM

    register()
    return LlamaForCausalLM(LlamaConfig(**vars(shape), attn_implementation="temper")).eval()


def kept(shape: Shape, training: Training, rows: int, length: int = 40) -> tuple[int, int]:
    """(tokens, bytes that autograd keeps of an update's forward pass), weights left out."""
    with pytest.MonkeyPatch.context() as patch:
        if not training.together:
            patch.setattr("temper.kernels.trunk._find", lambda *_: None)
        return _kept(shape, training, rows, length)


def _kept(shape: Shape, training: Training, rows: int, length: int) -> tuple[int, int]:
    model = llama(shape)
    if training.rank:
        pytest.importorskip("peft")
        model = add_adapters(model, LoraConfig(r=training.rank), 0)
    dtype = "bfloat16" if training.width == 2 else "float32"
    settings = OptimizerConfig(learning_rate=1e-3, gradient_checkpointing=training.checkpointing, dtype=dtype)
    learner = Learner(model, settings, 1)
    ids = [tuple((7 * i + 3 * row) % shape.vocab_size for i in range(length)) for row in range(rows)]
    batch = make_batch([Example(row, (False,) + (True,) * (length - 1)) for row in ids])
    plan = plan_batch(batch)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    def loss() -> LossSum:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            return LossSum(-score_targets(model, batch, plan).logprobs_M.sum())

    score_targets(model, batch, plan)  # finds the head and the fused forwards, which keep nothing
    learner.update([loss], 1)
    return len(batch.tokens), sum(found.values())


@pytest.mark.skipif(not fused.available(), reason="no compiler")
@pytest.mark.parametrize("training", WAYS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=["narrow", "wide", "untied"])
def test_what_a_forward_pass_keeps_is_counted(shape: Shape, training: Training):
    tokens, held = kept(shape, training, rows=5)
    positions = 2 * shape.head_dim * training.width * tokens  # checkpointed layers hold them without saving them
    more = positions if training.checkpointing else 0
    assert shape.kept_bytes(tokens, training) == pytest.approx(held + more, rel=0.06)


def test_more_is_kept_of_more_tokens_and_layers_and_less_with_checkpointing_and_adapters():
    shape = SHAPES[0]
    usual = shape.activation_bytes(1000, Training())
    assert shape.kept_bytes(8000, Training()) > 4 * shape.kept_bytes(1000, Training())
    layers = Training(keeps_logits=False)
    assert replace(shape, num_hidden_layers=30).kept_bytes(1000, layers) > 9 * shape.kept_bytes(1000, layers)
    deep = replace(shape, num_hidden_layers=30)
    checkpointed = Training(checkpointing=True)
    assert deep.activation_bytes(1000, checkpointed) < deep.activation_bytes(1000, Training()) / 3
    assert shape.activation_bytes(1000, Training(rank=4)) < usual  # no gradient of the embedding, no copies of weights


def test_of_many_logits_no_more_is_kept_than_twice_the_weight_of_their_head():
    shape = Shape(576, 1536, 30, 9, 3, 64, 49_152, 2048)
    without = Training(keeps_logits=False)
    more = [shape.kept_bytes(tokens, Training()) - shape.kept_bytes(tokens, without) for tokens in (100, 2000, 8000)]
    assert more == [4 * 100 * 49_152, 8 * 576 * 49_152, 8 * 576 * 49_152]


@pytest.mark.parametrize("shape", SHAPES, ids=["narrow", "wide", "untied"])
def test_parameters_and_adapters_are_those_of_the_model(shape: Shape):
    pytest.importorskip("peft")
    model = llama(shape)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert shape.parameters == matrices
    adapted = add_adapters(model, LoraConfig(r=4), 0)
    assert shape.adapter_parameters(4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    some = LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    adapted = add_adapters(llama(shape), some, 0)
    assert shape.adapter_parameters(2, some.target_modules) == sum(
        p.numel() for p in adapted.parameters() if p.requires_grad
    )


def test_a_directory_without_weights_is_sized_by_its_config(tmp_path):
    config = vars(SHAPES[0]) | {"dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = model_size(tmp_path)
    assert size is not None
    assert (size.parameters, size.bytes) == (SHAPES[0].parameters, 2 * SHAPES[0].parameters)
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    assert model_size(tmp_path) is None
    assert size_by_config({"hidden_size": "many"}) is None


MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16}


@pytest.mark.parametrize(("kind", "more"), [
    ("qwen3", {"head_dim": 32}), ("starcoder2", {}), ("mixtral", {"num_local_experts": 4}),
    ("qwen2_moe", MIXTURE | {"num_experts": 6, "shared_expert_intermediate_size": 40}),
    ("glm4_moe", MIXTURE | {"n_routed_experts": 6, "n_shared_experts": 1, "first_k_dense_replace": 2}),
])  # fmt: skip
def test_configs_of_other_kinds_have_the_parameters_of_their_models(kind: str, more: dict):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 3000, "max_position_embeddings": 512}  # fmt: skip
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = AutoConfig.for_model(kind, **sizes, **special, **more)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    told = size_by_config(json.loads(config.to_json_string()))
    assert told is not None
    assert told.parameters == pytest.approx(sum(weight.numel() for weight in model.parameters()), rel=0.01)


def test_a_config_whose_layers_are_others_is_of_unknown_size():
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    assert size_by_config(config) is not None
    assert size_by_config(config | {"kv_lora_rank": 16}) is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_are_counted_as_one_call_where_they_are_served_by_one(architecture: str) -> None:
    if compiler() is None:
        pytest.skip("no C compiler")
    model = tiny_model(architecture)
    shape = Shape.of(model.config.to_dict())
    assert shape is not None
    assert shape.in_one_call == bool(trunk_forwards(model))
    other = Shape.of({**model.config.to_dict(), "model_type": "of another kind"})
    assert other is not None
    assert not other.in_one_call
