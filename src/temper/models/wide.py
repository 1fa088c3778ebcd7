"""A head that computes in float32 whatever its weights are kept in.

In bfloat16 a logit near 20 is known to a sixteenth, so that two programs disagree on what a token's probability is by
more than an update changes it. MiniMax-M1 (2506.13585, section 3.2) and ScaleRL (2510.13786, section 3.2) compute the
head's product in float32, where tokens are drawn and where they are scored alike.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear


class WideLinear(nn.Linear):
    """A linear layer whose product and result are float32.

    >>> import torch
    >>> WideLinear(2, 3, dtype=torch.bfloat16)(torch.ones(1, 2, dtype=torch.bfloat16)).dtype
    torch.float32
    """

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return linear(input.float(), self.weight.float(), bias)


def widen_head(model: Any) -> bool:
    """Make the head of `model` a wide one, in place; False where it has none that is a plain linear layer."""
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        head.__class__ = WideLinear
    return isinstance(head, WideLinear)
