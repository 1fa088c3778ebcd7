"""Rewards of a user's own: found by path, refused with file and line, tried before anything runs."""

from __future__ import annotations

import itertools

import pytest
from reward_rows import answered, prompt

from temper.errors import ConfigError
from temper.rewards import load_rewards
from temper.rewards.probe import probe_rewards
from temper.rewards.score import Scorer
from temper.text.reply import parse_reply


@pytest.fixture
def write(tmp_path):
    def written(code: str) -> str:
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        return str(tmp_path / "mine.py")

    return written


def fault(name, folder=None):
    with pytest.raises(ConfigError) as raised:
        load_rewards([name], folder)
    assert len(raised.value.faults) == 1
    return raised.value.faults[0]


def test_one_function_in_one_file_is_a_reward(write):
    name = write("def short(prompt, reply):\n    return 1.0 if len(reply.text) < 20 else prompt.gold == reply.answer\n")
    rewards = load_rewards(["accuracy", f"{name}:short"])
    assert list(rewards) == ["accuracy", f"{name}:short"]
    assert Scorer(rewards).score(prompt("5"), parse_reply(answered("5"))).total == 2.0


def test_a_path_is_looked_up_beside_the_recipe_then_here(write, tmp_path, monkeypatch):
    write("def f(prompt, reply):\n    return 0.5\n")
    assert load_rewards(["mine.py:f"], tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_rewards(["mine.py:f"])
    assert load_rewards(["mine.py:f"], tmp_path / "elsewhere")


def test_nothing_is_written_beside_the_file(write, tmp_path):
    load_rewards([write("def f(prompt, reply):\n    return 0.5\n") + ":f"])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_missing_file_is_answered_with_the_nearest(write, tmp_path):
    write("")
    found = fault(str(tmp_path / "mien.py") + ":f")
    assert "no such reward file" in found.what
    assert "mine.py" in found.fix


def test_a_syntax_error_is_told_with_line_and_column(write):
    name = write("import math\n\ndef f(prompt, reply)\n    return 1\n")
    found = fault(f"{name}:f")
    assert found.where.startswith(f"{name}:3:")
    assert "syntax error" in found.what


@pytest.mark.parametrize(
    ("code", "why"),
    [("x = 1\nraise RuntimeError('boom')\n", "RuntimeError: boom"), ("\nimport nonsense_module\n", "ModuleNotFound"),
     ("\nimport sys; sys.exit(3)\n", "SystemExit: 3"), ("\nopen('/nonexistent/x')\n", "FileNotFoundError")],
)  # fmt: skip
def test_a_file_that_fails_to_load_is_told_with_its_line(write, code, why):
    name = write(code)
    found = fault(f"{name}:f")
    assert found.where == f"{name}:2"
    assert found.why.startswith(why)


def test_a_missing_function_is_answered_with_the_nearest(write):
    name = write("def brevity(prompt, reply):\n    return 1.0\nlength = 3\n")
    assert "brevity" in fault(f"{name}:brevty").fix
    assert "is not a function" in fault(f"{name}:length").what
    assert "names no function" in fault(f"{name}:").what
    assert "names no function" in fault(name).what


@pytest.mark.parametrize(
    "signature", ["def f():", "def f(prompt):", "def f(prompt, reply, gold):", "def f(*, prompt, reply):",
                  "def f(a, b, *, c):", "async def f(prompt, reply):", "class f:\n  def __init__(self):"]
)  # fmt: skip
def test_a_wrong_signature_is_told_with_the_right_one(write, signature):
    name = write(f"\n{signature}\n    return 1.0\n" if "class" not in signature else f"\n{signature}\n    pass\n")
    found = fault(f"{name}:f")
    assert "(prompt, reply) -> float" in found.why + found.fix
    assert found.where.startswith(name)


@pytest.mark.parametrize("signature", ["def f(prompt, reply):", "def f(p, r, weight=2):", "def f(*args, **more):"])
def test_a_function_that_can_take_prompt_and_reply_is_accepted(write, signature):
    assert load_rewards([write(f"{signature}\n    return 1.0\n") + ":f"])


@pytest.mark.parametrize(
    ("expression", "got"),
    [("None", "got None"), ("'1.0'", "got a str"), ("float('nan')", "got nan"), ("float('-inf')", "got -inf"),
     ("[1.0, 0.0]", "got a list"), ("{'score': 1}", "got a dict"), ("1j", "got a complex")],
)  # fmt: skip
def test_a_reward_that_gives_no_number_is_refused_when_tried(write, expression, got):
    rewards = load_rewards([write(f"def f(prompt, reply):\n    return {expression}\n") + ":f"])
    with pytest.raises(ConfigError) as raised:
        probe_rewards(rewards)
    assert got in raised.value.faults[0].why
    assert "expected one finite float" in raised.value.faults[0].why


class Tensor:
    """What has a float inside and is none: an array of one number."""

    def __float__(self) -> float:
        return 1.0


def test_a_tensor_is_no_float():
    with pytest.raises(ConfigError) as raised:
        probe_rewards({"tensor": lambda p, r: Tensor()})
    assert "got a Tensor" in raised.value.faults[0].why


def test_a_reward_that_changes_its_mind_is_a_warning():
    counter = itertools.count()
    (warning,) = probe_rewards({"moody": lambda p, r: float(next(counter)), "steady": lambda p, r: 0.5})
    assert "`moody` is not deterministic" in warning.what


def test_a_reward_that_raises_when_tried_is_a_warning_with_the_reply():
    (warning,) = probe_rewards({"picky": lambda p, r: float(r.answer.strip())})
    assert "AttributeError" in warning.why
    assert "no idea" in warning.why


def batched(alone, together):
    def reward(prompt, reply):
        return alone

    reward.batch = lambda pairs: together(len(pairs))  # type: ignore[attr-defined]
    return reward


def test_a_batch_is_tried_too(write):
    code = "def f(p, r):\n    return f.batch([(p, r)])[0]\nf.batch = lambda pairs: [len(r.text) for _, r in pairs]\n"
    rewards = load_rewards([write(code) + ":f"])
    assert probe_rewards(rewards) == ()
    assert Scorer(rewards).score_all([(prompt("5"), parse_reply("five"))])[0].total == 4.0


@pytest.mark.parametrize("together", [lambda n: [0.5], lambda n: None, lambda n: ["x"] * n, lambda n: 0.5])
def test_a_batch_that_gives_no_number_for_each_reply_is_refused_when_tried(together):
    with pytest.raises(ConfigError) as raised:
        probe_rewards({"mine": batched(0.5, together)})
    assert raised.value.faults[0].why.startswith("`batch` got ")


def test_a_batch_that_contradicts_the_reward_or_fails_is_a_warning():
    (warning,) = probe_rewards({"mine": batched(0.5, lambda n: [0.5] * (n - 1) + [0.7])})
    assert "says something else than the reward" in warning.what
    assert "0.7, and 0.5 alone" in warning.why
    (warning,) = probe_rewards({"mine": batched(0.5, lambda n: [1 / 0] * n)})
    assert "ZeroDivisionError" in warning.why
