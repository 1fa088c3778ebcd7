"""How the losses of a step's tokens become one number: each token's weight, and the divisor of the weighted sum.

Input is `counts`, the trained tokens of each completion of each group, over the whole optimiser step (0 where a
completion is masked). Output is the weight of a completion's every token, in the same nesting, and the divisor. So the
weights travel with the tokens, and no micro-batch, packing or rank changes the mean. A new one is a function here and a
line in `AGGREGATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Counts = Sequence[Sequence[int]]
Weights = tuple[list[list[float]], float]


def sequence_mean(counts: Counts, max_length: int = 0) -> Weights:
    """The mean over completions of each one's mean over tokens (GRPO 2402.03300, equation 3; GSPO). A masked completion
    counts as one with loss 0.

    >>> sequence_mean([[2, 4], [1, 0]])
    ([[0.5, 0.25], [1.0, 0.0]], 4.0)
    """
    weights = [[1 / count if count else 0.0 for count in group] for group in counts]
    return weights, float(sum(len(group) for group in counts))


def token_mean(counts: Counts, max_length: int = 0) -> Weights:
    """The mean over all tokens of the step: `token-mean` of verl, on which DAPO is built; CISPO. DAPO's own equation 12
    (2503.14476) is written for one prompt: its mean over prompts is `prompt_mean`.

    >>> token_mean([[2, 4], [1, 0]])
    ([[1.0, 1.0], [1.0, 1.0]], 7.0)
    """
    return [[1.0] * len(group) for group in counts], float(max(1, sum(sum(group) for group in counts)))


def prompt_mean(counts: Counts, max_length: int = 0) -> Weights:
    """The mean over prompts of the mean over all tokens of the prompt's completions (DAPO 2503.14476, equation 12, as
    it is written; ScaleRL 2510.13786, section 3.2).

    >>> prompt_mean([[2, 2], [1, 0]])
    ([[0.25, 0.25], [1.0, 1.0]], 2.0)
    """
    return [[1 / max(1, sum(group))] * len(group) for group in counts], float(len(counts))


def sequence_sum(counts: Counts, max_length: int = 0) -> Weights:
    """The mean over completions of the sum over each one's tokens: a completion is one action, whose log-prob is
    that of its tokens together (RLOO 2402.14740), or whose loss is weighed by its length (LUSPO 2602.05261).

    >>> sequence_sum([[2, 4], [1, 0]])
    ([[1.0, 1.0], [1.0, 1.0]], 4.0)
    """
    return [[1.0] * len(group) for group in counts], float(sum(len(group) for group in counts))


def constant(counts: Counts, max_length: int) -> Weights:
    """The sum over tokens divided by completions × the longest allowed (Dr. GRPO 2503.20783, section 3.2).

    >>> constant([[2, 4], [1, 0]], max_length=8)
    ([[1.0, 1.0], [1.0, 1.0]], 32.0)
    """
    return [[1.0] * len(group) for group in counts], float(sum(len(group) for group in counts) * max_length)


AGGREGATIONS: dict[str, Callable[[Counts, int], Weights]] = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "prompt_mean": prompt_mean,
    "sequence_sum": sequence_sum,
    "constant": constant,
}
