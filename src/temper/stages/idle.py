"""Keys that do nothing beside another: refused where they are written, with what counts instead, never ignored.

A stage with such keys has a function `idle(config)` made of the rules here. Only keys that somebody wrote are told of:
defaults and a preset's values are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from temper.rollout.options import SamplingConfig
from temper.stages.rewards import RewardsConfig
from temper.stages.rollouts import RolloutConfig
from temper.train.learner import OptimizerConfig
from temper.train.policy import PolicyConfig

BOUNDS = ("clip_range", "clip_range_high", "clip_range_negative")
BOUND_OF = {"clip": BOUNDS, "cispo": ("ratio_cap",), "sapo": ("sapo_temperature", "sapo_temperature_negative")}
TAILS = ("top_p", "top_k", "min_p")
WIDE = 0.05  # a range that the mean log-ratio of a completion hardly ever leaves; GSPO's are 3e-4 and 4e-4


@dataclass(frozen=True)
class Idle:
    """A key that does nothing as things are, and what counts instead. `harmless`: a value such as a coefficient of 0
    makes it so, which a sweep may pass through: a warning, no error."""

    key: str
    why: str
    harmless: bool = False


def idle_optimizer(config: OptimizerConfig) -> Iterator[Idle]:
    if config.float32_head and config.dtype == "float32":
        yield Idle("float32_head", "dtype `float32` has nothing narrower to widen", harmless=True)
    if config.lr_scheduler_type == "constant":
        yield Idle("min_lr_ratio", "lr_scheduler_type `constant` never falls: set `linear` or `cosine`")
    if config.compile and config.parallel == "processes":
        yield Idle("parallel", "`compile` trains in one process: leave it out")


def idle_judge(config: RewardsConfig, names: Sequence[str], compares: bool = False) -> Iterator[Idle]:
    """`names` are the stage's rewards; `compares` says that its judge is asked for more than the reward."""
    if config.judge is not None and "judge" not in names and not compares:
        yield Idle("judge", "nobody asks it: name the reward `judge`")
    if config.code_score != "all" and "code" not in names:
        yield Idle("code_score", "no programs are run: name the reward `code`")
    if config.sandbox != "landlock" and "code" not in names:
        yield Idle("sandbox", "no programs are run: name the reward `code`")


def idle_tails(config: SamplingConfig) -> Iterator[Idle]:
    """Sampling that cuts the tail away while the whole distribution is trained: allowed, and told."""
    defaults = SamplingConfig()
    for key in TAILS:
        if getattr(config, key) != getattr(defaults, key):
            why = "log-probs and gradient are of the whole distribution at this temperature, not of what is drawn from"
            yield Idle(key, f"{why}: T 0.6 with top-p 0.95 is a setting for evaluation", harmless=True)


def idle_greedy(config: SamplingConfig) -> Iterator[Idle]:
    """Keys of sampling that say nothing at temperature 0."""
    if config.temperature == 0:
        yield from (Idle(key, "temperature 0 always takes the likeliest token") for key in TAILS)


def idle_policy(config: PolicyConfig, updates: int) -> Iterator[Idle]:
    """`updates`: optimiser updates that one rollout is used for."""
    yield from _bounds(config)
    if config.surrogate != "reinforce" and updates == 1 and config.ratio_against == "trainer":
        why = "with one update a rollout the ratio is exactly 1: `num_mini_batches` or `num_iterations` above 1 move it"
        keys = (*BOUND_OF[config.surrogate], "ratio")
        yield from (Idle(key, why, harmless=True) for key in keys)
        if config.surrogate == "cispo":  # of a preset too, whose own updates somebody took away
            keys = ("surrogate", "num_mini_batches")
            yield from (Idle(key, f"this is plain REINFORCE: {why}", harmless=True) for key in keys)
    elif config.surrogate == "clip" and config.ratio == "sequence" and config.clip_range >= WIDE:
        why = f"a completion's mean ratio hardly leaves 1 ± {config.clip_range:g}, so nothing is clipped"
        yield Idle("ratio", f"{why}: GSPO's `clip_range` is 3e-4, `clip_range_high` 4e-4", harmless=True)
    for key, choice in (("sampler_correction", "token_truncate"), ("sampler_rejection", "geometric")):
        if getattr(config, key) == "none":
            why = f"{key} is `none`: `{choice}`, say, has bounds"
            yield from (Idle(f"{key}_{end}", why) for end in ("min", "max"))


def _bounds(config: PolicyConfig) -> Iterator[Idle]:
    """Bounds of the ratio that belong to another surrogate."""
    if config.surrogate == "reinforce":
        why = "surrogate `reinforce` knows no ratio: `clip` or `cispo` does"
        keys = [key for keys in BOUND_OF.values() for key in keys]
        yield from (Idle(key, why) for key in (*keys, "ratio", "ratio_against"))
        return
    own = BOUND_OF[config.surrogate]
    for surrogate, keys in BOUND_OF.items():
        why = f"surrogate `{config.surrogate}` is bounded by `{own[0]}`; this one is for `{surrogate}`"
        yield from (Idle(key, why) for key in keys if key not in own)


def idle_guards(has_reference: bool, has_steps: bool) -> Iterator[Idle]:
    """Guards of what a stage does not measure."""
    if not has_reference:
        yield Idle("guards.max_kl_divergence", "kl_penalty is 0: `measure_kl: true` measures the drift", harmless=True)
    if not has_steps:
        why = "only completions under supervision `process` have steps: `guards.max_completion_length` bounds tokens"
        yield Idle("guards.max_steps", why)


def idle_rollouts(config: RolloutConfig, steps: int | None) -> Iterator[Idle]:
    """`steps` is how many the stage takes, where that is known."""
    yield from idle_judge(config, config.reward_funcs)
    yield from idle_tails(config)
    late = [name for name, start in config.reward_start_steps.items() if steps and start >= steps]
    if late:
        yield Idle("reward_start_steps", f"`{late[0]}` would start after the last of {steps:,} steps (`max_steps`)")
