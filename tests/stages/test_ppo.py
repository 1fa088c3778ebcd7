"""PPO: its gradient is that of the formulas written out over padded rows, however it is cut; a run resumes bitwise."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from pydantic import ValidationError
from tiny_models import EXTRA, SIZES, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from temper.algorithms.gae import explained_variance
from temper.artifacts import hash_file
from temper.config import TaskConfig
from temper.errors import ArtifactError, Preempted
from temper.kernels.attention import NAME, register
from temper.models.scalar import SharedTrunk, draw_head
from temper.stages import grpo, ppo
from temper.stages.context import StageContext, Task
from temper.stages.ppo import Config, draw_lessons, whiten
from temper.train.actor_critic import OneTrunk, PPOExample, TwoModels, ValueLoss, judge, ppo_batches
from temper.train.learner import Learner
from temper.train.policy import PolicyLoss
from temper.types import Completion, Example, Group, Message, Prompt, Reply, Rollout


def config(**options: Any) -> Config:
    given = {"model": "m", "tasks": ["t"], "max_steps": 1, "learning_rate": 1e-3, "max_grad_norm": 1e9}
    return Config(**{**given, "prompts_per_step": 4, "value_coefficient": 0.5, **options})


def examples(seed: int = 0) -> list[PPOExample]:
    """Nine completions of four prompts, with old log-probs near enough for some ratios to be clipped, some not."""
    draw, made = random.Random(seed), []
    for i in range(4):
        prompt = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 9)))
        for _ in range(1 + i % 3 + (i == 3)):
            reply = tuple(draw.randrange(5, 90) for _ in range(draw.randrange(1, 12)))

            def values(low: float, high: float, count: int = len(reply)) -> tuple[float, ...]:
                return tuple(draw.uniform(low, high) for _ in range(count))

            made.append(
                PPOExample(
                    prompt + reply,
                    (False,) * len(prompt) + (True,) * len(reply),
                    advantages=values(-1, 1),
                    sampler_logprobs=(-1.0,) * len(reply),
                    weight=1.0,
                    old_logprobs=values(-7, -3),
                    old_values=values(-1, 1),
                    returns=values(-1, 1),
                )
            )
    return made


def value_model(attention: str = NAME) -> Any:
    """A scalar model that says something of every state, always the same."""
    register()
    settings = AutoConfig.for_model("qwen3", **SIZES, **EXTRA["qwen3"], num_labels=1)
    model: Any = AutoModelForSequenceClassification.from_config(settings, attn_implementation=attention)
    model.base_model.load_state_dict(tiny_model("qwen3").base_model.state_dict())
    draw_head(model.score, seed=5)
    return model.eval()


@pytest.fixture
def in_float64() -> Iterator[None]:
    tiny_model("qwen3")  # drawn once, in float32
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def two_models(settings: Config) -> TwoModels:
    loss = ValueLoss(settings.value_coefficient, settings.value_clip_range)
    actor, critic = (Learner(model.double(), settings, 1) for model in (tiny_model("qwen3"), value_model()))
    return TwoModels(actor, critic, PolicyLoss(settings), loss)


def one_trunk(settings: Config) -> OneTrunk:
    trunk = SharedTrunk(tiny_model("qwen3").double(), seed=5)
    trunk.value_head.double()
    loss = ValueLoss(settings.value_coefficient, settings.value_clip_range)
    return OneTrunk(Learner(trunk, settings, 1), PolicyLoss(settings), loss)


def padded(rows: list[PPOExample]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, padded on the right."""
    longest = max(len(row.token_ids) for row in rows)
    ids = torch.tensor([row.token_ids + (0,) * (longest - len(row.token_ids)) for row in rows])
    return ids, (torch.arange(longest) < torch.tensor([[len(row.token_ids)] for row in rows])).long()


