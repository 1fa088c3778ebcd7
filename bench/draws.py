"""What a step works on, the same for every library: prompts, completion lengths, rewards; all drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from workloads import Workload

# With this mean, an exponential cut at 1 has mean 0.5 (0.6276 * (1 - exp(-1 / 0.6276)) = 0.5001).
_MEAN_BEFORE_THE_CUT = 0.6276


@dataclass(frozen=True)
class Draws:
    """One step: a prompt a group; `lengths[g][i]` and `rewards[g][i]` are those of completion i to prompt g."""

    prompts: tuple[tuple[int, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    rewards: tuple[tuple[float, ...], ...]

    @property
    def alive(self) -> list[bool]:
        """Which groups carry a gradient: their rewards are not all equal."""
        return [len(set(rewards)) > 1 for rewards in self.rewards]

    @property
    def tokens(self) -> int:
        """Completion tokens of the step."""
        return sum(map(sum, self.lengths))


def draw_step(work: Workload, step: int) -> Draws:
    """Step number `step` of a workload.

    >>> draw_step(Workload(prompts=2, group=3, new_tokens=5), 1).lengths
    ((5, 5, 5), (5, 5, 5))
    """
    draw = Random(f"{work.seed} {step} prompts")
    prompts = tuple(tuple(draw.randrange(work.eos) for _ in range(work.prompt_tokens)) for _ in range(work.prompts))
    return Draws(prompts, completion_lengths(work, step), _rewards(work, step))


def completion_lengths(work: Workload, step: int) -> tuple[tuple[int, ...], ...]:
    """How long each completion is.

    "skewed": an exponential cut at `new_tokens`, as lengths are under a limit: most completions are short (median 0.44
    of the limit), a fifth reaches the limit, the mean is about half of it. "uniform": `min_new_tokens` to `new_tokens`.
    """
    draw = Random(f"{work.seed} {step} lengths")

    def length() -> int:
        if work.lengths == "skewed":
            share = draw.expovariate(1 / _MEAN_BEFORE_THE_CUT)
            return max(work.min_new_tokens, min(work.new_tokens, round(share * work.new_tokens)))
        if work.lengths == "uniform":
            return draw.randint(work.min_new_tokens, work.new_tokens)
        return work.new_tokens

    return tuple(tuple(length() for _ in range(work.group)) for _ in range(work.prompts))


def _rewards(work: Workload, step: int) -> tuple[tuple[float, ...], ...]:
    draw = Random(f"{work.seed} {step} rewards")
    dead = set(draw.sample(range(work.prompts), round(work.dead_groups * work.prompts)))
    return tuple(
        (draw.random(),) * work.group if number in dead else tuple(draw.random() for _ in range(work.group))
        for number in range(work.prompts)
    )


def text_of(token_ids: tuple[int, ...]) -> str:
    """A prompt as the text that the model's tokenizer reads back as these tokens."""
    return " ".join(f"t{token}" for token in token_ids)
