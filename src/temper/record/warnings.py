"""What goes wrong in RL and can be seen in the metrics: each rule says it once, with the numbers of the run.

Every rule is a pure function (config, rows) -> Finding | None. `config` is the stage's resolved config as a mapping,
`rows` the rows of its metrics.jsonl so far; a rule whose settings or metrics are absent is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from temper.record.learning_rates import advice
from temper.record.metrics import RL_KINDS

Rows = Sequence[Mapping[str, Any]]
Config = Mapping[str, Any]

FEWEST_GENERATIONS = 8  # DeepSeek-R1 draws 16 a prompt; below 8 chance alone makes many groups agree
HIGHEST_KL = 0.05
HIGHEST_TRUNCATION = 0.1
HIGHEST_CLIP_FRACTION = 0.2
HARD_DEAD_SHARE, SOLVED_DEAD_SHARE = 0.5, 0.8
RECENT = 5  # steps a rule averages over, so that one odd step says nothing
EARLY = 10
LOOK_BACK = 200
FORGOTTEN = 0.1
HIGHEST_HARD_CODED = 0.05


@dataclass(frozen=True)
class Finding:
    """Something worth saying once a stage; `key` names the rule. A note explains, a warning asks for a change."""

    key: str
    text: str
    level: Literal["warning", "note"] = "warning"


def find(kind: str, config: Config, rows: Rows) -> list[Finding]:
    """What the rules find so far; [] for stages that are not RL.

    >>> rows = [{"step": s, "policy/kl_divergence": 0.08} for s in range(1, 6)]
    >>> [finding.key for finding in find("grpo", {"kl_penalty": 0.001}, rows)]
    ['kl_high']
    """
    if kind not in RL_KINDS or not rows:
        return []
    rules = RULES if kind in GROUP_KINDS else [rule for rule in RULES if rule not in GROUP_RULES]
    return [found for rule in rules if (found := rule(config, rows)) is not None]


def few_generations(config: Config, rows: Rows) -> Finding | None:
    """Small groups often agree by chance, and a group that agrees has no advantage."""
    count = config.get("num_generations")
    if not isinstance(count, int) or count >= FEWEST_GENERATIONS:
        return None
    text = f"num_generations {count} is few"
    share = _mean(rows[-1:], "reward/accuracy")
    if share in (0.0, 1.0):
        return None  # no group of any size would differ
    if share is not None and 0 < share < 1:
        chance = share**count + (1 - share) ** count
        text += f": at reward/accuracy {share:.2f}, {chance:.0%} of groups agree by chance and teach nothing"
    dead = _mean(rows[-1:], "groups/dead")
    text += f" (groups/dead {dead:.2f} at step {_step(rows)})" if dead is not None else ""
    return Finding("few_generations", f"{text}; 8 to 16 is usual")


def learning_rate_high(config: Config, rows: Rows) -> Finding | None:
    """Above what policies of this size bear; the first row says how many parameters the policy has."""
    text = advice(RL_KINDS[0], config, rows[0].get("policy/parameters"), _kl_so_far(rows))
    return None if text is None else Finding("learning_rate_high", text)


def collapse(config: Config, rows: Rows) -> Finding | None:
    """The reward fell by a third of its best: the updates are too large."""
    if len(rows) < 2 * RECENT:
        return None
    window = rows[-LOOK_BACK:]
    now = _mean(window[-RECENT:], "reward/total")
    ends = range(RECENT, len(window) - RECENT + 1)
    means = [(mean, end) for end in ends if (mean := _mean(window[end - RECENT : end], "reward/total")) is not None]
    if now is None or not means:
        return None
    best, end = max(means)
    if best <= 0.1 or now > best * 2 / 3:
        return None
    span = f"steps {window[end - RECENT]['step']}-{window[end - 1]['step']}"
    rate = config.get("learning_rate")
    lower = f"learning_rate {rate:g} is too high for this policy" if _is_number(rate) else "lower learning_rate"
    return Finding(
        "collapse",
        f"reward/total fell from {best:.2f} ({span}) to {now:.2f} (step {_step(rows)}){_kl_so_far(rows)}: {lower}",
    )


def clipped(config: Config, rows: Rows) -> Finding | None:
    """Not with a ratio of whole sequences: its narrow bounds are meant to clip a large share (GSPO, section 5.1)."""
    share = _recent(rows, "policy/clip_fraction")
    if share is None or share <= HIGHEST_CLIP_FRACTION or config.get("ratio") == "sequence":
        return None
    text = f"policy/clip_fraction {share:.2f} at step {_step(rows)}: the policy moves too far within one rollout"
    return Finding("clipped", f"{text}; lower learning_rate, or make fewer updates of it")


def kl_zero(config: Config, rows: Rows) -> Finding | None:
    """Nothing holds the policy to its reference, and it has drifted (or nobody measures whether it has)."""
    if _kl_penalty(config) != 0 or len(rows) < RECENT:
        return None
    drift = _recent(rows, "policy/kl_divergence")
    if drift is not None and drift > HIGHEST_KL:
        now = f"policy/kl_divergence is {drift:.3f} at step {_step(rows)}"
    elif drift is None and len(rows) >= EARLY:
        text = f"kl_penalty is 0: nothing anchors the policy, and after {_step(rows)} steps its drift is not measured"
        fix = "measure_kl: true tells how far it is, kl_penalty 0.001-0.01 would anchor it"
        return Finding("kl_zero", f"{text}; what no reward asks for may fade ({fix})", "note")
    else:
        return None
    text = f"kl_penalty is 0 and nothing holds the policy to its reference: {now}"
    return Finding("kl_zero", f"{text}; skills that are not rewarded fade. Set kl_penalty to 0.001-0.01")


def kl_high(config: Config, rows: Rows) -> Finding | None:
    """Over more steps than others: k3 is e^u, and one completion in hundreds can double a step's mean."""
    drift = _mean(rows[-EARLY:], "policy/kl_divergence")
    if drift is None or drift <= HIGHEST_KL or len(rows) < RECENT or _kl_penalty(config) == 0:
        return None
    penalty = _kl_penalty(config)
    held = f" (kl_penalty {penalty:g})" if _is_number(penalty) else ""
    text = f"policy/kl_divergence {drift:.3f} at step {_step(rows)} is above {HIGHEST_KL}{held}"
    return Finding(
        "kl_high",
        f"{text}: the policy leaves its reference; compare held-out scores, raise kl_penalty, or lower learning_rate",
    )


