"""`temper plan --for`: models and machines that are not here, by arithmetic; every remedy gives what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.cli import main
from temper.errors import ConfigError
from temper.planning.known import KNOWN, known_size
from temper.planning.machines import CARDS, SPEEDS, read_machine
from temper.planning.shapes import size_by_config

CONFIG = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32000, "dtype": "bfloat16",
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
OF_LAYER = 512 * 512 * 2 + 2 * 512 * 256 + 3 * 512 * 2048
PARAMETERS = 12 * OF_LAYER + 2 * 32000 * 512
RECIPE = """
tasks:
  mine: {train: not-here.jsonl, test: not-here-either.jsonl}
stages:
  base: {stage: import_model, model: MODEL}
  rl: {stage: grpo, model: "@base", tasks: [mine], reward_funcs: [format], max_steps: 5, KEYS}
  end: {stage: evaluate, models: ["@rl"], tasks: [mine]}
"""


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Plans a recipe for a machine: (exit code, what was printed as JSON, what was said beside it)."""
    monkeypatch.chdir(tmp_path)

    def call(machine: str, *options: str, model: str = "config.json", keys: str = "kl_penalty: 0.001"):
        Path("config.json").write_text(json.dumps(CONFIG))
        Path("my.yaml").write_text(RECIPE.replace("MODEL", model).replace("KEYS", keys))
        code = main(["plan", "my.yaml", "--for", machine, "--json", *options])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.strip() else {}, err

    return call


def rl_of(data: dict) -> dict:
    return next(stage for stage in data["stages"] if stage["stage"] == "rl")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.1345), ("Qwen/Qwen2.5-0.5B-Instruct", 0.494),
        ("Qwen/Qwen2.5-1.5B", 1.54), ("Qwen/Qwen2.5-7B-Instruct", 7.61), ("Qwen/Qwen3-0.6B", 0.596),
        ("Qwen/Qwen3-8B", 8.19), ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.777),
        ("meta-llama/Llama-3.2-1B", 1.236), ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8.03), ("google/gemma-2-2b-it", 2.614), ("google/gemma-2-9b", 9.242),
        ("Qwen/Qwen2.5-Math-1.5B-Instruct", 1.54), ("Qwen/Qwen2.5-14B", 14.77), ("Qwen/Qwen2.5-32B", 32.76),
        ("Qwen/Qwen3-14B", 14.77), ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8.03),
    ],
)  # fmt: skip
def test_known_models_have_the_parameters_that_their_cards_say(name, billions):
    size = known_size(name)
    assert size is not None
    assert size.parameters / 1e9 == pytest.approx(billions, rel=0.005)


def test_every_known_model_has_a_shape_that_multiplies_out():
    for name, config in KNOWN.items():
        size = known_size(name)
        assert size is not None, name
        assert size.bytes == 2 * size.parameters, name
        assert config["num_attention_heads"] % config["num_key_value_heads"] == 0, name


def test_what_a_part_of_a_config_leaves_out_is_what_its_kind_has():
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    size = size_by_config(text)
    assert size is not None
    assert size.parameters / 1e9 == pytest.approx(3.88, rel=0.01)  # of Gemma 3 4B, without the part that sees
    assert size_by_config({**text, "model_type": "nobody's"}) is None


def test_a_config_alone_is_enough(plan):
    code, data, _ = plan("1x80GB", "--disk", "1TB")
    assert code == 0
    assert data["models"] == {"config.json": PARAMETERS}
    assert data["fits"] is True
    need = rl_of(data)
    # bfloat16 weights and reference, gradients, two moments, masters; what the layers keep comes on top
    assert need["memory_bytes"] - 20 * PARAMETERS > 0
    assert need["disk_bytes"] == 28 * PARAMETERS  # the model in float32, two checkpoints of weights and two moments
    assert data["disk_bytes"] == sum(stage["disk_bytes"] or 0 for stage in data["stages"])
    assert any("not-here.jsonl" in what for what in data["absent"])


def test_a_directory_with_a_config_and_no_weights_is_the_same(plan):
    _, of_file, _ = plan("1x24GB", "--disk", "1TB")
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(CONFIG))
    _, of_folder, _ = plan("1x24GB", "--disk", "1TB", model="model")
    assert rl_of(of_folder) == rl_of(of_file)


@pytest.mark.parametrize(("machine", "keys"), [
    ("1x3GB", "kl_penalty: 0.001"), ("1x2GB", "kl_penalty: 0.001, max_completion_length: 2000"),
    ("cpu:3GB", "kl_penalty: 0"), ("1x1.2GB", "kl_penalty: 0"),
])  # fmt: skip
def test_every_remedy_gives_what_it_says(plan, machine, keys):
    code, data, err = plan(machine, "--strict", "--disk", "1TB", keys=keys)
    need = rl_of(data)
    assert (code, data["fits"], need["fits"]) == (4, False, False)
    assert "does not fit" in err
    assert need["remedies"]
    for remedy in need["remedies"]:
        sets = [f"--set=rl.{key}={json.dumps(value)}" for key, value in remedy["values"].items()]
        there = machine.replace("1x", f"{remedy['ranks']}x") if remedy["ranks"] else machine
        _, changed, _ = plan(there, *sets, "--disk", "1TB", keys=keys)
        assert rl_of(changed)["memory_bytes"] == remedy["memory_bytes"] < need["memory_bytes"]
    alone = [remedy for remedy in need["remedies"] if len(remedy["values"]) == 1 and not remedy["ranks"]]
    assert alone == sorted(alone, key=lambda remedy: remedy["memory_bytes"])


