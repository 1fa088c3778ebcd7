"""Language shares: words decide, and nothing else in a text does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_rows import QUICK

from temper.text.languages import LANGUAGES, language_share
from temper.text.words import LATIN_LANGUAGES, LEXICON

OWN = {language: sorted(word for word, found in LEXICON.items() if found == {language}) for language in LATIN_LANGUAGES}
SENTENCES = {
    "en": "First we add 38 and 33, which gives 71. Then we subtract 49, so the result is 22. Wait, let me check that.",
    "de": "Zuerst addieren wir 38 und 33, das ergibt 71. Dann ziehen wir 49 ab, also ist das Ergebnis 22. Das stimmt.",
    "fr": "D'abord nous ajoutons 38 et 33, ce qui fait 71. Ensuite on soustrait 49, donc le résultat est 22.",
    "es": "Primero sumamos 38 y 33, que son 71. Luego restamos 49, entonces el resultado es 22.",
    "it": "Prima sommiamo 38 e 33, che fa 71. Poi sottraiamo 49, quindi il risultato è 22.",
    "ru": "Сначала сложим 38 и 33, получим 71. Затем вычтем 49, значит ответ 22.",
    "zh": "首先把38和33相加，得到71。然后减去49，所以答案是22。",
    "ja": "まず38と33を足すと71になります。次に49を引くので、答えは22です。",
    "ko": "먼저 38과 33을 더하면 71입니다. 그래서 답은 22입니다.",
    "ar": "أولا نجمع 38 و 33 فنحصل على 71. إذن الجواب هو 22.",
    "el": "Πρώτα προσθέτουμε 38 και 33. Άρα η απάντηση είναι 22.",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_text_is_in_its_own_language_and_in_no_other(language):
    assert language_share(SENTENCES[language], language) > 0.85
    for other in set(SENTENCES) - {language, "ja" if language == "zh" else "", "zh" if language == "ja" else ""}:
        assert language_share(SENTENCES[language], other) < 0.2, other


@QUICK
@given(st.sampled_from(["en", "de"]), st.data())
def test_the_share_counts_words(language, data):
    other = "de" if language == "en" else "en"
    here = data.draw(st.lists(st.sampled_from(OWN[language]), min_size=1, max_size=20))
    there = data.draw(st.lists(st.sampled_from(OWN[other]), max_size=20))
    words = data.draw(st.permutations(here + there))
    assert language_share(" ".join(words), language) == len(here) / len(words)


@QUICK
@given(st.sampled_from(["en", "de"]), st.lists(st.sampled_from(OWN["en"] + OWN["de"]), max_size=12))
def test_what_is_no_word_changes_nothing(language, words):
    noise = ["38+33=71", r"\frac{x}{2}", "\\begin", "x", "y_1", "<b>", "3a", "`so wird`", "https://der.die/das", "α"]
    mixed = " ".join(part for pair in zip(words, noise * 2, strict=False) for part in pair)
    assert language_share(mixed, language) == language_share(" ".join(words), language)


@QUICK
@given(st.text(), st.sampled_from(LANGUAGES))
def test_any_text_has_a_share(text, language):
    assert 0.0 <= language_share(text, language) <= 1.0


@pytest.mark.parametrize("text", ["", "38 + 33 = 71", r"\int_0^1 x\,dx", "x = y", "<think></think>", "qwrtz plmk", "…"])
def test_without_words_of_a_language_the_share_is_0(text):
    assert all(language_share(text, language) == 0.0 for language in LANGUAGES)


def test_shared_words_decide_only_when_nothing_else_does():
    assert language_share("so in", "en") == language_share("so in", "de") == 1.0
    assert language_share("so in", "zh") == 0.0
    assert language_share("so ist das in", "en") == 0.0


def test_endings_and_letters_tell_unknown_words():
    assert language_share("Verschiebung Möglichkeit Straße", "de") == 1.0
    assert language_share("Verschiebung Möglichkeit Straße", "en") == 0.0
    assert language_share("rearranging carelessness", "en") == 1.0


def test_one_foreign_script_in_a_thousand_words_shows():
    text = "the result is right " * 250
    assert language_share(text, "en") == 1.0
    assert 0.99 < language_share(text + "答案", "en") < 1.0


def test_case_and_apostrophes_do_not_matter():
    assert language_share("THE Result IsN'T That’s LET'S", "en") == 1.0


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match="klingon"):
        language_share("the", "klingon")