def format_drowns_accuracy(config: Config, rows: Rows) -> Finding | None:
    """Form pays more than being right: by its weight, or because accuracy stays where it was."""
    weights = _weights(config)
    form, right = weights.get("format"), weights.get("accuracy")
    if form is None or right is None or config.get("supervision") == "process":  # there the steps pay
        return None
    fix = "give accuracy the larger weight, for example reward_weights [1.0, 0.1]"
    paid, earned = _recent(rows, "reward/format"), _recent(rows, "reward/accuracy")
    numbers = "" if paid is None or earned is None else f" (reward/format {paid:.2f}, reward/accuracy {earned:.2f})"
    if form > right:
        return Finding("format_weight", f"format weighs {form:g}, accuracy {right:g}{numbers}: form pays most; {fix}")
    if paid is None or earned is None or len(rows) < 2 * EARLY:
        return None
    start = _mean(rows[:RECENT], "reward/accuracy")
    if start is None or form * paid <= right * earned or paid < 0.8 or earned > start + 0.02:
        return None
    text = f"at step {_step(rows)} format earns {form * paid:.2f} and accuracy {right * earned:.2f} of the reward"
    return Finding("format_weight", f"{text}, and accuracy has not risen since the start ({start:.2f}); {fix}")


def dead_groups(_: Config, rows: Rows) -> Finding | None:
    """Most groups agree, so most rollouts carry no gradient: prompts are too hard, or solved."""
    if not rows or len(rows) < min(EARLY, rows[-1].get("of") or EARLY):  # a stage may be shorter than that
        return None
    dead = _mean(rows[-EARLY:], "groups/dead")
    right = _mean(rows[-EARLY:], "reward/accuracy")
    if dead is None:
        return None
    share = f"{dead:.0%} of groups carried no signal in steps {rows[-EARLY:][0]['step']}-{_step(rows)}"
    if right is not None and right >= 0.5:
        if dead <= SOLVED_DEAD_SHARE:
            return None
        text = f"{share} (reward/accuracy {right:.2f}): these prompts are nearly solved; harder ones would teach more"
        return Finding("dead_groups", text, "note")
    if dead <= HARD_DEAD_SHARE:
        return None
    at = "" if right is None else f" (reward/accuracy {right:.2f})"
    fix = "use easier prompts, more num_generations, or a cold start before RL"
    return Finding("dead_groups", f"{share}{at}: all of a group's rewards were equal; {fix}")


