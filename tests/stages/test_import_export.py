"""Taking a model into a run, and a trained one out of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from model_zoo import CHATS, make
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from temper.artifacts import begin, seal
from temper.commands import export
from temper.errors import ArtifactError, ConfigError, Exit, ResourceError, TemperError
from temper.models.load import load_model
from temper.models.save import read_history
from temper.stages import import_model
from temper.stages.context import StageContext
from temper.stages.import_model import Config
from temper.text.chat import TEMPLATES, ChatFormat


class Log:
    def __init__(self):
        self.warnings: list[str] = []

    def info(self, text: str) -> None:
        """Nothing is tested of what is only told."""

    def warn(self, text: str, key: str = "") -> None:
        self.warnings.append(text)

    note = warn


def context(model: Path, out: Path) -> StageContext:
    out.mkdir(exist_ok=True)
    log: Log = Log()
    return StageContext("base", 0, out, out, {"m": model}, {}, log, lambda: False)  # type: ignore[arg-type]


def imported(model: Path, out: Path, **config) -> Log:
    ctx = context(model, out)
    settings = Config(model="m", **config)
    assert import_model.check(settings, ctx) == []
    import_model.run(settings, ctx)
    return ctx.log  # type: ignore[return-value]


# ---- import --------------------------------------------------------------------------------------------------------


def test_an_imported_model_is_the_same_model(tmp_path):
    source = make("qwen3", tmp_path / "source")
    imported(source, tmp_path / "out")
    tokens = torch.arange(12)[None]
    plain = [AutoModelForCausalLM.from_pretrained(path)(tokens).logits for path in (source, tmp_path / "out")]
    assert torch.equal(*plain)
    assert ChatFormat.load(tmp_path / "out").template == CHATS["qwen3"][0]
    assert read_history(tmp_path / "out")[-1]["stage"] == "base"


def test_a_model_keeps_its_dtype_unless_another_is_named(tmp_path):
    source = make("llama", tmp_path / "source")
    imported(source, tmp_path / "half", dtype="bfloat16")
    imported(tmp_path / "half", tmp_path / "kept")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "kept").dtype == torch.bfloat16


def test_a_model_without_a_template_is_a_config_fault_that_says_what_to_set(tmp_path):
    source = make("gpt2", tmp_path / "source", chat_template=False)
    ctx = context(source, tmp_path / "out")
    [fault] = import_model.check(Config(model="m"), ctx)
    assert fault.code == Exit.CONFIG
    assert "`chat_template`" in fault.fix
    for name in TEMPLATES:
        assert f"`{name}`" in fault.fix
    with pytest.raises(ConfigError):
        import_model.run(Config(model="m"), ctx)
    assert list(ctx.out.iterdir()) == []


@pytest.mark.parametrize("template", [*TEMPLATES, "file", "inline"])
def test_a_template_named_in_the_recipe_goes_with_the_model(template, tmp_path):
    source = make("gpt2", tmp_path / "source", chat_template=False)
    text = TEMPLATES.get(template, CHATS["gpt2"][0])
    (tmp_path / "mine.jinja").write_text(text, encoding="utf-8")
    given = {"file": str(tmp_path / "mine.jinja"), "inline": text}.get(template, template)
    imported(source, tmp_path / "out", chat_template=given)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == text


def test_none_says_that_a_model_only_continues_text(tmp_path):
    source = make("gpt2", tmp_path / "source", chat_template=False)
    imported(source, tmp_path / "out", chat_template="none")
    assert not ChatFormat.load(tmp_path / "out").is_chat


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gemma3", "gpt2"])
def test_some_layers_make_a_whole_model_that_is_those_layers(kind, tmp_path):
    source = make(kind, tmp_path / "source", **({"n_layer": 5} if kind == "gpt2" else {"num_hidden_layers": 5}))
    imported(source, tmp_path / "out", layers=[0, 3, 4])
    whole, shallow = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (source, tmp_path / "out"))
    assert shallow.config.num_hidden_layers == 3
    layers = whole.transformer.h if kind == "gpt2" else whole.model.layers
    for number in (2, 1):  # gone from the end, so that numbers before stay
        del layers[number]
    kinds = getattr(whole.config, "layer_types", None)
    if kinds is not None:
        whole.config.layer_types = [kinds[0], kinds[3], kinds[4]]
        assert shallow.config.layer_types == whole.config.layer_types
    whole.config.num_hidden_layers = 3
    tokens = torch.arange(5, 25)[None]
    assert torch.equal(whole(tokens, use_cache=False).logits, shallow(tokens, use_cache=False).logits)
    assert "only its layers 0, 3, 4" in str(read_history(tmp_path / "out")[-1]["how"])


def test_layers_that_are_not_there_or_not_rising_are_faults_of_the_config(tmp_path):
    source = make("llama", tmp_path / "source")
    [fault] = import_model.check(Config(model="m", layers=[0, 2]), context(source, tmp_path / "out"))
    assert (fault.what, fault.why) == ("`layers` names layer 2", "the model has the layers 0 to 1")
    for wrong in ([1, 0], [1, 1], [], [-1]):
        with pytest.raises(ValidationError):
            Config(model="m", layers=wrong)


@pytest.mark.parametrize("template", ["nonesuch", "{{ 'a' * 10**9 }}", "{% for %}", "/dev/zero", "/no/such/file.jinja"])
def test_a_template_that_cannot_be_used_is_a_config_fault(template, tmp_path):
    source = make("gpt2", tmp_path / "source")
    [fault] = import_model.check(Config(model="m", chat_template=template), context(source, tmp_path / "out"))
    assert fault.code == Exit.CONFIG
    assert "template" in fault.what


def test_a_broken_model_is_an_artifact_fault_before_anything_runs(tmp_path):
    source = make("gpt2", tmp_path / "source")
    (source / "config.json").unlink()
    [fault] = import_model.check(Config(model="m"), context(source, tmp_path / "out"))
    assert fault.code == Exit.ARTIFACT


def test_nothing_is_said_of_a_model_that_does_not_exist_yet(tmp_path):
    assert import_model.check(Config(model="@earlier"), context(tmp_path, tmp_path / "out")) == []


def test_padding_with_the_end_token_is_warned_about(tmp_path):
    source = make("gpt2", tmp_path / "source")
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "pad_token": settings["eos_token"]}), encoding="utf-8")
    log = imported(source, tmp_path / "out")
    assert any("padding" in warning and "end token" in warning for warning in log.warnings)


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"dtype": None}, {"model": 7}, {"template": "r1"}])
def test_a_config_that_is_none(wrong):
    with pytest.raises(ValidationError):
        Config(**{"model": "m", **wrong})


# ---- export --------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path) -> Path:
    final = tmp_path / "artifact"
    made = begin(final)
    imported(make("qwen2", tmp_path / "source"), made)
    seal(made, final, "artifact", {"stage": "x"})
    return final


def exported(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return export.run(parser.parse_args([str(argument) for argument in arguments]))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors.index.json", ".hidden", "sub/x.py", "empty/"])
def test_what_was_put_into_an_artifact_is_named_and_not_exported(model, tmp_path, name):
    path = model / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if name.endswith("/") else path.write_text("x")
    with pytest.raises(ArtifactError) as error:
        exported(model, tmp_path / "out")
    assert name.rstrip("/") in " ".join(fault.where for fault in error.value.faults)
    assert not (tmp_path / "out").exists()


def test_a_damaged_artifact_is_not_exported_by_its_path_either(model, tmp_path):
    path = model / "config.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="damaged"):
        exported(model, tmp_path / "out")


def test_an_export_is_a_hugging_face_directory_and_nothing_else(model, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert exported(model, out) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "manifest.json" not in contents(out)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"):
        assert contents(out)[name] == contents(model)[name]
    tokens = torch.arange(9)[None]
    plain = AutoModelForCausalLM.from_pretrained(out)(tokens).logits
    assert torch.equal(plain, load_model(model, attention="sdpa")(tokens).logits)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_export_can_convert_the_weights(model, tmp_path, capsys):
    assert exported(model, tmp_path / "out", "--dtype", "bfloat16", "--json") == 0
    assert json.loads(capsys.readouterr().out)["directory"] == str(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert "bfloat16" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_what_is_already_there_is_not_overwritten(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert exported(model, out) == 0  # empty is fine
    (out / "mine.txt").write_text("precious")
    before = contents(out)
    with pytest.raises(ConfigError, match="not empty"):
        exported(model, out)
    assert contents(out) == before
    with pytest.raises(ConfigError, match="not empty") as error:
        exported(model, out, "--force")
    assert "mine.txt" in error.value.faults[0].why
    (out / "mine.txt").unlink()
    (out / "pytorch_model.bin").write_text("of the model before")
    assert exported(model, out, "--force") == 0
    assert "pytorch_model.bin" not in contents(out)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "artifact", "out"}


def test_force_replaces_models_only(model, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        exported(model, home, "--force")
    assert contents(home) == {"thesis.tex": b"precious"}


def test_a_model_is_not_exported_into_itself(model):
    for target in (model, model / "out", model.parent):
        with pytest.raises(ConfigError, match="into itself"):
            exported(model, target, "--force")


def test_a_target_that_is_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        exported(model, tmp_path / "file")
    with pytest.raises(ResourceError):
        exported(model, tmp_path / "file" / "below")


def test_a_broken_model_leaves_nothing_behind(model, tmp_path):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(TemperError) as error:
        exported(model, tmp_path / "out")
    assert error.value.code == Exit.ARTIFACT
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "artifact"}


def test_a_full_disk_is_a_resource_fault_and_leaves_the_old_model(model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    exported(model, out)
    before = contents(out)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.shutil, "copyfile", full)
    with pytest.raises(ResourceError) as error:
        exported(model, out, "--force")
    assert "No space left" in error.value.faults[0].why
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "artifact", "out"}
