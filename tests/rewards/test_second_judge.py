"""Math-Verify behind temper's rules of place and form."""

from __future__ import annotations

import importlib.util

import pytest
from reward_rows import answered, prompt

from temper.errors import ConfigError
from temper.rewards import load_rewards
from temper.text.reply import parse_reply

INSTALLED = importlib.util.find_spec("math_verify") is not None


@pytest.mark.skipif(not INSTALLED, reason="needs the extra math-verify")
def test_it_judges_values_but_not_where_an_answer_stands() -> None:
    judge = load_rewards(["math_verify"])["math_verify"]
    cases = [
        (r"\frac{1}{2}", "0.5", 1.0),
        (r"\sin^2 x + \cos^2 x", "1", 1.0),  # an identity, which temper itself does not use
        ("5", r"so \boxed{5}.", 1.0),
        ("5", r"\boxed{6}", 0.0),
        ("5", "2+3", 0.0),  # no final form
        ("5", r"\boxed{5} or \boxed{6}", 0.0),
        ("5", r"-\boxed{5}", 0.0),
        ("5", "4 or 5", 0.0),
        ("5", "", 0.0),
    ]
    pairs = [(prompt(gold), parse_reply(answered(answer))) for gold, answer, _ in cases]
    assert judge.batch(pairs) == [verdict for _, _, verdict in cases]  # type: ignore[attr-defined]
    assert judge(*pairs[0]) == 1.0


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load_rewards(["math_verify"])
    assert "temper-rl[math-verify]" in caught.value.render()
