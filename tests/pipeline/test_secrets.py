"""An access token in a recipe stands in nothing that a run writes or shows, and still tells two recipes apart."""

from __future__ import annotations

import time
from pathlib import Path

import fakes
import pytest
from fakes.running import run

from temper.errors import escape
from temper.masking import mask

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


RANDOM = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
SERVICES = """
    api_org_ ghr_ glptt- npm_ pypi- dckr_pat_ ATATT3 sk_live_ rk_live_ gsk_ xai- pplx- r8_ nvapi- fw_ jina_ pa- tvly-
    e2b_ rpa_ ak- lsv2_pt_ pcsk_ dapi wandb_v1_ dop_v1_ hvs. sbp_ pscale_tkn_ dp.pt. AIza glsa_ sntrys_ ntn_ lin_api_
    figd_ shpat_ SG. key- xapp-1-
""".split()  # noqa: SIM905


@pytest.mark.parametrize("beginning", SERVICES)
def test_tokens_of_many_services_are_masked(beginning):
    assert RANDOM[:12] not in escape(f"use {beginning}{RANDOM} here")
    assert escape(f"use {beginning}{RANDOM} here").endswith("… here")


@pytest.mark.parametrize(
    "text",
    ["https://a.b/x?token=@&y=1", "https://a.b/x?X-Amz-Signature=@", "https://hooks.slack.com/services/T1/B2/@",
     "Authorization: Basic @==", "DEEPINFRA_TOKEN=@", '"private_key_id": "@"', "AccountKey=@==", "12345678:AA@"[:44],
     "eyJhbGciOi.eyJzdWIi.@", "-----BEGIN RSA PRIVATE KEY-----\nab/@\n-----END RSA PRIVATE KEY-----", '"key": "@"',
     "curl -u me:@ x", "a service nobody knows: @"],
)  # fmt: skip
def test_what_stands_behind_a_name_or_in_an_address_is_masked(text):
    assert RANDOM[:12] not in escape(text.replace("@", RANDOM))


@pytest.mark.parametrize("word", ["a", "key=", "A1a", "x:", "token ", "http://", "1m", "sk-", "eyJa", "-u a"])
def test_no_text_takes_long_to_mask(word):
    started = time.process_time()
    mask(word * (100_000 // len(word)))
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["a task-specific-reward2", "pad_token: <pad>", "end token: <|im_end|>", "half_done",
                                  "hf_hub_download", "key: value", "0123456789abcdef0123456789abcdef01234567",
                                  "max_tokens: 3", "https://host:8000/v1/a@b", "What is the secret: 42?"])  # fmt: skip
def test_words_that_are_no_secrets_stay(text):
    assert escape(text) == text
