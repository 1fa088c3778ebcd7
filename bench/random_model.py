"""A random-weight model as a Hugging Face directory, made once a run and loaded by every library.

Usage: python random_model.py SPEC.json      SPEC: {"workload": {...}, "model": "directory to write"}
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from child import connect
from workloads import Workload


def write_model(work: Workload, folder: Path) -> int:
    """Write weights and tokenizer of a Qwen2 model, the same for the same seed; returns the number of parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from temper.text.tokenizer import write_tokenizer

    config = Qwen2Config(
        vocab_size=work.vocab,
        hidden_size=work.hidden,
        intermediate_size=work.intermediate,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        num_key_value_heads=work.kv_heads,
        tie_word_embeddings=work.tied,
        max_position_embeddings=max(32_768, work.prompt_tokens + work.new_tokens),
        bos_token_id=None,
        eos_token_id=work.eos,
        pad_token_id=work.pad,
    )
    torch.manual_seed(work.seed)
    with torch.device(work.device):
        model = Qwen2ForCausalLM(config).to(getattr(torch, work.dtype))
    model.generation_config.eos_token_id = work.eos
    model.generation_config.pad_token_id = work.pad
    model.save_pretrained(folder)
    words = {f"t{token}": token for token in range(work.eos)}
    words |= {"<eos>": work.eos, "<pad>": work.pad, "<unk>": work.vocab - 1}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    # transformers reads the tokenizer beside a Qwen2 model as Qwen's own, which this is not: a folder of its own
    for place in (folder, tokenizer_of(folder)):
        write_tokenizer(place, backend, "<eos>", "<pad>", unk_token="<unk>")
    return sum(parameter.numel() for parameter in model.parameters())


def tokenizer_of(model: Path) -> Path:
    """Where the tokenizer of `model` is to be loaded from."""
    return model.parent / "tokenizer"


def digest(folder: Path) -> str:
    """SHA-256 of all weight files of a model directory."""
    whole = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()


def main() -> None:
    job = connect()
    parameters = write_model(job.work, job.model)
    job.result(parameters=parameters, sha256=digest(job.model))


if __name__ == "__main__":
    main()
