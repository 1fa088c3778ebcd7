"""Programs through the stages: learned from, evaluated, and shown with their verdicts."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from temper.cli import main
from temper.code import Sandbox, SandboxError, tiers
from temper.errors import DataError
from temper.rewards.code import code
from temper.rewards.score import Scorer
from temper.rollout.collect import collect
from temper.rollout.engine import Sampling
from temper.stages import preferences, sample
from temper.stages.programs import right_by_tests, with_tests
from temper.stages.rewards import RewardsConfig, check_rewards
from temper.testing import FakeEngine
from temper.text.reply import parse_reply
from temper.types import Completion, Group, Message, Prompt, Rollout

ROWS = [
    {"problem": "Read two integers and print their sum.", "tests": [{"input": "2 3", "output": "5"}]},
    {"problem": "Read an integer and print its double.", "tests": [{"input": "2", "output": "4"}]},
    {"problem": "Print the line that you read.", "tests": [{"input": "a", "output": "a"}]},
]
RECIPE = """\
name: programs
tasks:
  programs: {train: rows.jsonl, test: held_out.jsonl}
stages:
  base: {stage: import_model, model: tiny-base}
  rl:
    stage: grpo
    model: "@base"
    tasks: [programs]
    reward_funcs: [code]
    code_score: share
    max_steps: 2
    num_generations: 2
    prompts_per_step: 2
    max_completion_length: 24
    keep_rollouts_steps: 1
  report:
    stage: evaluate
    models: ["@rl"]
    tasks: [programs]
    reward_funcs: [code]
    num_samples: 2
    max_completion_length: 24
