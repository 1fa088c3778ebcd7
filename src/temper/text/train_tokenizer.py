"""A small byte-level BPE tokenizer: digits apart, a word and the space after it one piece, any text encodable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from temper.text.templates import find_template
from temper.text.tokenizer import write_tokenizer

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PIECES = r"\p{L}+ ?|\p{N}|[^\s\p{L}\p{N}] ?|\s"


def train_tokenizer(texts: Sequence[str], vocab_size: int, out: Path, chat_template: str | None) -> Path:
    """Train on `texts` and write a tokenizer directory that transformers loads. Returns `out`.

    The end token closes documents and turns. The tags of a reply are tokens of their own from the start, as in Qwen3's
    tokenizer, though no text here need hold them.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    write_tokenizer(out, backend, END)
    if chat_template is not None:
        (out / "chat_template.jinja").write_text(find_template(out, chat_template) or "", encoding="utf-8")
    return out
