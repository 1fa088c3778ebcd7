"""Models that are called in the plain way: what their forward takes, and whether it can be sampled from at all."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from temper.kernels.packing import agree, probe_ids

_SEEN = 6  # tokens of the probe that stay the same


def looks_ahead(model: Any) -> bool:
    """Whether what the model says of a token depends on the tokens after it: it cannot be sampled then.

    Raises whatever the model raises when it is called with token ids alone.
    """
    ids = probe_ids(model.eval())[None].to(model.device)
    other = ids.clone()
    other[:, _SEEN:] = ids[:, : ids.shape[1] - _SEEN]
    with torch.no_grad():
        said, said_again = (model(input_ids=tokens, use_cache=False).logits[:, :_SEEN] for tokens in (ids, other))
    return not agree(said, said_again)


def takes(model: Any, name: str) -> bool:
    """Whether the forward of `model` has a parameter of this name (that of the model inside, under adapters)."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return name in inspect.signature(inner.forward).parameters