"""


@pytest.fixture(autouse=True)
def _needs_a_sandbox() -> None:
    try:
        Sandbox(1).close()
    except SandboxError as error:
        pytest.skip(str(error))


def asked(row: dict, number: int = 1) -> Prompt:
    return Prompt(f"p:{number}", "programs", (Message("user", row["problem"]),), gold=None, row=row)


def drawn(prompt: Prompt, program: str) -> Rollout:
    reply = parse_reply(f"<think>So.</think><answer>```python\n{program}\n```</answer>")
    value = code(prompt, reply)
    assert value is not None
    return Rollout(prompt, Completion((1,), (0.0,), "stop"), reply, {"code": value}, 0.0, (), ("accuracy",))


def test_a_model_learns_from_its_programs_and_is_evaluated_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    held_out = [{**row, "problem": "Please: " + row["problem"]} for row in ROWS]
    Path("held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    Path("programs.yaml").write_text(RECIPE)
    assert main(["plan", "programs.yaml", "--set", "rl.code_score=some"]) == 2
    assert main(["plan", "programs.yaml", "--set", "rl.code_score=share", "--set", "rl.reward_funcs=[format]"]) == 2
    assert "code_score" in capsys.readouterr().err
    assert main(["run", "programs.yaml", "--out", "run"]) == 0, capsys.readouterr().err
    (card,) = (path for path in Path("run").glob("artifacts/*/README.md") if "GRPO" in path.read_text())
    tier = json.loads(Path("run/run.json").read_text())["sandbox"]
    assert "landlock" in tier
    assert f"programs in replies were run; the sandbox: {tier}" in card.read_text()
    for step in (1, 2):
        text = gzip.decompress(Path(f"run/stages/02-rl/rollouts/step-{step:06d}.jsonl.gz").read_bytes())
        rows = [json.loads(line) for line in text.splitlines()]
        assert len(rows) == 4
        assert all(row["code"]["verdict"] != "passed" for row in rows if row["rewards"]["code"] == 0)
    (path,) = Path("run").glob("artifacts/*/samples/rl.programs.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(samples) == 6
    assert all(row["rewards"]["accuracy"] == (row["code"]["verdict"] == "passed") for row in samples)
    measured = json.loads((path.parent.parent / "evaluation.json").read_text())["models"][0]["tasks"]["programs"]
    assert sum(measured["verdicts"].values()) == pytest.approx(1)
    assert measured["accuracy"] == measured["rewards"]["code"]


def test_another_tier_is_asked_for_and_none_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    ctx = SimpleNamespace(inputs={}, log=SimpleNamespace(warn=warned.append), stopping=lambda: False)
    assert check_rewards(["code"], ctx, RewardsConfig(sandbox="none"), dict) == []
    assert warned == [tiers.LOUD]
    monkeypatch.setattr(tiers.shutil, "which", lambda name: None)
    monkeypatch.setattr("temper.code.sandbox._shared", {})
    (fault,) = check_rewards(["code"], ctx, RewardsConfig(sandbox="bubblewrap"), dict)
    assert "no bwrap here" in fault.what


def test_a_reply_is_right_if_its_program_passes_all_tests() -> None:
    prompt = asked(ROWS[1])
    good, bad = drawn(prompt, "print(2 * int(input()))"), drawn(prompt, "print(4 + 1)")
    group = right_by_tests(Group(prompt, (1,), (good, bad)))
    assert [(r.rewards["accuracy"], r.total, r.inapplicable) for r in group.rollouts] == [(1, 1, ()), (0, 0, ())]


def test_partial_credit_is_a_reward_and_not_being_right() -> None:
    row = {"problem": "Double.", "tests": [{"input": "2", "output": "4"}, {"input": "3", "output": "6"}]}
    half = drawn(asked(row, 7), "print(4)")
    values = [code.scored(score)(half.prompt, half.reply) for score in ("all", "share", "both")]
    assert values == [0.0, 0.5, 0.25]
    (judged,) = right_by_tests(Group(half.prompt, (1,), (replace(half, rewards={"code": 0.5}),)), "share").rollouts
    assert judged.rewards == {"accuracy": 0.0, "code": 0.5}


def test_a_program_that_the_sandbox_failed_on_is_run_again() -> None:
    prompt = asked(ROWS[1])
    good = drawn(prompt, "print(2 * int(input()))")
    failed = replace(good, rewards={"code": 0.0}, grader_failures=("code",))
    (judged,) = right_by_tests(Group(prompt, (1,), (failed,))).rollouts
    assert judged.rewards["accuracy"] == 1.0
    assert judged.grader_failures == ()


def test_prompts_without_tests_are_left_out_and_told_of() -> None:
    bare = asked({"problem": "Say something."}, 2)
    told: list[str] = []
    assert with_tests({"programs": [asked(ROWS[0]), bare]}, ["programs"], told.append) == {"programs": [asked(ROWS[0])]}
    assert "1 of 2" in told[0]
    assert with_tests({"sums": [bare]}, ["programs"], told.append) == {"sums": [bare]}
    with pytest.raises(DataError, match="has tests"):
        with_tests({"programs": [bare]}, ["programs"], told.append)


def test_a_missing_compiler_is_known_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = SimpleNamespace(inputs={}, log=SimpleNamespace(warn=print), stopping=lambda: False)
    row = {**ROWS[0], "language": "cpp"}
    prompts = {"programs": [asked(row, 77)]}
    monkeypatch.setattr("temper.code.cpp.shutil.which", lambda name: None)
    (fault,) = check_rewards(["code"], ctx, RewardsConfig(), lambda: prompts)
    assert "no C++ compiler" in fault.what


REPLIES = {
    "right": "<think>Double it.</think><answer>```python\nprint(2 * int(input()))\n```</answer>",
    "wrong": "<think>It is four.</think><answer>```python\nprint(4)\n```</answer>",
    "without": "<think>It is four.</think><answer>4</answer>",
    "in the thought": "<think>```python\nprint(1)\n```</think><answer>```python\nprint(2 * int(input()))\n```</answer>",
}
DOUBLE = {"problem": "Double it.", "tests": [{"input": "2", "output": "4"}, {"input": "3", "output": "6"}]}


def groups_of(*names: str) -> list[Group]:
    engine = FakeEngine([REPLIES[name] for name in names])
    scorer = Scorer({"code": code})
    prompts = [asked(DOUBLE, 91), asked({**DOUBLE, "problem": "Twice it."}, 92)]
    return collect(engine, engine.chat, scorer, prompts, len(names), Sampling(max_tokens=400), (0, "s"))


def test_a_harvest_keeps_programs_that_pass() -> None:
    config = sample.Config(model="m", tasks=["programs"], num_generations=4, min_rewards={"code": 1.0})
    rows = sample.harvest(groups_of("wrong", "right", "without", "in the thought"), config)
    assert [row["verdict"] for row in rows] == ["code below 1", "kept", "code below 1", "code block"] * 2
    (message,) = {row["keep"]["messages"][-1]["content"] for row in rows if "keep" in row}
    assert "print(2 * int(input()))" in message


def test_a_preference_sets_a_program_that_passes_above_one_that_does_not() -> None:
    config = preferences.Config(model="m", tasks=["programs"], reward_funcs=["code"], max_length_ratio=3.0)
    for group in groups_of("wrong", "right", "wrong"):
        (pair,) = preferences.options_row(group, config)["options"]
        assert (pair["chosen"]["text"], pair["rejected"]["text"]) == (REPLIES["right"], REPLIES["wrong"])
        assert pair["margin"] == 1.0
    assert all(not preferences.options_row(g, config)["options"] for g in groups_of("wrong", "without"))
