"""`temper plan --for` beside arithmetic by hand, for eight models that people have, in four ways: within a tenth.

By hand (P weights, A of adapters; E hidden, I inner, L layers, Q and K sizes of queries and keys, V vocabulary, N the
tokens of a micro-batch, G devices), bfloat16 on an accelerator, layers computed again in the backward pass:

  weights   2 P, gradients 4 P, moments 8 P (2 P in 8 bits), float32 masters 4 P; with adapters 2 P + 16 A;
            in parts 16 P / G + 2 P for the copy that samples, and what is put together at a time:
            2 (V E heads + 2 layers) and gradients of 6 (V E heads + a layer)
  sampling  keys and values of all rows, 2 L K numbers a token, and three float32 rows of V a row
  update    what goes into each layer, one layer in full, and the gradient of the head
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper.planning.elsewhere import sketch
from temper.planning.machines import read_machine

# kind, E, I, L, heads, key heads, size of a head, V, tied; weights as the model's card or files count them
SHAPES = {
    "Qwen2.5-0.5B": ("qwen2", 896, 4864, 24, 14, 2, 64, 151936, True, 494_032_768),
    "Qwen2.5-1.5B": ("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, True, 1_543_714_304),
    "Qwen2.5-7B": ("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, False, 7_615_616_512),
    "Llama-3-8B": ("llama", 4096, 14336, 32, 32, 8, 128, 128256, False, 8_030_261_248),
    "gemma-2-2b": ("gemma2", 2304, 9216, 26, 8, 4, 256, 256000, True, 2_614_341_888),
    "SmolLM2-1.7B": ("llama", 2048, 8192, 24, 32, 32, 64, 49152, True, 1_711_376_384),
    "Qwen3-4B": ("qwen3", 2560, 9728, 36, 32, 8, 128, 151936, True, 4_022_468_096),
    "R1-Distill-Qwen-1.5B": ("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, False, 1_777_088_000),
}
WAYS = {
    "all": ("1x180GB", ""), "lora": ("1x180GB", "lora: {r: 16, alpha: 32},"),
    "8bit": ("1x180GB", "optim: adamw_8bit,"), "fsdp2": ("8x180GB", "fully_shard: true,"),
}  # fmt: skip
ROWS, PROMPTS, PROMPT, REPLY, TOKENS, RANK, DEVICES = 256, 32, 128, 1024, 4096, 16, 8
CONTEXT = 1e9
RECIPE = """
tasks:
  mine: {train: not-here.jsonl, test: not-here.jsonl}
stages:
  base: {stage: import_model, model: config.json}
  rl: {stage: grpo, model: "@base", tasks: [mine], reward_funcs: [format], max_steps: 5, kl_penalty: 0, KEYS
       gradient_checkpointing: true, micro_batch_tokens: 4096, prompts_per_step: 32, num_generations: 8,
       max_completion_length: 1024}
"""


def by_hand(name: str, way: str) -> float:
    _, E, I, L, heads, key_heads, D, V, tied, P = SHAPES[name]  # noqa: E741
    Q, K = heads * D, key_heads * D
    layer = 2 * E * Q + 2 * E * K + 3 * E * I
    A = RANK * L * (2 * (E + Q) + 2 * (E + K) + 3 * (E + I))
    outside = V * E * (1 if tied else 2)
    weights = {
        "all": 18 * P, "lora": 2 * P + 16 * A, "8bit": 12 * P,
        "fsdp2": 16 * P / DEVICES + 2 * P + 2 * (outside + 2 * layer) + 6 * (outside + layer),
    }[way]  # fmt: skip
    token = 2 * 2 * L * K
    sampling = min(ROWS * (REPLY * token + 12 * V) + PROMPTS * PROMPT * token, 180e9 / 4)
    update = 2 * TOKENS * (L * E + 6 * E + 3 * I + 2 * Q + 2 * K) + (0 if way == "lora" else 4 * V * E)
    return CONTEXT + weights + max(sampling, update)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_is_within_a_tenth_of_what_is_worked_out_by_hand(name, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = (
        "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
    )  # fmt: skip
    config = {**dict(zip(keys, SHAPES[name], strict=False)), "max_position_embeddings": 8192, "dtype": "bfloat16"}
    Path("config.json").write_text(json.dumps(config))
    Path("my.yaml").write_text(RECIPE.replace("KEYS", WAYS[way][1]))
    found, there = sketch("my.yaml"), read_machine(WAYS[way][0])
    size = found.sizes["@base"]
    assert size is not None
    assert size.parameters == pytest.approx(SHAPES[name][-1], rel=0.001)  # norms and biases are left out
    need = found.need(found.recipe.by_name["rl"], there.machine, there.count)
    assert need.memory_bytes == pytest.approx(by_hand(name, way), rel=0.1)