def written_out(logits: Tensor, states: Tensor, rows: list[PPOExample], settings: Config) -> tuple[Tensor, Tensor]:
    """Token by token, mean over all tokens: −min[ρA, clip(ρ)A] − c·H, and ½ max of (V − R)². All in float64, but
    for the norms of the models, which transformers computes in float32."""
    policy, value, count = torch.zeros(()), torch.zeros(()), 0
    for i, row in enumerate(rows):
        start = row.prefix_length
        for t in range(len(row.advantages)):
            logprobs = logits[i, start + t - 1].log_softmax(-1)
            ratio = torch.exp(logprobs[row.token_ids[start + t]] - row.old_logprobs[t])
            clipped = torch.clamp(ratio, 1 - settings.clip_range, 1 + settings.clip_range)
            policy = policy - torch.min(ratio * row.advantages[t], clipped * row.advantages[t])
            policy = policy + settings.entropy_bonus * (logprobs.exp() * logprobs).sum()
            now, then, goal = states[i, start + t - 1], row.old_values[t], row.returns[t]
            error = (now - goal) ** 2
            if settings.value_clip_range is not None:
                near = then + torch.clamp(now - then, -settings.value_clip_range, settings.value_clip_range)
                error = torch.max(error, (near - goal) ** 2)
            value = value + 0.5 * error
            count += 1
    return policy / count, settings.value_coefficient * value / count


def gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


OPTIONS = [{}, {"value_clip_range": 0.3, "entropy_bonus": 0.01, "clip_range": 1.0}]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_two_models_get_the_gradients_written_out_however_the_step_is_cut(options: dict, budget: int) -> None:
    settings, rows = config(**options), examples()
    models = two_models(settings)
    metrics = models.update(ppo_batches(rows, budget), sum(len(row.advantages) for row in rows))
    ids, mask = padded(rows)
    actor, critic = tiny_model("qwen3", "eager").double(), value_model("eager").double()
    logits = actor(input_ids=ids, attention_mask=mask).logits
    states = critic.score(critic.base_model(input_ids=ids, attention_mask=mask).last_hidden_state)[..., 0]
    policy, value = written_out(logits, states, rows, settings)
    policy.backward(), value.backward()
    assert metrics["loss"] == pytest.approx(policy.item(), abs=1e-7)
    assert 0 < metrics["policy/clip_fraction"] < 1
    for found, wanted in ((models.actor.model, actor), (models.critic.model, critic)):
        assert (gradient(found) - gradient(wanted)).norm() <= 1e-6 * gradient(wanted).norm()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("budget", [1, 10_000])
