"""An evaluation with forced thoughts: exact numbers from a model whose answer is as far as it has thought."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from temper.cli import main
from temper.report.gather import gather
from temper.rollout.engine import Request, Sampling
from temper.rollout.paired import PromptScore, paired
from temper.stages.claims import Claim, judge
from temper.stages.evaluate import Config, evaluate_with
from temper.testing import END, FakeChat
from temper.types import Completion, Message, Prompt

CHAT = FakeChat()


class Counter:
    """Counts up to three in its thought, a letter a number, one more after every `W`; it answers how far it came."""

    def generate(self, requests: Sequence[Request], sampling: Sampling, watch=None, finished=None) -> list[Completion]:
        return [self._one(request, sampling) for request in requests]

    def _one(self, request: Request, sampling: Sampling) -> Completion:
        begun = CHAT.decode(request.drawn)
        if begun.endswith("<answer>"):
            said = f"{begun.count('z')}</answer>"
        elif begun.endswith("W"):
            said = f"z</think><answer>{begun.count('z') + 1}</answer>"
        else:
            said = "<think>zzz</think><answer>3</answer>"
        ids = (*said.encode(), END)[: request.max_tokens or sampling.max_tokens]
        return Completion(ids, (0.0,) * len(ids), "stop" if ids[-1] == END else "length")


def measured(**keys):
    prompts = [Prompt(f"t:{gold}", "t", (Message("user", "count"),), str(gold)) for gold in (1, 2, 3, 4, 5)]
    config = Config(models=["m"], tasks=["t"], num_samples=2, **keys)
    return evaluate_with(Counter(), CHAT, prompts, config, (0, "e"))


def test_every_length_has_its_own_accuracy_tokens_and_share_of_changed_thoughts() -> None:
    found, scores, _ = measured(thinking_budgets=[2, 0, 3], thinking_extensions=[1, 2], extend_with="W")
    assert list(found["forced"]) == ["budget@0", "budget@2", "budget@3", "drawn", "extended@1", "extended@2"]
    rows = found["forced"].values()
    assert [row["value"] for row in rows] == [0.0, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert [row["thinking_tokens"] for row in rows] == [0.0, 2.0, 3.0, 3.0, 5.0, 7.0]
    assert [row["changed"] for row in rows] == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert [score.value("budget@2") for score in scores] == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert [score.value("extended@2") for score in scores] == [0.0, 0.0, 0.0, 0.0, 1.0]
    difference = paired(scores, scores, "budget@2", "budget@0")
    assert (difference["a"], difference["b"], difference["difference"]) == (0.2, 0.0, 0.2)


def test_nothing_is_forced_that_was_not_asked_for() -> None:
    found, scores, _ = measured()
    assert "forced" not in found
    assert scores[0].forced == {}
    assert list(measured(thinking_extensions=[2])[0]["forced"]) == ["drawn", "extended@2"]


def test_a_claim_compares_a_model_with_itself_at_another_length() -> None:
    forced = {"budget@8": 0.0}
    scores = [PromptScore(str(i), (True,), 1.0, 9.0, 0.0, {"accuracy": 1.0}, forced=forced) for i in range(9)]
    claim = Claim(model="rl", task="t", metric="accuracy", difference="rl", than="budget@8", by=0.5)
    verdict = judge(claim, [{"stage": "rl", "tasks": {"t": {"accuracy": 1.0}}}], {("rl", "t"): scores})
    assert (verdict["holds"], verdict["value"]) == (True, 1.0)
    assert verdict["claim"] == "rl - rl: accuracy - budget@8 on t"


def test_majorities_are_measured_at_every_k() -> None:
    found, scores, _ = measured(pass_k=[1, 2])
    assert found["cons_at"]["1"]["value"] == found["pass_at"]["1"]["value"] == found["accuracy"] == 0.2
    assert found["cons_at"]["2"]["value"] == found["cons_at_k"]
    assert scores[2].votes == (0, 0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"thinking_budgets": [-1]}, "thinking_budgets"),
        ({"thinking_budgets": [64], "max_completion_length": 64}, "no room to answer"),
        ({"thinking_extensions": [0]}, "thinking_extensions"),
        ({"extend_with": ""}, "extend_with"),
        ({"claims": [{"model": "m", "task": "t", "metric": "budget@8"}]}, "budget@8"),
        ({"claims": [{"model": "m", "task": "t", "than": "format"}]}, "`than`"),
    ],
)
def test_what_cannot_be_forced_is_refused(keys: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Config(models=["m"], tasks=["t"], **keys)


RECIPE = """\
name: short
tasks:
  sums: {{test: sums.jsonl, reply: {reply}}}
stages:
  one: {{stage: import_model, model: tiny-base}}
  report:
    stage: evaluate
    models: ["@one"]
    tasks: [sums]
    max_completion_length: 12
    thinking_budgets: [0, 4]
    thinking_extensions: [1]
"""


def test_a_run_keeps_the_curve_and_its_page_and_table_show_it(tmp_path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (tmp_path / "short.yaml").write_text(RECIPE.format(reply="think"))
    assert main(["run", str(tmp_path / "short.yaml"), "--out", str(tmp_path / "run")]) == 0
    forced = gather(tmp_path / "run")["models"][0]["tasks"]["sums"]["forced"]
    assert list(forced) == ["budget@0", "budget@4", "drawn", "extended@1"]
    assert forced["budget@4"]["thinking_tokens"] <= 4
    assert "Accuracy against thinking on sums" in (tmp_path / "run" / "report" / "index.html").read_text()
    assert "cut at 4  as drawn  extended once" in capsys.readouterr().out


def test_replies_without_a_thought_are_refused_before_anything_runs(tmp_path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (tmp_path / "short.yaml").write_text(RECIPE.format(reply="plain"))
    assert main(["run", str(tmp_path / "short.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "read as `plain`" in capsys.readouterr().err
