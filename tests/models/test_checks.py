"""A model directory that is broken, hostile or not a model: every fault named, exit code 5, little time and memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import ARCHITECTURES, make
from safetensors.torch import load_file, save_file

from temper.errors import ArtifactError, Exit
from temper.models.checks import check_model_dir
from temper.models.load import load_model
from temper.models.safetensors import read_header, read_headers


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make("llama", tmp_path_factory.mktemp("zoo") / "llama")


@pytest.fixture
def model(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit_json(file: Path, **keys) -> None:
    """Set keys; a key set to ... is removed."""
    value = json.loads(file.read_text(encoding="utf-8"))
    for key, setting in keys.items():
        if setting is ...:
            value.pop(key, None)
        else:
            value[key] = setting
    file.write_text(json.dumps(value), encoding="utf-8")


def edit_weights(path: Path, change) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def write_raw(file: Path, header: dict | bytes, data: bytes = b"", length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def refused(path: Path, *words: str) -> list[str]:
    """Both the check and the load refuse it with code 5 and say all the words; nothing takes long."""
    began = time.process_time()
    faults = check_model_dir(path)
    assert faults
    assert time.process_time() - began < 3
    said = "\n".join(fault.render() for fault in faults)
    for word in words:
        assert word in said, said
    assert {fault.code for fault in faults} == {Exit.ARTIFACT}
    assert len(set(faults)) == len(faults)
    with pytest.raises(ArtifactError) as error:
        load_model(path)
    assert error.value.code == Exit.ARTIFACT
    return [fault.what for fault in faults]


def refused_at_load(path: Path, *words: str) -> None:
    with pytest.raises(ArtifactError) as error:
        load_model(path)
    for word in words:
        assert word in error.value.render(), error.value.render()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_whole_model_has_no_fault(arch, tmp_path):
    assert check_model_dir(make(arch, tmp_path / arch)) == []


# ---- what is not there ---------------------------------------------------------------------------------------------


def test_an_empty_directory_lacks_three_things_and_all_are_said(tmp_path):
    whats = refused(tmp_path, "`config.json` is missing", "tokenizer is missing", "weights are missing")
    assert len(whats) == 3


def test_no_directory_or_no_directory_but_a_file(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file")


@pytest.mark.parametrize(
    ("name", "word"),
    [("config.json", "`config.json` is missing"), ("tokenizer.json", "tokenizer is missing"),
     ("model.safetensors", "weights are missing")],
)  # fmt: skip
def test_one_missing_file_is_named(model, name, word):
    (model / name).unlink()
    assert len(refused(model, word)) == 1


def test_a_dangling_link_and_a_pipe_are_named_and_not_waited_for(model):
    (model / "model.safetensors").unlink()
    os.symlink("/no/such/blob", model / "model.safetensors")
    refused(model, "model.safetensors")
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    refused(model, "`config.json` is not a regular file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_and_never_opened(model, name, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb()))
    refused(model, name, "pickled", "safetensors")
    assert not (tmp_path / "executed").exists()


def test_pickles_beside_safetensors_do_no_harm(model, tmp_path):
    (model / "optimizer.pt").write_bytes(b"not even a pickle")
    (model / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert check_model_dir(model) == []
    load_model(model)


def test_gguf_is_named(model):
    (model / "model.safetensors").rename(model / "model-q4.gguf")
    refused(model, "model-q4.gguf")


# ---- config.json ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"[1]", "a list"), (b"null", "null"), (b"\xff\xfe{\x00}\x00", "not UTF-8"),
     (b"[" * 100_000, "nested too deeply"), (b"\x00" * 100, "not JSON"), (b"{}", "model_type"),
     (b'{"model_type": 7}', "model_type"), (b'{"a":' * 50_000, "nested too deeply"),
     (b" " * (17 * 2**20), "limit")],
)  # fmt: skip
def test_a_config_that_is_none(model, content, word):
    (model / "config.json").write_bytes(content)
    refused(model, word, "config.json")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_and_not_run(model, file, tmp_path):
    (model / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass C: pass\n")
    edit_json(
        model / file, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C", "AutoTokenizer": "evil.C"}
    )
    refused(model, file, "auto_map", "trust_remote_code")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"model_type": "nonesuch"}, "nonesuch"),
        ({"model_type": "t5"}, "t5"),
        ({"model_type": "clip"}, "clip"),
        ({"hidden_act": "nonesuch"}, "nonesuch"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"hidden_size": "many"}, "config.json"),
        ({"hidden_size": -32}, "config.json"),
        ({"num_hidden_layers": 3}, "layers.2"),
        ({"num_hidden_layers": 1}, "model.layers.1."),
        ({"hidden_size": 64}, "[380, 32] in the file"),
        ({"vocab_size": 10_000}, "10000"),
        ({"vocab_size": 10**13}, "model.embed_tokens.weight"),
        ({"intermediate_size": 10**7}, "mlp"),
        ({"rope_parameters": {"rope_type": "nonesuch"}}, "config.json"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_named_at_load(model, settings, word):
    edit_json(model / "config.json", **settings)
    refused_at_load(model, word)


def test_a_config_of_a_billion_layers_is_not_even_described(model):
    edit_json(model / "config.json", num_hidden_layers=10**9)
    refused(model, "1,000,000,000 layers")


def test_quantised_weights_are_refused(model):
    edit_json(model / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(model, "quantization_config")


def test_an_adapter_is_no_model(model):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2.5-0.5B", "revision": "0123abc"}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    (model / "config.json").unlink()
    refused(model, "adapter", "Qwen/Qwen2.5-0.5B", "0123abc", "merge")


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 1000, -1])
def test_truncated_weights(model, kept):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(model, "model.safetensors")


def test_weights_with_something_behind_them(model):
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"x")
    refused(model, "model.safetensors", "no tensor")


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS = {
    "100 GB of header": (b"{}", b"", 100 * 10**9),
    "a header longer than the file": (b"{}", b"", 3),
    "the largest length there is": (b"{}", b"", 2**64 - 1),
    "100 GB declared": ({"a": tensor(shape=(25 * 10**9,), offsets=(0, 100 * 10**9))}, b"\0" * 8, None),
    "a shape that overflows": ({"a": tensor(shape=(2**62, 2**62), offsets=(0, 8))}, b"\0" * 8, None),
    "a shape with 2^64": ({"a": tensor(shape=(2**64,), offsets=(0, 8))}, b"\0" * 8, None),
    "overlapping": ({"a": tensor(), "b": tensor(offsets=(4, 12))}, b"\0" * 12, None),
    "the same bytes twice": ({"a": tensor(), "b": tensor()}, b"\0" * 8, None),
    "a hole": ({"a": tensor(), "b": tensor(offsets=(16, 24))}, b"\0" * 24, None),
    "a range backwards": ({"a": tensor(offsets=(8, 0))}, b"\0" * 8, None),
    "a negative range": ({"a": tensor(offsets=(-8, 0))}, b"\0" * 8, None),
    "a negative size": ({"a": tensor(shape=(-2,))}, b"\0" * 8, None),
    "more than its shape": ({"a": tensor(shape=(1,))}, b"\0" * 8, None),
    "an unknown dtype": ({"a": tensor(dtype="F31")}, b"\0" * 8, None),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8, None),
    "a fractional size": ({"a": tensor(shape=(2.0,))}, b"\0" * 8, None),
    "a boolean size": ({"a": tensor(shape=(True, 2))}, b"\0" * 8, None),
    "a shape that is a text": ({"a": {"dtype": "F32", "shape": "22", "data_offsets": [0, 8]}}, b"\0" * 8, None),
    "three offsets": ({"a": tensor(offsets=(0, 4, 8))}, b"\0" * 8, None),
    "an entry that is a number": ({"a": 7}, b"", None),
    "a name twice": (b'{"a": %b, "a": %b}' % ((json.dumps(tensor()).encode(),) * 2), b"\0" * 8, None),
    "a list": (b"[]", b"", None),
    "no JSON": (b"{" * 50, b"", None),
    "deep": (b"[" * 200_000, b"", None),
    "not UTF-8": (b'{"\xff": 1}', b"", None),
    "a large header": (b'{"__metadata__": {"a": "' + b"x" * (9 * 2**20) + b'"}}', b"", None),
    "a dimension too many": ({"a": tensor(shape=(1,) * 100 + (2,))}, b"\0" * 8, None),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused(model, case):
    header, data, length = HEADERS[case]
    write_raw(model / "model.safetensors", header, data, length)
    refused(model, "model.safetensors")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_header_is_refused_or_harmless(whole, data):
    """Flipped, removed or inserted bytes: an ArtifactError or tensors that lie within the file, nothing else."""
    raw = bytearray((whole / "model.safetensors").read_bytes())
    end = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end - 1))
        raw[at] = data.draw(st.integers(0, 255))
    file = whole.parent / "damaged.safetensors"
    file.write_bytes(raw)
    try:
        tensors = read_header(file)
    except ArtifactError:
        return
    assert all(8 <= tensor.begin <= tensor.end <= len(raw) for tensor in tensors.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_weight_that_is_no_number_is_named(model, value, dtype):
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(weights):
        for key in weights:
            weights[key] = weights[key].to(dtype)
        weights[name][-1, -1] = value

    edit_weights(model, spoil)
    assert refused(model, "NaN or infinity", name)
    refused_at_load(model, name)


def test_the_largest_numbers_are_numbers(model):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):

        def fill(weights, dtype=dtype):
            for key in weights:
                weights[key] = weights[key].to(dtype)
            weights["model.norm.weight"].fill_(torch.finfo(dtype).max)

        edit_weights(model, fill)
        assert check_model_dir(model) == []


@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"],
)
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(model, name):
    edit_weights(model, lambda weights: weights.update({name: weights[name][:-1].clone()}))
    refused_at_load(model, name, "shape")
    edit_weights(model, lambda weights: weights.pop(name))
    refused_at_load(model, name, "missing")


def test_no_weights_at_all_in_the_file(model):
    save_file({}, model / "model.safetensors")
    with pytest.raises(ArtifactError):
        load_model(model)


# ---- shards --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(model) -> Path:
    load_model(model, attention="sdpa").save_pretrained(model, max_shard_size="60KB")
    (model / "model.safetensors").unlink(missing_ok=True)
    assert len(list(model.glob("model-*.safetensors"))) > 1
    return model


def index(path: Path) -> dict:
    return json.loads((path / "model.safetensors.index.json").read_text())


def test_shards_are_read(whole, sharded):
    assert check_model_dir(sharded) == []
    assert read_headers(sharded).keys() == read_headers(whole).keys()
    x = torch.arange(9)[None]
    assert torch.equal(load_model(sharded, attention="sdpa")(x).logits, load_model(whole, attention="sdpa")(x).logits)


def test_a_missing_or_broken_shard_is_named(sharded):
    first, second, *_ = sorted(sharded.glob("model-*.safetensors"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    refused(sharded, first.name, second.name)


@pytest.mark.parametrize(
    "place", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "pytorch_model.bin", "", 7, None]
)
def test_an_index_names_files_of_its_own_directory_only(sharded, place):
    places = index(sharded)["weight_map"]
    places["lm_head.weight"] = place
    edit_json(sharded / "model.safetensors.index.json", weight_map=places)
    refused(sharded, "index", "lm_head.weight")


@pytest.mark.parametrize("places", [..., {}, [], "x", None])
def test_an_index_needs_its_map(sharded, places):
    edit_json(sharded / "model.safetensors.index.json", weight_map=places)
    refused(sharded, "weight_map")


def test_an_index_that_places_a_tensor_in_the_wrong_shard(sharded):
    places = index(sharded)["weight_map"]
    files = sorted(set(places.values()))
    places["lm_head.weight"] = next(file for file in files if file != places["lm_head.weight"])
    edit_json(sharded / "model.safetensors.index.json", weight_map=places)
    refused(sharded, "lm_head.weight", places["lm_head.weight"])


def test_a_tensor_in_two_shards(sharded):
    files = sorted(sharded.glob("model-*.safetensors"))
    weights = load_file(files[0])
    name, value = next(iter(load_file(files[1]).items()))
    save_file({**weights, name: value}, files[0])
    refused(sharded, name, "two files")


# ---- tokenizer and template ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_is_none(model, content):
    from temper.text.chat import ChatFormat

    (model / "tokenizer.json").write_text(content)
    if content not in ("{}", '{"model": {"type": "BPE"}}'):
        refused(model, "tokenizer.json")
    with pytest.raises(ArtifactError) as error:
        ChatFormat.load(model)
    assert "tokenizer" in error.value.render()


def test_a_generation_config_that_is_none(model):
    (model / "generation_config.json").write_text("{")
    refused(model, "generation_config.json")


def test_a_sentencepiece_file_alone_is_not_supported_and_says_so(model):
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    refused(model, "tokenizer.model", "convert")


@pytest.mark.parametrize("special", [True, False])
def test_a_token_beyond_the_embedding_is_named(model, special):
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    rows = json.loads((model / "config.json").read_text())["vocab_size"]
    tokenizer["added_tokens"].append({"id": rows, "content": "<new>", "special": special, "normalized": False,
                                      "single_word": False, "lstrip": False, "rstrip": False})  # fmt: skip
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert len(refused_by_check(model, "<new>", f"{rows:,} rows", "resize_token_embeddings")) == 1
    # a token for images is in no text: Gemma 3 has one just beyond its embedding
    edit_json(model / "tokenizer_config.json", image_token="<new>")
    assert check_model_dir(model) == []


def refused_by_check(path: Path, *words: str) -> list[str]:
    faults = check_model_dir(path)
    said = "\n".join(fault.render() for fault in faults)
    for word in words:
        assert word in said, said
    return [fault.what for fault in faults]


def test_a_vocabulary_smaller_than_the_embedding_is_fine(tmp_path):
    path = make("llama", tmp_path / "m", vocab_size=512)
    assert check_model_dir(path) == []
    load_model(path)


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "list"])
def test_a_template_bomb_is_found_wherever_it_lies(model, place):
    bomb = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (model / "chat_template.jinja").unlink()
    if place == "chat_template.jinja":
        (model / place).write_text(bomb)
    elif place == "list":
        edit_json(model / "tokenizer_config.json", chat_template=[{"name": "default", "template": bomb}])
    else:
        edit_json(model / place, chat_template=bomb)
    refused_by_check(model, "chat template", "ranges")


def test_a_directory_nobody_may_read_is_a_fault(model, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", denied)
    assert "cannot be read" in check_model_dir(model)[0].what


def test_weights_larger_than_the_memory_are_not_read(model, monkeypatch):
    sysconf = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sysconf.__getitem__)
    [fault] = check_model_dir(model)
    assert fault.code == Exit.RESOURCES
    assert "memory" in fault.what


def test_a_whole_file_beside_an_index_of_shards_is_refused(model):
    (model / "model-00001-of-00001.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    index = {"metadata": {}, "weight_map": dict.fromkeys(read_headers(model), "model-00001-of-00001.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "stands beside an index of shards")
    (model / "model.safetensors").unlink()
    assert check_model_dir(model) == []


def test_an_index_of_the_one_whole_file_is_fine(model):
    index = {"metadata": {}, "weight_map": dict.fromkeys(read_headers(model), "model.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert check_model_dir(model) == []