def truncation(config: Config, rows: Rows) -> Finding | None:
    share = _recent(rows, "completion/truncated")
    if share is None or share <= HIGHEST_TRUNCATION or len(rows) < RECENT:
        return None
    limit = config.get("max_completion_length")
    at = f"max_completion_length {limit}" if isinstance(limit, int) else "the length limit"
    text = f"{share:.0%} of completions hit {at} at step {_step(rows)} and are scored unfinished"
    return Finding("truncation", f"{text}; raise the limit, or shorten what the policy is taught to write")


def reward_without_accuracy(_: Config, rows: Rows) -> Finding | None:
    """The total rises while accuracy falls: something cheaper than the answer is being learned."""
    if len(rows) < 2 * EARLY:
        return None
    total = [_mean(part, "reward/total") for part in (rows[:EARLY], rows[-EARLY:])]
    right = [_mean(part, "reward/accuracy") for part in (rows[:EARLY], rows[-EARLY:])]
    if None in total or None in right or total[1] < total[0] + 0.05 or right[1] > right[0] - 0.05:  # type: ignore[operator]
        return None
    moved = f"reward/total rose from {total[0]:.2f} to {total[1]:.2f} while reward/accuracy fell from {right[0]:.2f}"
    text = f"{moved} to {right[1]:.2f} (step {_step(rows)}): the other rewards are easier to earn"
    return Finding("reward_without_accuracy", f"{text}; lower their weights and read some completions")


def steps_grow(_: Config, rows: Rows) -> Finding | None:
    """Completions have more and more steps and are no more often right: step rewards are earned by talking."""
    if len(rows) < 2 * EARLY:
        return None
    counts = [_mean(part, "steps/count") for part in (rows[:RECENT], rows[-RECENT:])]
    right = [_mean(part, "reward/accuracy") for part in (rows[:RECENT], rows[-RECENT:])]
    if None in counts or None in right or counts[1] <= 1.5 * counts[0] or right[1] > right[0] + 0.02:  # type: ignore[operator]
        return None
    text = f"steps/count grew from {counts[0]:.1f} to {counts[1]:.1f} (step {_step(rows)}) while reward/accuracy went"
    text += f" from {right[0]:.2f} to {right[1]:.2f}: steps are rewarded for being there"
    return Finding("steps_grow", f"{text}; set guards.max_steps, and a step reward that more steps cannot earn")


def hard_coding(_: Config, rows: Rows) -> Finding | None:
    """Programs answer for the examples in their question, and fail the tests that are held back."""
    share, only = _recent(rows, "code/hard_coded"), _recent(rows, "code/shown_only")
    if share is None or share <= HIGHEST_HARD_CODED or len(rows) < RECENT:
        return None
    text = f"{share:.0%} of programs at step {_step(rows)} know an example of their question by heart: they pass the"
    text += f" tests that stand there and fail one that is held back ({only or share:.0%} of all programs do)"
    return Finding("hard_coding", f"{text}; more tests a row that no question shows make it worthless")


def loss_is_zero(config: Config, rows: Rows) -> Finding | None:
    """With one update a rollout the ratio is 1 everywhere, so the loss is -mean(A) + KL term: about 0."""
    if updates_per_rollout(config) != 1 or config.get("supervision") == "process":  # its advantages have another mean
        return None
    loss = _mean(rows[-1:], "loss")
    at = "" if loss is None else f" (it is {loss:.1e} at step {_step(rows)})"
    text = f"one update a rollout: the policy ratio is 1, so the GRPO loss is about 0 by construction{at}"
    return Finding("loss_is_zero", f"{text} and clipping does nothing; watch reward/total instead", "note")


