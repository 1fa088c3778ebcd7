"""Process supervision: from the rewards of the steps of a group's completions to one advantage a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from temper.algorithms.advantages import standardised

StepRewards = Sequence[tuple[int, float]]  # of one completion: (index of the token that ends the step, its reward)


def process_advantages(
    steps: Sequence[StepRewards], lengths: Sequence[int], normalise: Callable[[Tensor], Tensor] = standardised
) -> list[Tensor]:
    """One [T] float64 tensor a completion of a group, in order: A_t = Σ of the normalised rewards of the steps that end
    at token t or after it, all step rewards of the group normalised together (DeepSeekMath 2402.03300, section 4.1.3).

    `steps[i]` are the steps of completion i, in any order, `lengths[i]` its tokens; several steps may end on one token.
    A token after the last step's end is supervised by no step: its sum is empty, 0. Whoever wants every token
    supervised lets the last step end with the completion, as temper's stages do. All rewards equal: exactly 0.
    Raises ValueError for a step that ends outside its completion.

    Two completions of 3 and 2 tokens, the rewards 1 (token 0), 0 (token 2) and 1 (token 1): mean 2/3, std 1/√3, so that
    1 becomes 1/√3 ≈ 0.577 and 0 becomes −2/√3 ≈ −1.155 (up to the epsilon of `standardised`).

    >>> first, second = process_advantages([[(0, 1.0), (2, 0.0)], [(1, 1.0)]], [3, 2])
    >>> first, second
    (tensor([-0.5773, -1.1545, -1.1545], dtype=torch.float64), tensor([0.5773, 0.5773], dtype=torch.float64))

    One step a completion that ends with it is outcome supervision:

    >>> [a.tolist() for a in process_advantages([[(1, 4.0)], [(0, 1.0)]], [2, 1], lambda r: r - r.mean())]
    [[1.5, 1.5], [-1.5]]
    """
    for of_completion, length in zip(steps, lengths, strict=True):
        if any(not 0 <= end < length for end, _ in of_completion):
            raise ValueError(f"a step ends outside its completion of {length} tokens: {of_completion}")
    pool = torch.tensor([reward for of_completion in steps for _, reward in of_completion], dtype=torch.float64)
    normal = iter((normalise(pool) if len(pool) > 1 else torch.zeros_like(pool)).tolist())
    return [
        _sums_of_following([(end, next(normal)) for end, _ in of_completion], length)
        for of_completion, length in zip(steps, lengths, strict=True)
    ]


def _sums_of_following(rewards: StepRewards, length: int) -> Tensor:
    """[T]: at t the sum of the rewards of the steps whose end is not before t."""
    at_end_T = torch.zeros(length, dtype=torch.float64)
    for end, reward in rewards:
        at_end_T[end] += reward
    return at_end_T.flip(0).cumsum(0).flip(0)
