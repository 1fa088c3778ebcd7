"""temper.load, generate and evaluate, with an engine whose replies are written down and with the shipped model."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import temper
from temper.testing import FakeEngine

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.integers(1, 100))
def test_the_fake_engine_says_what_it_is_told_and_stops_at_the_limit(text, limit):
    [[reply]] = temper.load(FakeEngine([text])).generate("?", max_tokens=limit, form="plain")
    size = len(text.encode())
    assert reply.is_cut_off == (size >= limit)
    assert len(reply.completion.token_ids) == min(size + 1, limit)
    if not reply.is_cut_off:
        assert reply.text == text


def test_stop_strings_end_a_reply_and_stay_in_it():
    [[reply]] = temper.load(FakeEngine(["one. two. three."])).generate("?", stop=["two."], form="plain")
    assert reply.text == "one. two."
    assert not reply.is_cut_off


def test_the_system_prompt_and_conversations_reach_the_engine():
    engine = FakeEngine(["Yes."])
    turns = [temper.Message("user", "a"), {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    temper.load(engine).generate(["1+1", turns], system_prompt="Be kind.")
    assert engine.asked == ["system: Be kind.\nuser: 1+1", "system: Be kind.\nuser: a\nassistant: b\nuser: c"]


def test_a_template_that_opens_the_thinking_is_read_so():
    [[reply]] = temper.load(FakeEngine(["2</think><answer>2</answer>"], thinking_opened=True)).generate("1+1")
    assert (reply.thinking, reply.answer) == ("2", "2")


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        (["a"], {"n": 0}, "n = 0"),
        (["a"], {"temperature": -1, "top_p": 0}, "top_p = 0"),
        (["a"], {"max_tokens": 0}, "max_tokens"),
        (["a"], {"stop": [""]}, "stop"),
        ([{"role": "user", "content": "a"}], {}, "one message is no prompt"),
        ([[{"role": "robot", "content": "a"}]], {}, "role"),
        ([[{"content": "a"}]], {}, "role"),
    ],
)
def test_what_cannot_be_asked_is_told(prompts, options, words):
    with pytest.raises(temper.TemperError) as problem:
        temper.load(FakeEngine(["x"])).generate(prompts, **options)
    assert words in problem.value.render()


@pytest.fixture(scope="module")
def tiny() -> temper.Model:
    return temper.load("tiny-base")


def test_a_prompt_gets_the_same_replies_whatever_is_asked_beside_it(tiny):
    alone = tiny.generate("38+33", n=2, max_tokens=6, seed=3)[0]
    beside = tiny.generate(["1+1", "38+33", "1+1"], n=2, max_tokens=6, seed=3, temperature=0.6)
    assert [reply.completion.token_ids for reply in beside[1]] == [reply.completion.token_ids for reply in alone]
    drawn = [reply.completion.token_ids for of_prompt in beside for reply in of_prompt]
    assert len(drawn) == 6
    assert tiny.generate([]) == []


def test_a_model_that_is_not_there_is_told():
    with pytest.raises(temper.TemperError, match="no model"):
        temper.load("nowhere")


def test_an_evaluation_of_written_replies(tmp_path):
    rows = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(4)]
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    model = temper.load(FakeEngine(["<think>so</think><answer>2</answer>"]))

    def loud(prompt, reply):
        return float(reply.text.isupper())

    report = temper.evaluate(model, str(file), samples=3, k=[1, 2], rewards=[loud], out=tmp_path / "kept")
    sums = report["tasks"]["sums"]
    assert (sums["n"], sums["k"], sums["accuracy"], sums["format"]) == (4, 3, 0.25, 1.0)
    assert sums["pass_at"]["2"]["value"] == 0.25
    assert sums["rewards"]["loud"] == 0.0
    assert report["rewards"] == ["loud"]
    kept = json.loads((tmp_path / "kept/evaluation.json").read_text())
    assert kept["models"][0]["tasks"]["sums"]["accuracy"] == 0.25
    with pytest.raises(temper.TemperError, match="not empty"):
        temper.evaluate(model, str(file), out=tmp_path / "kept")


@pytest.mark.parametrize(
    ("tasks", "options"), [([], {}), (["nonsense"], {}), (["arithmetic"], {"k": 9}), (["arithmetic"], {"top_p": 2.0})]
)
def test_an_evaluation_that_cannot_be_is_told(tasks, options):
    with pytest.raises(temper.TemperError):
        temper.evaluate(temper.load(FakeEngine(["x"])), tasks, **options)