def test_one_trunk_gets_the_gradient_of_the_sum_of_both_losses(options: dict, budget: int) -> None:
    settings, rows = config(value_model="shared", **options), examples()
    models = one_trunk(settings)
    models.update(ppo_batches(rows, budget), sum(len(row.advantages) for row in rows))
    ids, mask = padded(rows)
    plain = SharedTrunk(tiny_model("qwen3", "eager").double(), seed=5)
    plain.value_head.double()
    output = plain.policy(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states = plain.value_head(output.hidden_states[-1])[..., 0]
    sum(written_out(output.logits, states, rows, settings)).backward()  # type: ignore[union-attr]
    wanted = gradient(plain)
    assert (gradient(models.learner.model) - wanted).norm() <= 1e-6 * wanted.norm()


def group(prompt: tuple[int, ...], *replies: tuple[tuple[int, ...], float, str]) -> Group:
    """Completions of one prompt: tokens, reward, finish reason."""
    asked = Prompt(str(prompt), "t", (Message("user", "?"),), "")
    rollouts = tuple(
        Rollout(asked, Completion(ids, (-1.0,) * len(ids), finish), Reply("", None, None, False), {}, reward)  # type: ignore[arg-type]
        for ids, reward, finish in replies
    )
    return Group(asked, prompt, rollouts)


GROUPS = [
    group((5, 6, 7), ((8, 9, 10), 1.0, "stop"), ((11,), 0.0, "length")),
    group((20, 21), ((22, 23, 24, 25), 0.5, "length")),
]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("budget", [1, 10_000])
def test_lessons_are_gae_over_rewards_with_the_penalty_inside_and_bootstrapped_after_a_cut(budget: int) -> None:
    settings = config(kl_penalty=0.1, gamma=0.9, gae_lambda=0.8, micro_batch_tokens=budget)
    reference = tiny_model("qwen3").double()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.9)
    lessons = draw_lessons(settings, GROUPS, two_models(settings), reference)
    actor, anchor, critic = tiny_model("qwen3").double(), reference, value_model("eager").double()
    actor.set_attn_implementation("eager"), anchor.set_attn_implementation("eager")
    for of_group, of_lessons in zip(GROUPS, lessons, strict=True):
        for rollout, lesson in zip(of_group.rollouts, of_lessons, strict=True):
            ids = torch.tensor([of_group.prompt_ids + rollout.completion.token_ids])
            start, length = len(of_group.prompt_ids), len(rollout.completion.token_ids)
            with torch.no_grad():
                ours, theirs = (model(input_ids=ids).logits[0].log_softmax(-1) for model in (actor, anchor))
                states = critic.score(critic.base_model(input_ids=ids).last_hidden_state)[0, start - 1 :, 0].tolist()
            if rollout.completion.finish_reason == "stop":
                states[-1] = 0.0
            rewards = [
                -0.1 * float(ours[start + t - 1, ids[0, start + t]] - theirs[start + t - 1, ids[0, start + t]])
                for t in range(length)
            ]
            rewards[-1] += rollout.total
            for t in range(length):
                wanted = sum(
                    (0.9 * 0.8) ** (k - t) * (rewards[k] + 0.9 * states[k + 1] - states[k]) for k in range(t, length)
                )
                assert lesson.advantages_T[t] == pytest.approx(wanted, abs=1e-6)
                assert lesson.returns_T[t] == pytest.approx(wanted + states[t], abs=1e-6)


def test_whitening_is_over_all_tokens_of_the_step() -> None:
    settings = config(kl_penalty=0)
    lessons = whiten(draw_lessons(settings, GROUPS, two_models(settings), None))
    flat = torch.cat([lesson.advantages_T for of_group in lessons for lesson in of_group])
    assert len(flat) == 8
    assert (float(flat.mean()), float(flat.std())) == (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-6))
    assert all(lesson.divergence is None for of_group in lessons for lesson in of_group)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("models_of", ["two_models", "one_trunk"])
