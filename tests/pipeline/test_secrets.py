"""An access token in a recipe stands in nothing that a run writes or shows, and still tells two recipes apart."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from fakes.running import run

from temper.errors import escape

SECRETS = (
    "hf_abcdefghijklmnopqrstuvwxyz123456", "sk-proj-abcdefghij0123456789", "ghp_abcdefghij0123456789abcd",
    "AKIAABCDEFGHIJKLMNOP", "Bearer abcdefghij.klmnop", "https://me:hunter22@host/x", "password=hunter2222",
    "api_key: abcdef123456",
)  # fmt: skip
INNER = ("abcdefghij", "hunter2", "ABCDEFGHIJ", "abcdef123456")


pytestmark = pytest.mark.usefixtures("fake_kinds")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_token_in_a_recipe_is_masked_wherever_it_would_stand(tmp_path, capfd, secret):
    recipe = tmp_path / "my.yaml"
    text = f"name: fake\ndescription: '{secret} is mine'\nseed: 7\n" + fakes.RECIPE.split("seed: 7\n")[1]
    recipe.write_text(text.replace("steps: 6}", f"steps: 6, language: '{secret}'}}", 1), encoding="utf-8")
    first = run(recipe).record["stages"]["first"]["fingerprint"]
    said = capfd.readouterr().err
    assert "`description` holds what looks like" in said
    assert "`stages.first.language` holds what looks like" in said
    written = "".join(path.read_text(errors="replace") for path in Path("out").rglob("*") if path.is_file())
    assert not [part for part in INNER if part in written + said]
    assert run(recipe).ran == ()  # what is kept masked is no change
    other = run(recipe, f"first.language='{secret}9'", changed=True).record["stages"]["first"]["fingerprint"]
    assert other != first


@pytest.mark.parametrize("before", ["", "\x00", "\x1b[31m", "\x1b[0m", "\u202e", "(", "é", "\n"])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_token_in_an_error_is_masked_whatever_stands_before_it(before, secret):
    assert not [part for part in INNER if part in escape(f"{before}{secret}")]


@pytest.mark.parametrize("text", ["a task-specific-reward2", "pad_token: <pad>", "end token: <|im_end|>", "half_done"])
def test_words_that_are_no_secrets_stay(text):
    assert escape(text) == text