def test_what_is_proposed_together_is_needed_together(plan):
    _, data, _ = plan("1x2GB", "--disk", "1TB", keys="kl_penalty: 0.001, max_completion_length: 2000")
    *alone, together = [remedy for remedy in rl_of(data)["remedies"] if not remedy["ranks"]]
    assert len(together["values"]) > 1
    assert together["memory_bytes"] <= data["memory_available_bytes"]
    assert all(remedy["memory_bytes"] > data["memory_available_bytes"] for remedy in alone)


def test_more_devices_are_proposed_and_are_what_the_plan_of_that_machine_says(plan):
    keys = "kl_penalty: 0, gradient_checkpointing: true"
    _, data, _ = plan("1x1.8GB", "--disk", "1TB", keys=keys)
    [more] = [remedy for remedy in rl_of(data)["remedies"] if remedy["ranks"]]
    assert more["values"] == {"fully_shard": True}
    _, several, _ = plan(f"{more['ranks']}x1.8GB", "--disk", "1TB", "--set=rl.fully_shard=true", keys=keys)
    assert rl_of(several)["memory_bytes"] == more["memory_bytes"] == rl_of(several)["rank"]["memory_bytes"]
    assert more["memory_bytes"] < rl_of(data)["memory_bytes"]


def test_the_disk_has_a_verdict_of_its_own(plan):
    code, data, err = plan("1x80GB", "--strict", "--disk", "1GB")
    assert (code, data["fits"]) == (4, False)
    assert "will be written" in err
    assert all(stage["fits"] for stage in data["stages"])


def test_a_model_of_unknown_size_is_no_verdict(plan):
    code, data, _ = plan("1x80GB", "--strict", "--disk", "1TB", model="somebody/model-of-theirs")
    assert (code, data["fits"], data["unknown_models"]) == (0, None, ["somebody/model-of-theirs"])
    assert main(["plan", "my.yaml", "--for", "1x80GB"]) == 0


def test_a_fault_of_the_recipe_is_one_here_too(plan):
    code, _, err = plan("1x80GB", keys="kl_penalti: 0")
    assert code == 2
    assert "kl_penalti" in err


def test_what_is_printed_names_the_machine_and_the_remedies(plan, capsys):
    plan("8x2GB")
    assert main(["plan", "my.yaml", "--for", "8x2GB", "--disk", "1TB"]) == 0
    shown = capsys.readouterr().out
    assert "DOES NOT FIT" in shown
    assert "told of each device, with `temper run --ranks 8`" in shown
    assert "gradient_checkpointing: true" in shown
    assert "not told" in shown


@pytest.mark.parametrize("options", [("--probe",), ("--disk", "much")])
def test_options_that_cannot_be(plan, options):
    assert plan("1x80GB", *options)[0] == 2


def test_a_disk_without_a_machine_is_told(plan, capsys):
    plan("1x80GB")
    assert main(["plan", "my.yaml", "--disk", "1TB"]) == 2
    assert "--for" in capsys.readouterr().err


@given(st.integers(1, 9999), st.integers(1, 99999), st.sampled_from(["x", "X", "×", " x "]))
def test_machines_are_read_as_they_are_written(count, size, cross):
    there = read_machine(f"{count}{cross}{size}GB")
    assert (there.count, there.bytes, there.accelerator) == (count, size * 10**9, True)


@given(st.text(max_size=12))
def test_any_text_is_a_machine_or_an_error(text):
    try:
        there = read_machine(text)
    except ConfigError:
        return
    assert there.bytes > 0
    assert there.count >= 1


def test_cards_go_by_their_names():
    assert {name: read_machine(f"2x{name}").bytes // 10**9 for name in CARDS} == CARDS


def test_on_a_card_that_is_known_the_time_that_rl_cannot_be_under_is_told(plan):
    keys = "kl_penalty: 0, prompts_per_step: 4, num_generations: 8, max_completion_length: 100"
    _, data, _ = plan("1xH100", "--disk", "1TB", keys=keys)
    told = rl_of(data)["least_seconds"]
    reading = 5 * 100 * 2 * PARAMETERS / 3350e9  # five steps of one wave
    training = 6 * PARAMETERS * 5 * 32 * 100 / (0.4 * 989e12)  # without the prompts' tokens
    assert reading + training < told < reading + 20 * training
    _, checked, _ = plan("2xH100", "--disk", "1TB", keys=keys + ", gradient_checkpointing: true")
    assert rl_of(checked)["least_seconds"] - reading == pytest.approx(8 / 6 / 2 * (told - reading))
    assert rl_of(plan("1x80GB", "--disk", "1TB", keys=keys)[1])["least_seconds"] is None
    assert set(CARDS) == set(SPEEDS)
