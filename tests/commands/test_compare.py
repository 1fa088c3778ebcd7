"""Two models on the same prompts: what their difference is, and when it is no comparison at all."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from temper.artifacts import begin, seal
from temper.cli import main
from temper.rollout.measures import bootstrap_interval, mean_interval
from temper.rollout.paired import PromptScore, paired, read_score, sign_test
from temper.sealed import seal as sealed
from temper.stages.evaluate import Claim, Config, evaluation, judge, write_evaluation, write_scored
from temper.types import Message, Prompt


def score(i: int, right: tuple[bool, ...], consensus: float = 1.0) -> PromptScore:
    share = sum(right) / len(right)
    return PromptScore(f"t:{i}", right, consensus, 9.0, 0.0, {"accuracy": share, "format": 1.0})


def drawn(seed: int, chance: float, prompts: int = 40, samples: int = 4) -> list[PromptScore]:
    random = Random(seed)
    return [score(i, tuple(random.random() < chance for _ in range(samples))) for i in range(prompts)]


@given(st.lists(st.tuples(st.lists(st.booleans(), min_size=2, max_size=2), st.lists(st.booleans(), min_size=2,
       max_size=2)), min_size=1, max_size=12), st.randoms())  # fmt: skip
@settings(max_examples=30)
def test_a_comparison_is_antisymmetric_and_knows_no_order_of_prompts(rows, random):
    a = [score(i, tuple(x)) for i, (x, _) in enumerate(rows)]
    b = [score(i, tuple(y)) for i, (_, y) in enumerate(rows)]
    there, back = paired(a, b), paired(random.sample(b, len(b)), a)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert (there["better"], there["worse"], there["only_a"]) == (back["worse"], back["better"], back["only_b"])
    assert there["difference"] == pytest.approx(there["a"] - there["b"])
    assert there["both_right"] + there["only_a"] + there["only_b"] + there["neither"] == 2 * len(rows)
    assert there["p_value"] == back["p_value"]


def test_pairing_takes_the_difficulty_of_the_prompts_out():
    hard, easy = [score(i, (False,)) for i in range(20)], [score(i + 20, (True,)) for i in range(20)]
    a = [score(0, (True,)), score(1, (True,)), *hard[2:], *easy]
    found = paired(a, hard + easy)
    alone = bootstrap_interval([s.value("accuracy") for s in a])
    assert found["interval"][1] - found["interval"][0] < (alone[1] - alone[0]) / 2
    assert (found["better"], found["worse"], found["p_value"]) == (2, 0, 0.5)


def test_the_bootstrap_covers_the_truth_about_95_times_in_100():
    random, covered = Random(1), 0
    for _ in range(200):
        values = [sum(random.random() < p for _ in range(4)) / 4 for p in (random.random() for _ in range(60))]
        low, high = bootstrap_interval(values)
        covered += low <= 0.5 <= high
    assert 0.9 <= covered / 200 <= 0.99
    assert mean_interval([1.0] * 10)[0] < 0.8 < mean_interval([1.0] * 10)[1] == 1.0


def test_scores_survive_being_written_and_other_prompts_are_no_pairs():
    a = score(1, (True, False), 0.5)
    assert read_score(json.loads(json.dumps(a.row()))) == a
    assert (a.value("pass@1"), a.value("pass@2"), a.value("cons@2"), a.value("mean_tokens")) == (0.5, 1.0, 0.5, 9.0)
    with pytest.raises(ValueError, match="same prompts"):
        paired([a], [score(2, (True, False))])
    for metric in ("pass@3", "cons@1"):
        with pytest.raises(ValueError, match="@"):
            a.value(metric)
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)


# -- claims and configs -----------------------------------------------------------------------------------------------


def of(**keys: object) -> Config:
    return Config.model_validate({"models": ["@a", "@b"], "tasks": ["t"], "num_samples": 4, **keys})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pass_k": [1, 4, 16]}, r"pass_k \(16\) is more than num_samples \(4\)"),
        ({"pass_k": 5}, r"pass_k \(5\) is more than num_samples \(4\)"),
        ({"pass_k": []}, "at least 1 item"),
        ({"num_samples": 0}, "greater than or equal to 1"),
        ({"claims": [{"model": "a", "task": "t", "metric": "pass@2"}]}, "pass@2"),
        ({"claims": [{"model": "a", "task": "t", "metric": "acuracy"}]}, "acuracy"),
        ({"claims": [{"model": "a", "task": "u"}]}, "`u`"),
        ({"claims": [{"model": "a", "task": "t", "difference": "c"}]}, "`c`"),
        ({"claims": [{"model": "a", "task": "t", "difference": "b", "below": "b"}]}, "not both"),
    ],
)
def test_what_cannot_be_measured_is_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        of(**keys)


def test_a_difference_holds_when_its_whole_interval_is_above_zero():
    scored = {("a", "t"): drawn(0, 0.9), ("b", "t"): drawn(1, 0.5), ("c", "t"): drawn(2, 0.9)}
    models = [{"stage": name, "tasks": {"t": {"accuracy": 0.9}}} for name in "abc"]
    sure = judge(Claim(model="a", task="t", difference="b"), models, scored)
    assert sure["holds"]
    assert sure["interval"][0] > 0
    assert sure["claim"] == "a - b: accuracy on t"
    assert not judge(Claim(model="a", task="t", difference="b", by=0.9), models, scored)["holds"]
    assert not judge(Claim(model="a", task="t", difference="c"), models, scored)["holds"]
    assert not judge(Claim(model="b", task="t", difference="a"), models, scored)["holds"]


# -- the command ------------------------------------------------------------------------------------------------------


def measured(folder: Path, chances: dict[str, float], prompts: int = 40, **keys: object) -> Path:
    """An evaluation as a stage leaves it, of models that are right with these chances."""
    names = list(chances)
    config = of(models=[f"@{name}" for name in names], **keys)
    scored = {(name, "t"): drawn(i, chances[name], prompts) for i, name in enumerate(names)}
    asked = {"t": [Prompt(f"t:{i}", "t", (Message("user", f"{i}+1"),), str(i + 1)) for i in range(prompts)]}
    models = [{"stage": name, "tasks": {"t": {"n": prompts, "k": 4}}} for name in names]
    for name in names:
        write_scored(folder, name, "t", scored[name, "t"], [])
    write_evaluation(folder, evaluation(config, models, scored, asked))
    return folder


def test_models_of_one_evaluation_or_of_two_are_compared(tmp_path, capsys):
    one, two = measured(tmp_path / "one", {"a": 0.9, "b": 0.5}), measured(tmp_path / "two", {"c": 0.9})
    assert main(["compare", f"{one}:a", f"{one}:b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["t"]
    assert found["interval"][0] > 0
    stored = json.loads((one / "evaluation.json").read_text())["comparisons"]
    assert [(row["model"], row["against"]) for row in stored] == [("b", "a")]
    assert stored[0]["difference"] == pytest.approx(-found["difference"])
    assert main(["compare", f"{one}:a", str(two)]) == 0
    text = capsys.readouterr().out
    assert "A - B +0.000" in text
    assert "40 prompts" in text
    assert main(["compare", f"{one}:a", str(two), "--metric", "pass@4", "--task", "t"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["one:a", "one:a"], 2, "the same measured model"),
        (["one:a", "one:z"], 5, "was not measured"),
        (["one:a", "nowhere"], 2, "no run `nowhere`"),
        (["one:a", "one:b", "--task", "tt"], 2, "task `tt`"),
        (["one:a", "one:b", "--metric", "acc"], 2, "unknown metric `acc`"),
        (["one:a", "one:b", "--metric", "pass@9"], 2, "pass@9 needs at least 9 samples"),
        (["one:a", "fewer"], 5, "different prompts of `t`"),
        (["one:a", "hotter"], 5, "temperature 0.6 and 1.0"),
        (["one:a", "torn"], 5, "cannot be read"),
        (["one:a", "old"], 5, "an older temper made it"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    measured(Path("one"), {"a": 0.9, "b": 0.5})
    measured(Path("fewer"), {"a": 0.9}, prompts=39)
    measured(Path("hotter"), {"a": 0.9}, temperature=1.0)
    (measured(Path("torn"), {"a": 0.9}) / "prompts" / "a.t.jsonl").write_text('{"prompt_id": "t:0"')
    old = measured(Path("old"), {"a": 0.9}) / "evaluation.json"
    old.write_text(json.dumps({k: v for k, v in json.loads(old.read_text()).items() if k != "sets"}))
    assert main(["compare", *arguments]) == code
    err = capsys.readouterr().err
    assert said in err
    if "fewer" in arguments:
        hashes = [json.loads((Path(of) / "evaluation.json").read_text())["sets"]["t"] for of in ("one", "fewer")]
        assert all(digest in err for digest in hashes)


def test_stages_and_models_of_a_run_are_found_by_their_evaluation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    entries = {}
    for name, makes in (("a", "model"), ("b", "model"), ("report", "evaluation")):
        artifact = Path("run/artifacts") / f"f-{name}"
        made = begin(artifact)
        if makes == "evaluation":
            measured(made, {"a": 0.9, "b": 0.5})
        else:
            (made / "config.json").write_text("{}")
        seal(made, artifact, artifact.name, {"stage": name, "makes": makes})
        entries[name] = {"kind": "x", "makes": makes, "state": "done", "fingerprint": artifact.name}
    Path("run/run.json").write_bytes(sealed("run.json", {"recipe": "r", "stages": entries}))
    outputs = []
    for a, b in (("run:a", "run:b"), ("run/artifacts/f-a", "run"), ("run/artifacts/f-report:a", "run:report")):
        assert main(["compare", a, b, "--json"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0]["tasks"] == outputs[1]["tasks"] == outputs[2]["tasks"]
    assert (outputs[1]["a"]["model"], outputs[1]["b"]["model"]) == ("a", "b")
    entries["a"]["fingerprint"] = "f-newer"
    Path("run/run.json").write_bytes(sealed("run.json", {"recipe": "r", "stages": entries}))
    for a, code, said in (("run/artifacts/f-a", 5, "no run measured"), ("run:aa", 2, "did you mean `a`?")):
        assert main(["compare", a, "run:b"]) == code
        assert said in capsys.readouterr().err
    (Path("run/artifacts/f-report/evaluation.json")).write_text("{}")
    assert main(["compare", "run:a", "run:b"]) == 5
    assert "damaged" in capsys.readouterr().err