def test_equal_completions_are_computed_once_and_count_as_many(
    models_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = GROUPS[0].rollouts
    groups = [replace(GROUPS[0], rollouts=(one, other, one, replace(one, total=0.3), one)), GROUPS[1]]
    settings = config(kl_penalty=0, num_iterations=2, prompts_per_step=2, entropy_bonus=0.01)
    found = []
    for merges in (True, False):
        monkeypatch.setattr("temper.stages.ppo.may_merge", lambda config, merges=merges: merges)
        models = {"two_models": two_models, "one_trunk": one_trunk}[models_of](settings)
        lessons = draw_lessons(settings, groups, models, None)
        rows, _ = ppo.ppo_examples(settings, groups, lessons)
        metrics = ppo.update(settings, models, groups, lessons, ("test",))
        found.append((len(rows), metrics, torch.cat([p.detach().flatten() for p in models.learner.model.parameters()])))
    (few, metrics, moved), (many, expected, wanted) = found
    assert (few, many) == (4, 6)
    assert metrics == pytest.approx(expected, rel=1e-6)
    assert (moved - wanted).abs().max() <= 1e-6


def test_a_value_model_learns_what_prompts_are_worth() -> None:
    """The return is 1 after one prompt and 0 after another, whatever is said."""
    settings = config(learning_rate=3e-3, value_coefficient=1.0, max_grad_norm=1.0)
    critic = Learner(value_model(), settings, 80)
    models = TwoModels(Learner(tiny_model("qwen3"), settings, 1), critic, PolicyLoss(settings), ValueLoss())
    draw = random.Random(0)
    rows, goals = [], []
    for _ in range(24):
        good = draw.random() < 0.5
        reply = tuple(draw.randrange(30, 90) for _ in range(4))
        known = Example(((11, 12) if good else (21, 22)) + reply, (False,) * 2 + (True,) * 4)
        rows.append(known)
        goals.append(float(good))
    taught = [
        PPOExample(row.token_ids, row.mask, (0.0,) * 4, (-1.0,) * 4, 1.0, old_logprobs=(-1.0,) * 4,
                   old_values=(0.0,) * 4, returns=(goal,) * 4)
        for row, goal in zip(rows, goals, strict=True)
    ]  # fmt: skip
    parts = ppo_batches(taught, 10_000)
    before = [parameter.clone() for parameter in models.policy.parameters()]
    for _ in range(80):
        metrics = models.update(parts, 96.0, train_policy=False)
    fresh = [Example((*row.token_ids[:2], 40, 50, 60), (False,) * 2 + (True,) * 3) for row in rows]
    values = torch.cat([found.values_T for found in judge(models, fresh, 10_000)])
    assert explained_variance(values, torch.tensor(goals).repeat_interleave(3)) > 0.9
    assert metrics["value/loss"] < 0.02
    assert all(torch.equal(a, b) for a, b in zip(before, models.policy.parameters(), strict=True))


# -- the stage --------------------------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def step(self, step: int, total: int, metrics: dict[str, Any]) -> None:
        self.rows.append({"step": step, **metrics})

    def resume_at(self, step: int, kept: Path | None = None) -> None:
        self.rows = [row for row in self.rows if row["step"] <= step]

    def info(self, text: str) -> None: ...

    def warn(self, text: str, key: str = "") -> None: ...


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    asked = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(8)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    (folder / "mine.py").write_text("def odd(prompt, reply):\n    return float(len(reply.text) % 2)\n", "utf-8")
    model = make("llama", folder / "model", num_hidden_layers=1)
    return {"model": model, "sums": folder / "sums.jsonl", "mine.py:odd": folder / "mine.py:odd"}  # type: ignore[dict-item]


def staged(**options: Any) -> Config:
    sizes = {"max_steps": 4, "prompts_per_step": 4, "num_generations": 2, "max_completion_length": 6, "save_steps": 2}
    parts = {"num_mini_batches": 2, "num_iterations": 2, "lr_scheduler_type": "linear", "kl_penalty": 0.05}
    return config(model="model", tasks=["sums"], reward_funcs=["mine.py:odd"], **{**sizes, **parts, **options})


def run(
    settings: Config | grpo.Config, inputs: dict[str, Path], work: Path, stop_after: int | None = None
) -> tuple[Path, Log]:
    stage: Any = ppo if isinstance(settings, Config) else grpo
    log, out = Log(), work / "out"
    out.mkdir(parents=True, exist_ok=True)

    def stopping() -> bool:
        return stop_after is not None and len(log.rows) >= stop_after

    tasks = {"sums": Task("sums", inputs["sums"], None, TaskConfig(train="sums.jsonl"))}
    ctx = StageContext("rl", 0, out, work, inputs, tasks, log, stopping)  # type: ignore[arg-type]
    assert stage.check(settings, ctx) == []
    if stop_after is not None:
        with pytest.raises(Preempted):
            stage.run(settings, ctx)
        return run(settings, inputs, work)
    stage.run(settings, ctx)
    return out / "model.safetensors", log


@pytest.mark.parametrize("options", [{"value_warmup_steps": 1}, {"value_model": "shared"}], ids=["separate", "shared"])
def test_an_interrupted_run_ends_in_the_same_bits(options: dict, inputs: dict[str, Path], tmp_path: Path) -> None:
    whole, log = run(staged(**options), inputs, tmp_path / "whole")
    cut, resumed = run(staged(**options), inputs, tmp_path / "cut", stop_after=3)
    assert hash_file(whole) == hash_file(cut)
    assert hash_file(whole) != hash_file(inputs["model"] / "model.safetensors")
    assert [row["value/loss"] for row in log.rows[3:]] == [row["value/loss"] for row in resumed.rows]


def test_a_step_tells_of_policy_value_model_and_memory(inputs: dict[str, Path], tmp_path: Path) -> None:
    _, log = run(staged(value_warmup_steps=1, value_learning_rate=0.01), inputs, tmp_path)
    warm, first, *_, last = log.rows
    assert 0.009 < warm["value/learning_rate"] < 0.01  # the mean over the step's updates
    assert "learning_rate" not in warm  # the policy stays as it is
    assert warm["policy/kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert first["memory/value_model"] > first["memory/policy"] == first["memory/reference"]
    assert "memory/total" not in last
    assert {"value/explained_variance", "value/return", "policy/entropy", "reward/total", "advantage/std"} <= set(last)
    assert 0 < last["learning_rate"] < first["learning_rate"] < 1e-3  # four updates a step, one schedule over all


@pytest.mark.parametrize("kind", [ppo, grpo])
def test_drift_is_measured_without_moving_a_bit(kind: Any, inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = staged(kl_penalty=0.0)
    if kind is grpo:
        shared = {name: getattr(settings, name) for name in settings.model_fields_set & set(grpo.Config.model_fields)}
        settings = grpo.Config(**shared)
    plain, log = run(settings, inputs, tmp_path / "plain")
    measured, found = run(settings.model_copy(update={"measure_kl": True}), inputs, tmp_path / "measured")
    assert hash_file(plain) == hash_file(measured)
    assert not any("policy/kl_divergence" in row for row in log.rows)
    assert found.rows[-1]["policy/kl_divergence"] > found.rows[0]["policy/kl_divergence"] >= 0


def test_a_schedule_of_grpo_too_spans_all_updates_of_all_steps(inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = grpo.Config(
        model="model", tasks=["sums"], reward_funcs=["mine.py:odd"], max_steps=4, prompts_per_step=4, num_generations=2,
        max_completion_length=6, num_mini_batches=2, num_iterations=2, learning_rate=1e-3, lr_scheduler_type="linear",
        min_lr_ratio=0.0,
    )  # fmt: skip
    _, log = run(settings, inputs, tmp_path)
    # update n of 16 has rate 1 − n/16; a step has four, and logs their mean
    wanted = [1e-3 * (1 - (4 * step + 1.5) / 16) for step in range(4)]
    assert [row["learning_rate"] for row in log.rows] == pytest.approx(wanted)


def test_a_value_model_may_start_from_another_model_of_the_same_vocabulary(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    other = make("llama", tmp_path / "other", num_hidden_layers=6)
    settings = staged(max_steps=1, num_iterations=1, value_model_from="@other")
    _, log = run(settings, {**inputs, "@other": other}, tmp_path / "run")
    assert log.rows[0]["memory/value_model"] > 4 * log.rows[0]["memory/policy"]  # six layers, and their moments
    foreign = make("llama", tmp_path / "foreign", vocab=300)
    with pytest.raises(ArtifactError, match="does not fit"):
        run(settings, {**inputs, "@other": foreign}, tmp_path / "again")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"value_model": "shared", "value_learning_rate": 1e-4}, "value_learning_rate with value_model `shared`"),
        ({"num_mini_batches": 3}, "not divisible"),
        ({"dynamic_sampling_tries": 2}, "num_generations 1"),
        ({"value_warmup_steps": 1}, "not below max_steps"),
        ({"gae_lambda": 1.5}, "less than or equal to 1"),
        ({"kl_estimator": "k3"}, "k1"),
    ],
)
def test_a_config_that_says_two_things_at_once_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**options)
