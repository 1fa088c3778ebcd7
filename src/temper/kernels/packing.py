"""Can a model be packed? Tried on the model itself, before anything is sampled or trained with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from temper.kernels.attention import NAME
from temper.kernels.packed import AttentionPlan
from temper.kernels.runs import Row

_PROMPT, _REPLIES = 5, (4, 3)  # tokens of a shared prompt and of the two replies to it


def share_prefixes(model: Any) -> bool:
    """Give the model temper's attention if the packed forward then says what the plain one says; else leave it.

    Returns whether it does. Attention sinks, recurrent or convolutional layers and position biases reach past an
    attention function, each in its own way, and would make every number wrong without an error.
    """
    before: Any = model.config._attn_implementation
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):  # longer than what is tried below
        return False
    try:
        with torch.no_grad():
            plain = _two_replies_alone(model.eval())
            model.set_attn_implementation(NAME)
            same = agree(_two_replies_packed(model), plain)
    except Exception:  # an architecture that fails here in whatever way is one that is called in the plain way only
        same = False
    if not same:
        model.set_attn_implementation(before)
    return same


def probe_ids(model: Any, count: int = _PROMPT + sum(_REPLIES)) -> Tensor:
    """`count` token ids [count] of the model's vocabulary to try it with."""
    return (7 + 31 * torch.arange(count)) % model.get_input_embeddings().num_embeddings


def _two_replies_alone(model: Any) -> Tensor:
    ids = probe_ids(model)
    first, second = ids[_PROMPT:].split(_REPLIES)
    rows = [torch.cat([ids[:_PROMPT], reply])[None] for reply in (first, second)]
    return torch.cat([_said(model(input_ids=row, use_cache=False))[0, _PROMPT:] for row in rows])


def _two_replies_packed(model: Any) -> Tensor:
    prompt, first, second = range(_PROMPT), range(_PROMPT, _PROMPT + _REPLIES[0]), range(_PROMPT + _REPLIES[0], 12)
    rows = [Row(prompt), Row(first, prompt), Row(second, prompt)]
    positions = torch.tensor([*prompt, *first, *(_PROMPT + i for i in range(_REPLIES[1]))])
    plan = AttentionPlan(rows, positions)
    packed = model(input_ids=probe_ids(model)[None], position_ids=positions[None], attention_plan=plan, use_cache=False)
    return _said(packed)[0, _PROMPT:]


def _said(output: Any) -> Tensor:
    """Logits, or of a backbone the last hidden states."""
    return output.logits if "logits" in output else output.last_hidden_state


def agree(found: Tensor, plain: Tensor) -> bool:
    """Whether logits are equal up to rounding; what is NaN in both tells nothing."""
    tolerance = 1e-3 if plain.dtype in (torch.float32, torch.float64) else 0.1
    difference = (found.double() - plain.double()).square().mean().sqrt()
    return not bool(difference > tolerance * plain.double().std())