def held_out_fell(rows: Rows, before: float | None, after: float | None) -> Finding | None:
    """The training reward rose while held-out accuracy fell from `before` (the stage's start) to `after`.

    >>> rows = [{"step": 1, "reward/total": 0.5}, {"step": 2, "reward/total": 0.9}]
    >>> held_out_fell(rows, 0.6, 0.4).key
    'held_out_fell'
    """
    third = max(1, len(rows) // 3)
    start, end = _mean(rows[:third], "reward/total"), _mean(rows[-third:], "reward/total")
    if start is None or end is None or before is None or after is None or end <= start or after >= before - 0.02:
        return None
    text = (
        f"reward/total rose from {start:.2f} to {end:.2f} while held-out accuracy fell from {before:.2f} to {after:.2f}"
    )
    return Finding("held_out_fell", f"{text}: the training prompts or the reward are being gamed; read the completions")


def forgot(config: Config, task: str, before: float, after: float, last: float) -> Finding | None:
    """Held-out accuracy on a task that the stage was not trained on fell from `before` to `after`; a note where the
    run's last model has it back (`last`), as R1's second SFT brings back what RL lost.

    >>> forgot({"kl_penalty": 0}, "general", before=0.9, after=0.4, last=0.92).level
    'note'
    """
    if after > before - FORGOTTEN:
        return None
    penalty = _kl_penalty(config)
    held = f" (kl_penalty {penalty:g})" if _is_number(penalty) else ""
    text = f"held-out accuracy on {task}, which was not trained, fell from {before:.2f} to {after:.2f}{held}"
    if last >= before - FORGOTTEN / 2:
        return Finding("forgot", f"{text}; the run's last model has it back: {last:.2f}", "note")
    fix = "raise kl_penalty, train on some of it too, or restore it with an SFT stage"
    return Finding("forgot", f"{text}, and the run's last model has {last:.2f}: {fix}")


def updates_per_rollout(config: Config) -> int | None:
    """Optimiser steps made of one rollout, None where the config does not say."""
    counts = [config.get(name) for name in ("num_mini_batches", "num_iterations")]
    return None if not all(isinstance(count, int) for count in counts) else counts[0] * counts[1]  # type: ignore[operator]


RULES: tuple[Callable[[Config, Rows], Finding | None], ...] = (
    few_generations,
    learning_rate_high,
    loss_is_zero,
    collapse,
    clipped,
    kl_zero,
    kl_high,
    format_drowns_accuracy,
    dead_groups,
    truncation,
    reward_without_accuracy,
    steps_grow,
    hard_coding,
)
# Of methods that compare the completions of one prompt
GROUP_KINDS = ("grpo",)
GROUP_RULES = (few_generations, loss_is_zero, dead_groups)


def _mean(rows: Rows, name: str) -> float | None:
    values = [row[name] for row in rows if _is_number(row.get(name))]
    return sum(values) / len(values) if values else None


def _recent(rows: Rows, name: str) -> float | None:
    return _mean(rows[-RECENT:], name)


def _step(rows: Rows) -> int:
    return rows[-1].get("step", len(rows))


def _kl_so_far(rows: Rows) -> str:
    drift = _recent(rows, "policy/kl_divergence")
    return "" if drift is None else f" (policy/kl_divergence {drift:.3f})"


def _kl_penalty(config: Config) -> Any:
    """The coefficient, the largest where every task has its own."""
    penalty = config.get("kl_penalty")
    return max(penalty.values(), default=0) if isinstance(penalty, Mapping) else penalty


def _weights(config: Config) -> dict[str, float]:
    names, weights = config.get("reward_funcs"), config.get("reward_weights")
    if not isinstance(names, (list, tuple)):
        return {}
    if not isinstance(weights, (list, tuple)) or len(weights) != len(names):
        weights = [1.0] * len(names)
    return {str(name): float(weight) for name, weight in zip(names, weights, strict=True) if _is_number(weight)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
