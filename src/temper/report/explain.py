"""Why is my reward flat? What a stage that learns from rewards did, and what its own numbers say of the reasons.

`report/warnings.py` speaks while a run goes on and must not cry wolf; a diagnosis is asked for, so it may also say what
would be no warning: that the reward did not move, and how far the policy did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temper.record.lines import number
from temper.record.warnings import EARLY, HARD_DEAD_SHARE, Finding, find

Rows = Sequence[Mapping[str, Any]]
TREND = ("reward/total", "reward/accuracy", "reward/format", "groups/dead", "completion/length", "policy/entropy",
         "policy/kl_divergence")  # fmt: skip
FLAT = 0.03  # of reward/total between the first and the last steps: a batch of 512 completions is off by 0.02
SOLVED = 0.95
STILL = 0.02  # relative change of the entropy below which the policy has hardly moved


def trend(rows: Rows) -> dict[str, tuple[float, float]]:
    """Each metric's mean over the first and over the last steps, at most ten each and a third of all.

    >>> trend([{"reward/total": 0.1}, {"reward/total": 0.2}, {"reward/total": 0.9}])
    {'reward/total': (0.1, 0.9)}
    """
    width = max(1, min(EARLY, len(rows) // 3))
    found = {}
    for name in TREND:
        ends = [_mean(part, name) for part in (rows[:width], rows[-width:])]
        if ends[0] is not None and ends[1] is not None:
            found[name] = (ends[0], ends[1])
    return found


def diagnose(kind: str, config: Mapping[str, Any], rows: Rows, said: Sequence[Mapping[str, Any]] = ()) -> list[Finding]:
    """What the rules find in all of the rows, what was warned of earlier (`said`: the rows of warnings.jsonl) and why
    the reward is flat, if it is; warnings first.

    >>> rows = [{"step": s, "reward/total": 0.5, "groups/dead": 0.2, "policy/entropy": 0.4} for s in range(1, 31)]
    >>> [f.key for f in diagnose("grpo", {"learning_rate": 1e-7}, rows)]
    ['flat', 'hardly_moved']
    """
    found = {finding.key: finding for finding in find(kind, config, rows)}
    for row in said:
        key, text = str(row["key"]), str(row["text"])
        text += f" (said at step {row['step']})" if row["step"] < _step(rows) else ""
        found.setdefault(key, Finding(key, text, "note" if row.get("level") == "note" else "warning"))
    ends = trend(rows)
    reasons = [rule(config, rows, ends) for rule in RULES]
    findings = [*(reason for reason in reasons if reason is not None and reason.key not in found), *found.values()]
    return sorted(findings, key=lambda finding: finding.level == "note")


def is_flat(ends: Mapping[str, tuple[float, float]]) -> bool:
    """Whether the reward did not rise."""
    first, last = ends.get("reward/total", (0.0, 0.0))
    return last - first < FLAT


Ends = Mapping[str, tuple[float, float]]


def flat(_: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """The reward did not rise. Said first: the others are its reasons."""
    if "reward/total" not in ends or not is_flat(ends):
        return None
    first, last = ends["reward/total"]
    text = f"reward/total went from {first:.2f} to {last:.2f} in {_step(rows)} steps"
    if len(rows) < 2 * EARLY:
        return Finding("flat", f"{text}: too few steps to tell, go on to {2 * EARLY} or more", "note")
    if last < first - FLAT:
        return Finding("flat", f"{text}: it fell")
    right = ends.get("reward/accuracy", (0.0, 0.0))
    if right[0] >= SOLVED:
        return Finding("flat", f"{text}: reward/accuracy was {right[0]:.2f} from the start, there is little to learn; "
                               "harder prompts would teach more", "note")  # fmt: skip
    return Finding("flat", f"{text}: it is flat")


def never_right(_: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Nothing was ever right, so there is nothing to make likelier."""
    best = max((row["reward/accuracy"] for row in rows if _is_number(row.get("reward/accuracy"))), default=None)
    if best is None or best > 0:
        return None
    form = ends.get("reward/format", (None, None))[1]
    about = "" if form is None else f" (reward/format {form:.2f})"
    text = f"no completion was right in {_step(rows)} steps{about}: RL makes likelier what is drawn already"
    fix = "use easier prompts or a cold start, and see that `temper check` can read the gold answers"
    return Finding("never_right", f"{text}; {fix}")


