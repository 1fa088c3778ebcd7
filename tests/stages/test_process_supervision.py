"""GRPO under process supervision: each token is trained by the steps that end at it or later, and resumes exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import make
from pydantic import ValidationError
from stages.test_distill import Log
from stages.test_grpo import gradient, plain_loss
from tiny_models import tiny_model

import temper
from temper.algorithms.advantages import ADVANTAGES, centred
from temper.artifacts import hash_file
from temper.config import TaskConfig
from temper.errors import Exit, Preempted, TemperError
from temper.record.rollouts import read_rows
from temper.rewards.steps import StepScorer, load_step_rewards
from temper.rollout.steps import judge_steps, step_advantages, step_metrics, step_notes
from temper.stages import grpo
from temper.stages.context import StageContext, Task
from temper.text.chat import ChatFormat
from temper.text.reply import parse_reply
from temper.train.guards import Guards, watch
from temper.train.learner import Learner
from temper.train.policy import PolicyLoss
from temper.types import Completion, Group, Message, PolicyExample, Prompt, Rollout

CHAT = ChatFormat.load(Path(temper.__file__).parent / "assets" / "tiny-base", "plain")
PROMPT = Prompt("sums:1", "sums", (Message("user", "38+33-49"),), "22")


def group(*texts: str, totals: tuple[float, ...]) -> Group:
    """Completions that read `texts`, each with the end token."""
    rollouts = []
    for text, total in zip(texts, totals, strict=True):
        ids = (*CHAT.tokenizer.encode_on([text])[0], CHAT.end_id)
        completion = Completion(ids, (-1.0,) * len(ids), "stop")
        rollouts.append(Rollout(PROMPT, completion, parse_reply(text), {"format": total}, total))
    return Group(PROMPT, CHAT.prompt_ids(PROMPT.messages), tuple(rollouts))


RIGHT = "<think>First 38+33=71. Then 71-49=22. So it is 22.</think><answer>22</answer>"
SLIP = "<think>First 38+33=70. Then 70-49=21. So it is 21.</think><answer>21</answer>"


def judged(*groups: Group) -> Any:
    return judge_steps(CHAT, StepScorer(load_step_rewards(["step_check"])), groups)


def test_the_step_that_slips_is_where_the_advantages_part() -> None:
    """Rewards 1 1 1 1 and 0 1 1 0: mean 3/4, so right steps earn 1/4 and wrong ones −3/4."""
    both = group(RIGHT, SLIP, totals=(0.0, 0.0))
    [[right, slip]] = step_advantages([both], judged(both), torch.zeros(1, 2), centred)
    assert list(dict.fromkeys(right)) == [1.0, 0.75, 0.5, 0.25]
    assert list(dict.fromkeys(slip)) == [-1.0, -0.25, -0.5, -0.75]
    ids = both.rollouts[1].completion.token_ids
    spoken = [CHAT.decode(ids[: slip.index(value)]).rstrip() for value in (-0.25, -0.5, -0.75)]  # ". " is one token
    assert spoken == ["<think>First 38+33=70.", "<think>First 38+33=70. Then 70-49=21.", SLIP[: SLIP.index("</think>")]]
    assert slip[-1] == -0.75  # the end token belongs to the answer


def test_what_a_completion_earns_as_a_whole_comes_with_its_last_step() -> None:
    both = group(RIGHT, RIGHT, totals=(2.0, 0.0))
    [[paid, unpaid]] = step_advantages([both], judged(both), torch.tensor([[2.0, 0.0]]), centred)
    assert paid[0] - unpaid[0] == pytest.approx(2.0)
    assert paid[-1] - unpaid[-1] == pytest.approx(2.0)


def test_with_one_step_each_and_nothing_for_it_this_is_outcome_supervision() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    three = group("It is 22", "No", "", totals=(1.0, 0.0, 0.0))
    [process] = step_advantages([three], judged(three), rewards, ADVANTAGES["std"])
    for values, expected in zip(process, ADVANTAGES["std"](rewards)[0].tolist(), strict=True):
        assert values == pytest.approx((expected,) * len(values))


def test_equal_steps_are_no_signal_and_the_metrics_count_them() -> None:
    same = group(RIGHT, RIGHT, totals=(0.0, 0.0))
    paid = group(RIGHT, SLIP, totals=(1.0, 0.0))
    found = judged(same, paid)
    [advantages] = step_advantages([same], found[:1], torch.zeros(1, 2), ADVANTAGES["std"])
    assert not any(map(any, advantages))
    expected = {"steps/count": 4.0, "steps/step_check": 14 / 16, "steps/reward": 14 / 16, "steps/failures": 0}
    assert step_metrics([same, paid], found) == {"reward/total": (4 + 4 + 5 + 2) / 4, **expected}
    assert step_notes([same, paid], found)[1][0] == {"step_rewards": {"step_check": [1.0] * 4}, "total": 5.0}


@pytest.mark.parametrize("budget", [16, 10_000])
def test_advantages_that_change_within_a_completion_have_the_papers_gradient(budget: int) -> None:
    values = [(1.0, 1.0, -0.5, -0.5, 2.0), (-1.0, 0.25), (0.0, 0.0, 0.0), (0.5, -2.0, 1.0, 1.0)]
    rows = [
        PolicyExample((7, 8, 9, *range(20, 20 + len(of_tokens))), (False,) * 3 + (True,) * len(of_tokens), of_tokens,
                      (-1.0,) * len(of_tokens), weight=1 / len(of_tokens), kl_penalty=0.0)
        for of_tokens in values
    ]  # fmt: skip
    config = settings(micro_batch_tokens=budget, max_grad_norm=1e9, kl_penalty=0.0)
    learner = Learner(tiny_model("llama"), config, 1)
    plain = tiny_model("llama", attention="eager")
    plain_loss(plain, plain, [rows], 0.0).backward()
    grpo.update(config, learner, PolicyLoss(config), None, [([rows], 4.0)])
    wanted = gradient(plain)
    assert (gradient(learner.model) - wanted).norm() <= 2e-5 * wanted.norm()


def settings(**options: Any) -> grpo.Config:
    own = {"model": "m", "tasks": ["sums"], "max_steps": 4, "prompts_per_step": 3, "num_generations": 3}
    process = {"supervision": "process", "step_rewards": ["step_check"], "reward_funcs": ["accuracy"]}
    return grpo.Config(**{**own, **process, "max_completion_length": 6, "save_steps": 2, "learning_rate": 0.01,
                          **options})  # fmt: skip


@pytest.mark.parametrize("supervision", ["process", "outcome"])
def test_an_interrupted_run_ends_in_the_same_bits(supervision: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def short(prompt, reply, steps):\n    return [float(step.end % 2) for step in steps]\n"
        "def even(prompt, reply):\n    return float(len(reply.text) % 2)\n"
    )
    asked = [{"question": f"{n}+{n}", "answer": str(2 * n)} for n in range(1, 7)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, asked)))
    model = make("llama", tmp_path / "m", num_hidden_layers=1)
    config = settings(step_rewards=["step_check", "mine.py:short"], step_reward_weights=[1.0, 0.5])
    if supervision == "outcome":
        config = settings(supervision="outcome", step_rewards=[], reward_funcs=["mine.py:even"])
    logs: dict[str, Log] = {}

    def run(name: str, stop_after: int | None = None) -> str:
        log, out = logs.setdefault(name, Log()), tmp_path / name / "out"
        out.mkdir(parents=True, exist_ok=True)
        inputs = {"m": model} | {f"mine.py:{name}": Path(f"{mine}:{name}") for name in ("short", "even")}
        tasks = {"sums": Task("sums", tmp_path / "sums.jsonl", None, TaskConfig(train="sums.jsonl"))}
        stopping = lambda: stop_after is not None and len(log.rows) >= stop_after  # noqa: E731
        ctx = StageContext("rl", 0, out, out.parent, inputs, tasks, log, stopping)  # type: ignore[arg-type]
        assert grpo.check(config, ctx) == []
        grpo.run(config, ctx)
        return hash_file(out / "model.safetensors")

    whole = run("whole")
    with pytest.raises(Preempted):
        run("cut", stop_after=1)
    assert run("cut") == whole != hash_file(model / "model.safetensors")
    assert len(logs["whole"].rows) == 4
    if supervision == "outcome":
        return
    assert all(row["steps/count"] >= 1 and "steps/mine.py:short" in row for row in logs["whole"].rows)
    kept = read_rows(tmp_path / "whole" / "rollouts" / "step-000001.jsonl.gz")
    assert all(len(row["step_rewards"]["step_check"]) == len(row["step_rewards"]["mine.py:short"]) for row in kept)
    assert any(row["steps/reward"] > 0 for row in logs["whole"].rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"step_rewards": []}, "only `process` needs some"),
        ({"supervision": "outcome"}, "supervision `outcome` with step_rewards"),
        ({"step_reward_weights": [1.0, 2.0]}, "2 values for 1 step_rewards"),
        ({"advantage": "rloo"}, "advantage `rloo` with supervision `process`: one of std, std_population, none"),
        ({"reward_aggregation": "decoupled"}, "reward_aggregation `decoupled` with supervision `process`"),
    ],
)
def test_a_config_that_cannot_be_supervised_so_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**options)


def test_an_unknown_step_reward_is_found_before_anything_runs(tmp_path: Path) -> None:
    tasks = {"sums": Task("sums", None, None, TaskConfig(train="@later"))}
    ctx = StageContext("rl", 0, tmp_path, tmp_path, {}, tasks, Log(), lambda: False)  # type: ignore[arg-type]
    faults = grpo.check(settings(step_rewards=["acuracy"]), ctx)
    assert "unknown step reward `acuracy`" in [fault.what for fault in faults]


def test_a_guard_stops_a_run_whose_completions_grow_steps() -> None:
    rows = [{"steps/count": 3.0 + i} for i in range(10)]
    watch(Guards(max_steps=10.5), rows)
    with pytest.raises(TemperError, match=r"steps/count is 10, above 9\.5") as stopped:
        watch(Guards(max_steps=9.5), rows)
    assert stopped.value.code == Exit.GUARD
