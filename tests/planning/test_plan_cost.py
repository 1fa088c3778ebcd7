"""What a stage will need, told before it runs; what it cost, measured."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from pathlib import Path

import fakes
import pytest

from temper.cli import main
from temper.kernels import choice
from temper.kernels.choice import of_layers
from temper.kernels.kept import LEAST
from temper.planning.estimate import PROCESS_BYTES, Machine, estimate, model_sizes
from temper.planning.lengths import stage_tokens
from temper.planning.machines import this_machine
from temper.planning.shapes import ModelSize, Shape, Training, model_size, size_by_config
from temper.recipe.graph import ASSETS
from temper.recipe.reader import load_recipe
from temper.record.cost import Cost, Meter
from temper.stages import STAGES


@pytest.fixture(autouse=True)
def fake_kinds(monkeypatch, tmp_path):
    for kind, entry in fakes.KINDS.items():
        monkeypatch.setitem(STAGES, kind, entry)
    monkeypatch.chdir(tmp_path)


def write_model(folder: Path, shapes: dict[str, list[int]]) -> Path:
    folder.mkdir()
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    config = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 10}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def shape_of(shipped: str) -> Shape:
    size = model_size(ASSETS / shipped)
    assert size is not None
    assert size.shape is not None
    return size.shape


def test_the_size_of_a_model_is_read_from_its_headers(tmp_path):
    folder = write_model(tmp_path / "model", {"a": [10, 8], "b": [8], "c": []})
    assert model_size(folder) == ModelSize(89, 356, {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 10})


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\x08\0\0\0\0\0\0\0notjson!", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_model_has_no_known_size(tmp_path, damage):
    folder = write_model(tmp_path / "model", {"a": [2]})
    (folder / "model.safetensors").write_bytes(damage)
    assert model_size(folder) is None


def test_the_size_of_a_model_is_known_along_the_stages_that_come_from_it(tmp_path):
    write_model(tmp_path / "model", {"a": [100, 8]})
    text = (
        "stages:\n  a: {stage: fake_train, model: model}\n  b: {stage: fake_train, model: '@a', kl_penalty: 0.1}\n"
        "  c: {stage: fake_train}\n  d: {stage: fake_train, model: '@c'}\n  r: {stage: fake_measure, models: ['@b']}\n"
    )
    Path("my.yaml").write_text(text)
    recipe, faults = load_recipe("my.yaml")
    assert not faults
    sizes = model_sizes(recipe, {})
    needs = {stage.name: estimate(stage, sizes).memory_bytes for stage in recipe.stages}
    assert needs["c"] is None
    assert needs["d"] is None
    assert needs["b"] - needs["a"] == 4 * 800
    assert needs["a"] - PROCESS_BYTES == 16 * 800
    assert needs["r"] - PROCESS_BYTES == 4 * 800 + 4 * 800  # while it is loaded, the file's bytes stand beside it


def test_training_on_short_rows_needs_less_than_full_micro_batches():
    rows = [{"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2" * n}]}
            for n in (1, 21)]  # fmt: skip
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 500))
    stage = "{stage: sft, model: '@a', data: rows.jsonl, batch_size: %d, parallel: threads}"
    text = f"stages:\n  a: {{stage: import_model, model: tiny-base}}\n  b: {stage % 16}\n  c: {stage % 64}\n"
    Path("my.yaml").write_text(text)
    recipe, faults = load_recipe("my.yaml")
    assert not faults
    tokens, sizes = stage_tokens(recipe, {}), model_sizes(recipe, {})
    rows = tokens["c"].rows
    assert rows is not None
    assert rows.deviation == pytest.approx(10, rel=0.02)  # rows are 20 characters, and as many tokens, apart
    assert rows.step(16) == pytest.approx(16 * rows.mean + 2 * 10 * 4, rel=0.01)
    needs = {name: estimate(recipe.by_name[name], sizes, tokens[name]).memory_bytes for name in ("b", "c")}
    shape = shape_of("tiny-base")
    way = Training(together=True, straight=True)
    more = shape.activation_bytes(rows.step(64), way) - shape.activation_bytes(rows.step(16), way)
    assert needs["c"] - needs["b"] == more
    assert needs["c"] < estimate(recipe.by_name["c"], sizes).memory_bytes


def test_rows_that_a_stage_has_yet_to_make_are_told_from_what_its_model_was_trained_on():
    rows = [{"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2" * 30}]}] * 20
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("prompts.jsonl").write_text('{"prompt": "1+1", "gold": "2"}\n' * 40)
    Path("my.yaml").write_text(
        "tasks:\n  sums: {train: prompts.jsonl}\nstages:\n"
        "  a: {stage: import_model, model: tiny-base}\n"
        "  b: {stage: sft, model: '@a', data: rows.jsonl}\n"
        "  g: {stage: grpo, model: '@b', tasks: [sums], max_steps: 1, max_completion_length: 200}\n"
        "  h: {stage: sample, model: '@g', tasks: [sums], max_completion_length: 200}\n"
        "  s: {stage: sft, model: '@a', data: '@h'}\n"
        "  z: {stage: sample, model: '@a', tasks: [sums], max_completion_length: 20}\n"
    )
    recipe, faults = load_recipe("my.yaml")
    assert not faults
    found = stage_tokens(recipe, {})
    trained, sampled, second = found["b"].rows, found["g"].reply, found["s"].rows
    assert trained is not None
    assert sampled is not None
    assert second is not None
    assert 30 < sampled.mean < 34  # the reply and its end, not the 200 tokens that it may draw
    assert found["g"].assumed == "replies like those of rows.jsonl"
    assert second.mean == pytest.approx(trained.mean, abs=2)
    assert found["s"].assumed == "rows of @h with replies like those of rows.jsonl"
    assert found["z"].reply is None
    assert found["z"].assumed == "replies of 20 tokens, the most it draws"
    sizes = model_sizes(recipe, {})
    told = estimate(recipe.by_name["s"], sizes, found["s"])
    assert told.assumed == found["s"].assumed
    assert told.memory_bytes < estimate(recipe.by_name["s"], sizes).memory_bytes


def test_rows_that_cannot_be_read_leave_the_bound():
    Path("rows.jsonl").write_text("{}\n")
    Path("my.yaml").write_text("stages:\n  b: {stage: sft, model: tiny-base, data: rows.jsonl}\n")
    recipe, _ = load_recipe("my.yaml")
    assert stage_tokens(recipe, {})["b"].rows is None
    assert "full micro-batches" in stage_tokens(recipe, {})["b"].assumed


def test_a_teacher_takes_the_memory_of_its_weights_and_not_of_training(tmp_path):
    write_model(tmp_path / "small", {"a": [100, 8]})
    write_model(tmp_path / "large", {"a": [5000, 8]})
    (tmp_path / "d.jsonl").write_text('{"prompt": "1+1", "completion": "2"}')
    Path("my.yaml").write_text(
        "stages:\n  s: {stage: distill, model: small, teacher: large, mode: forward_kl, data: d.jsonl}\n"
    )
    recipe, _ = load_recipe("my.yaml")
    [stage] = recipe.stages
    need = estimate(stage, model_sizes(recipe, {}))
    assert need.memory_bytes == PROCESS_BYTES + 16 * 800 + 4 * 40000


def test_reward_models_and_a_value_model_count(tmp_path):
    write_model(tmp_path / "small", {"a": [100, 8]})
    write_model(tmp_path / "judge", {"a": [5000, 8]})
    (tmp_path / "d.jsonl").write_text('{"prompt": "1+1", "gold": "2"}')
    text = (
        "tasks:\n  sums: {train: d.jsonl}\nstages:\n"
        "  g: {stage: grpo, model: small, tasks: [sums], max_steps: 1, reward_funcs: %s}\n"
        "  p: {stage: ppo, model: small, tasks: [sums], max_steps: 1, reward_funcs: [accuracy], kl_penalty: 0}\n"
    )
    needs = []
    for rewards in ("[accuracy]", "[accuracy, ./judge]"):
        Path("my.yaml").write_text(text % rewards)
        recipe, faults = load_recipe("my.yaml")
        assert not faults
        sizes = model_sizes(recipe, {})
        needs.append({stage.name: estimate(stage, sizes).memory_bytes for stage in recipe.stages})
    assert needs[1]["g"] - needs[0]["g"] == 4 * 40000
    assert needs[0]["p"] - PROCESS_BYTES == 2 * 16 * 800


def test_costs_add_up_and_peaks_do_not():
    total = sum([Cost(1, 2, 30), Cost(2, 3, 20)], Cost())
    assert total == Cost(3, 5, 30)


@pytest.mark.parametrize("value", [None, [], {}, {"seconds": "x"}, {"seconds": None, "cpu_seconds": []}])
def test_a_torn_record_costs_nothing(value):
    assert Cost.read(value) == Cost()


def test_a_cost_survives_being_written():
    cost = Cost(1.5, 2.25, 3000)
    assert Cost.read(json.loads(json.dumps(cost.as_dict()))) == cost


def test_a_meter_measures_time_cpu_and_memory():
    meter = Meter()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    spent = meter.spent()
    assert spent.seconds >= 0.1
    assert spent.cpu_seconds >= 0.08
    assert spent.peak_memory_bytes > 5_000_000


def test_strict_ends_with_code_4_where_memory_or_disk_will_not_do(monkeypatch, capsys):
    Path("my.yaml").write_text("stages:\n  a: {stage: import_model, model: tiny-base}\n")
    assert main(["plan", "my.yaml", "--strict"]) == 0
    monkeypatch.setattr("temper.record.cost.memory_available", lambda: 1000)
    assert main(["plan", "my.yaml"]) == 0
    capsys.readouterr()
    assert main(["plan", "my.yaml", "--strict"]) == 4
    assert "stage a needs" in capsys.readouterr().err
    monkeypatch.undo()


def test_the_disk_is_part_of_the_verdict(monkeypatch, capsys):
    Path("my.yaml").write_text("stages:\n  a: {stage: import_model, model: tiny-base}\n")
    monkeypatch.setattr("temper.planning.preflight.disk_free", lambda folder: 1000)
    assert main(["plan", "my.yaml", "--strict"]) == 4
    found = capsys.readouterr()
    assert "will be written" in found.err
    assert "IT DOES NOT FIT" in found.out


def test_layers_one_by_one_are_counted_where_there_is_no_compiler_or_the_kind_is_another():
    row = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
    Path("rows.jsonl").write_text((json.dumps(row) + "\n") * 50)
    Path("my.yaml").write_text(
        "stages:\n  a: {stage: import_model, model: tiny-base}\n  b: {stage: sft, model: '@a', data: rows.jsonl}\n"
    )
    recipe, faults = load_recipe("my.yaml")
    assert not faults
    sizes, stage = model_sizes(recipe, {}), recipe.by_name["b"]
    size = sizes["@a"]
    assert size is not None
    other = {**sizes, "@a": replace(size, config={**size.config, "model_type": "gemma2"})}
    together, apart = (estimate(stage, sizes, machine=Machine(compiles=compiles)) for compiles in (True, False))
    assert (together.memory_bytes or 0) < (apart.memory_bytes or 0)
    more = (estimate(stage, other).memory_bytes or 0) - (apart.memory_bytes or 0)
    assert 0 < more <= LEAST  # logits that are kept where there is a compiler


def test_of_a_large_model_the_way_that_takes_more_counts_until_one_was_found_faster():
    row = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
    Path("rows.jsonl").write_text((json.dumps(row) + "\n") * 50)
    write_model(Path("model"), {"a": [2]})
    Path("my.yaml").write_text(
        "stages:\n  b: {stage: sft, model: model, data: rows.jsonl, parallel: threads, batch_size: 50}\n"
    )
    recipe, faults = load_recipe("my.yaml")
    assert not faults
    small, large = (
        size_by_config({"model_type": "llama", "hidden_size": width, "intermediate_size": 4 * width,
                        "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 1000})
        for width in (128, 512)
    )  # fmt: skip
    assert small is not None
    assert large is not None

    def needs(size: ModelSize, tried: bool | None = None) -> int:
        width = size.config["hidden_size"]
        known = {} if tried is None else {of_layers(width, 4 * width, width, width): tried}
        here = Machine(in_one_call=known)
        return estimate(recipe.by_name["b"], {"model": size}, machine=here).memory_bytes or 0

    assert needs(large, True) < needs(large, False) == needs(large)
    assert needs(small, True) == needs(small, False) == needs(small)


def test_what_a_trial_found_out_about_this_machine_is_planned_with(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice.pin("auto")
    assert not this_machine(2).in_one_call
    shape = of_layers(512, 2048, 512, 128)
    way = choice.chosen(shape, lambda: (lambda: sum(range(100_000)), lambda: None), choice.OWN)
    choice.pin("auto")
    assert way == choice.OWN
    assert this_machine(2).in_one_call == {shape: True}