def signal_lost(_: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Flat, and a good part of the groups say nothing: fewer than the rule about dead groups asks for."""
    dead = ends.get("groups/dead")
    if not is_flat(ends) or dead is None or not 0.3 < dead[1] <= HARD_DEAD_SHARE:
        return None
    text = f"{dead[1]:.0%} of the last steps' groups carried no signal"
    return Finding("signal_lost", f"{text}: more num_generations, or prompts of which some completions are right")


def hardly_moved(config: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Flat, though there is signal, and the policy is where it was: the steps are too small."""
    drift, entropy, rate = ends.get("policy/kl_divergence"), ends.get("policy/entropy"), config.get("learning_rate")
    _, dead = ends.get("groups/dead", (0.0, 0.0))
    if not is_flat(ends) or len(rows) < EARLY or dead > HARD_DEAD_SHARE or not isinstance(rate, (int, float)):
        return None
    if drift is not None and drift[1] < 1e-3:
        numbers = f"policy/kl_divergence {drift[1]:.1e}"
    elif drift is None and entropy is not None and abs(entropy[1] - entropy[0]) < STILL * max(entropy[0], 1e-9):
        numbers = f"policy/entropy {entropy[0]:.3f} to {entropy[1]:.3f}"
    else:
        return None
    text = f"the policy has hardly moved in {_step(rows)} steps ({numbers}) at learning_rate {rate:g}"
    return Finding("hardly_moved", f"{text}: raise it, threefold at a time (small models bear more than R1's 3e-6)")


def anchored(config: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Flat under a heavy anchor."""
    penalty, drift = config.get("kl_penalty"), ends.get("policy/kl_divergence")
    if not is_flat(ends) or not isinstance(penalty, (int, float)) or penalty < 0.05 or drift is None:
        return None
    text = f"kl_penalty {penalty:g} × policy/kl_divergence {drift[1]:.4f} holds the policy to its reference"
    return Finding("anchored", f"{text}; R1 used 0.001")


def unweighted(config: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Being right earns nothing, so accuracy has no reason to rise."""
    names, weights = config.get("reward_funcs"), config.get("reward_weights")
    if not isinstance(names, list) or not names:
        return None
    paid = dict(zip(names, weights, strict=False)) if isinstance(weights, list) else dict.fromkeys(names, 1.0)
    if paid.get("accuracy", 0.0):
        return None
    judged = [name for name in names if str(name).startswith("@") or ":" in str(name) or name in ("code", "judge")]
    if judged:
        return None
    text = f"no reward for being right: the rewards are {', '.join(map(str, names))}"
    return Finding("unweighted", f"{text}; give accuracy a weight")


def failing(_: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Rewards that raise count as 0."""
    failures = _mean(rows[-EARLY:], "grader_failures")
    if not failures:
        return None
    text = f"{failures:.1f} rewards a step raised and were counted as 0"
    return Finding("failing", f"{text}: `temper score` on the kept rollouts shows which")


def mismatched(_: Mapping[str, Any], rows: Rows, ends: Ends) -> Finding | None:
    """Sampler and trainer disagree about the same tokens: the gradient is of another policy than the one that drew."""
    gap = _mean(rows[-EARLY:], "policy/mismatch_mean")
    if gap is None or gap < 0.05:
        return None
    text = f"policy/mismatch_mean {gap:.3f}: sampler and trainer disagree about the same tokens"
    return Finding("mismatched", f"{text}; sample in the precision that is trained, or correct for it")


RULES = (flat, never_right, unweighted, signal_lost, hardly_moved, anchored, failing, mismatched)


def render(stage: Mapping[str, Any]) -> str:
    """One stage of a diagnosis for people."""
    verdict = "did not rise" if stage["flat"] else "rose"
    lines = [f"{stage['stage']} ({stage['kind']}), step {stage['step']} of {stage['of']}: the reward {verdict}"]
    lines += [f"  {name:<22} {number(a)} -> {number(b)}" for name, (a, b) in stage["trend"].items()]
    shares = stage.get("verdicts") or {}
    lines += [f"  {f'programs {name}':<22} {number(a)} -> {number(b)}" for name, (a, b) in shares.items()]
    for finding in stage["findings"]:
        lines.append(f"  {finding['level']}: {finding['text']}")
    if not any(finding["level"] == "warning" for finding in stage["findings"]):
        lines.append("  nothing found that asks for a change")
    return "\n".join(lines)


def _mean(rows: Rows, name: str) -> float | None:
    values = [row[name] for row in rows if _is_number(row.get(name))]
    return sum(values) / len(values) if values else None


def _step(rows: Rows) -> int:
    return rows[-1].get("step", len(rows))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
