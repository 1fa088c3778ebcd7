"""The process of a user's rewards: what they do to it they do not do to the trainer; every fault names the reward."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reward_rows import answered, prompt

from temper.errors import ConfigError, Preempted
from temper.rewards import load_rewards
from temper.rewards.probe import probe_rewards
from temper.rewards.returns import RewardFailure, WrongReturn
from temper.rewards.score import Scorer
from temper.rewards.user import UserReward
from temper.rewards.worker import WORKER, Limits
from temper.text.reply import parse_reply
from temper.types import Prompt

SOURCE = Path(__file__).parents[2] / "src"
PAIRS = [(prompt("5"), parse_reply(answered(text))) for text in ("5", "6", "7")]


@pytest.fixture
def reward(tmp_path):
    """A reward from the body of `f(prompt, reply)`; `top` stands before it."""

    def made(body: str, top: str = "", limits: Limits | None = None) -> UserReward:
        (tmp_path / "mine.py").write_text(f"{top}\ndef f(prompt, reply):\n    {body}\n", encoding="utf-8")
        (loaded,) = load_rewards(["mine.py:f"], tmp_path, limits=limits).values()
        assert isinstance(loaded, UserReward)
        return loaded

    return made


def said(outcomes: list) -> list:
    return [type(outcome).__name__ if isinstance(outcome, Exception) else outcome for outcome in outcomes]


@pytest.mark.parametrize(
    "kind", ["GeneratorExit", "KeyboardInterrupt", "SystemExit(3)", "BaseException",
             "MemoryError", "StopIteration", "NameError('x')", "OSError(chr(0xd800))"]
)  # fmt: skip
def test_whatever_it_raises_fails_that_reply_with_the_line(reward, kind):
    found = reward(f"if reply.answer == '6': raise {kind}\n    return 1").batch(PAIRS)
    assert said(found) == [1.0, "RewardFailure", 1.0]
    assert found[1].where.endswith("mine.py:3")
    assert kind.partition("(")[0] in str(found[1])


@pytest.mark.parametrize("value", ["-1e308", "float('nan')", "'1.0'", "[1.0]", "10 ** 400", "1j", "print", "b'1'"])
def test_a_value_that_is_no_reward_is_a_wrong_return(reward, value):
    found = reward(f"return {value} if reply.answer == '6' else 0.25").batch(PAIRS)
    assert said(found) == [0.25, "WrongReturn", 0.25]


@pytest.mark.parametrize(
    "deed",
    ["import sys; sys.stdout.close(); sys.stderr.close()", "import os; os.chdir('/')", "import os; os.environ.clear()",
     "import sys; sys.stdout = None", "import os; os.close(0); os.close(1)", "import random; random.seed(0)",
     "import sys; sys.setrecursionlimit(60)", "import json; json.dumps.__code__ = (lambda *a, **k: 'x').__code__",
     "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "import builtins; builtins.print = None"],
)  # fmt: skip
def test_what_it_changes_is_its_own(reward, deed):
    here, environment = os.getcwd(), dict(os.environ)
    found = reward(f"{deed}; return 0.5").batch(PAIRS)
    assert all(outcome == 0.5 or isinstance(outcome, RewardFailure) for outcome in found)
    assert (os.getcwd(), dict(os.environ)) == (here, environment)
    assert not sys.stdout.closed
    WORKER.close()  # the next test has a process without these deeds


@pytest.mark.parametrize(
    ("deed", "says"),
    [("import os; os._exit(0)", "exit code 0"), ("import os; os._exit(3)", "exit code 3"),
     ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
     ("import os; os.closerange(3, 100)", "")],
)  # fmt: skip
def test_a_process_that_dies_is_told_and_the_other_replies_are_scored(reward, deed, says):
    found = reward(f"\n    if reply.answer == '6':\n        {deed}\n    return 1.0").batch(PAIRS)
    assert said(found) == [1.0, "RewardFailure", 1.0]
    assert says in str(found[1])
    assert found[1].ended


def test_a_fork_that_is_left_behind_answers_nothing(reward):
    found = reward("import os; pid = os.fork(); return float(pid > 0)").batch(PAIRS)
    assert found == [1.0] * 3


def test_a_reward_that_hangs_is_ended_and_the_rest_is_scored(reward):
    limits = Limits(timeout=0.5)
    hangs = reward("import time; time.sleep(1000 if reply.answer == '6' else 0); return 1.0", limits=limits)
    began = time.monotonic()
    found = hangs.batch(PAIRS)
    assert said(found) == [1.0, "RewardFailure", 1.0]
    assert "no value within 0.5 s" in str(found[1])
    assert time.monotonic() - began < 60


def test_a_reward_that_always_hangs_is_not_asked_for_ever(reward):
    hangs = reward("import re; return float(bool(re.match('(a+)+b', 'a' * 60)))", limits=Limits(timeout=0.3))
    began = time.monotonic()
    found = hangs.batch(PAIRS * 10)
    assert len(found) == 30
    assert all(isinstance(outcome, RewardFailure) for outcome in found)
    assert "not asked" in str(found[-1])
    assert time.monotonic() - began < 60
    with pytest.raises(ConfigError) as raised:
        probe_rewards({"mine": hangs}, PAIRS, real=True)
    assert "no value within 0.3 s" in raised.value.faults[0].why


def test_a_stop_is_not_held_up_by_a_reward(reward):
    began = time.monotonic()
    hangs = reward("import time; time.sleep(1000)", limits=Limits(stopping=lambda: time.monotonic() - began > 0.2))
    with pytest.raises(Preempted, match=r"mine\.py:f"):
        Scorer({"mine": hangs}).score_all(PAIRS)
    assert time.monotonic() - began < 60


def test_a_file_that_ends_or_hangs_when_it_is_run_is_a_config_error(reward):
    for top, says in [("import os; os._exit(0)", "exit code 0"), ("while True: pass", "no value within 0.5 s")]:
        with pytest.raises(ConfigError) as raised:
            reward("return 1.0", top, Limits(timeout=0.5))
        assert says in raised.value.faults[0].why
        assert "mine.py" in raised.value.faults[0].where


def test_a_reward_keeps_nothing_that_it_changed_in_a_row(reward):
    takes = reward("prompt.row['nums'].pop(); return float(len(prompt.row['nums']))")
    row = Prompt("1", "t", prompt("5").messages, "5", row={"nums": [1, 2, 3]})
    pairs = [(row, PAIRS[0][1])] * 3
    assert takes.batch(pairs) == [2.0, 2.0, 2.0]
    assert row.row["nums"] == [1, 2, 3]


def test_a_file_may_import_what_lies_beside_it(reward, tmp_path):
    (tmp_path / "helper_of_mine.py").write_text("VALUE = 0.75\n")
    assert reward("return helper_of_mine.VALUE", "import helper_of_mine").batch(PAIRS[:1]) == [0.75]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper_of_mine.py", "mine.py"]


def test_a_changed_file_is_another_reward(reward):
    assert reward("return 1.0").batch(PAIRS[:1]) == [1.0]
    assert reward("return 2.0").batch(PAIRS[:1]) == [2.0]


def test_the_process_ends_with_the_trainer_even_inside_c_code(tmp_path):
    (tmp_path / "mine.py").write_text("import os, re\nfrom pathlib import Path\ndef f(p, r):\n"
                                      "    Path('pid').write_text(str(os.getpid()))\n"
                                      "    return float(bool(re.match('(a+)+b', 'a' * 60)))\n")  # fmt: skip
    program = ("from temper.rewards import load_rewards; from temper.types import *\n"
               "f, = load_rewards(['mine.py:f']).values()\n"
               "f(Prompt('1', 't', (Message('user', '?'),), '5'), Reply('x', None, None, False))\n")  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as trainer:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        trainer.send_signal(signal.SIGKILL)
    pid = int((tmp_path / "pid").read_text())
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]


# -- tried before anything runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["return prompt.row['nums'][0]", "import json; return json.loads(prompt.gold)['x']",
                                  "return {'t:1': 1.0}[prompt.id]"])  # fmt: skip
def test_a_reward_that_needs_its_own_rows_is_not_refused_on_made_up_ones(reward, body):
    mine = reward(body)
    (warning,) = probe_rewards({"mine": mine})
    assert "may need rows of its own" in warning.fix
    row = Prompt("t:1", "t", prompt("5").messages, '{"x": 1}', row={"nums": [1]})
    assert probe_rewards({"mine": mine}, [(row, reply) for _, reply in PAIRS], real=True) == ()


@pytest.mark.parametrize("body", ["return nonsense", "import no_such_module", "raise RuntimeError('x')",
                                  "return prompt.golden", "return 1 / 0"])  # fmt: skip
def test_a_reward_that_cannot_be_right_is_refused_with_its_line(reward, body):
    with pytest.raises(ConfigError) as raised:
        probe_rewards({"mine": reward(body)})
    assert raised.value.faults[0].where.endswith("mine.py:3")


def test_a_reward_that_says_none_of_all_is_refused_and_of_some_is_not(reward):
    with pytest.raises(ConfigError, match="does not return a number"):
        probe_rewards({"mine": reward("pass")}, PAIRS, real=True)
    assert probe_rewards({"mine": reward("return None if reply.answer == '6' else 1.0")}, PAIRS, real=True) == ()


def test_a_wrong_return_of_a_file_is_told_to_a_strict_scorer(reward):
    with pytest.raises(WrongReturn, match="`mine` got a str"):
        Scorer({"mine": reward("return 'x'")}, strict=True).score_all(PAIRS)


@pytest.mark.parametrize(
    "file",
    ["def f(completions, **columns): return [1.0]", "def f(prompt, reply): return 1.0\nf.batch = lambda pairs: [1.0]"],
)
def test_one_value_for_many_replies_is_found_before_anything_runs(tmp_path, file):
    (tmp_path / "mine.py").write_text(file, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        probe_rewards(load_rewards(["mine.py:f"], tmp_path), PAIRS, real=True)
    assert "got 1 values for 3 replies" in error.value.faults[0].why
