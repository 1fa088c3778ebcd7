r"""Which language a text is in, word by word: scripts decide where they can, word lists and endings for Latin letters.

LaTeX commands, tags, code, addresses, numbers and single Latin or Greek letters (variables) are no words.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from temper.text.words import LATIN_LANGUAGES, LEXICON

# Languages by the script of a word's first letter. A word of a script counts for each language written in it.
_SCRIPTS: tuple[tuple[int, int, frozenset[str]], ...] = tuple(
    (first, last, frozenset(languages.split()))
    for first, last, languages in (
        (0x0370, 0x03FF, "el"),
        (0x0400, 0x052F, "ru uk bg sr mk be"),
        (0x0530, 0x058F, "hy"),
        (0x0590, 0x05FF, "he"),
        (0x0600, 0x077F, "ar fa ur"),
        (0x0900, 0x097F, "hi mr ne"),
        (0x0980, 0x09FF, "bn"),
        (0x0B80, 0x0BFF, "ta"),
        (0x0C00, 0x0C7F, "te"),
        (0x0E00, 0x0E7F, "th"),
        (0x10A0, 0x10FF, "ka"),
        (0x1100, 0x11FF, "ko"),
        (0x1F00, 0x1FFF, "el"),
        (0x3040, 0x30FF, "ja"),
        (0x3400, 0x9FFF, "zh ja"),
        (0xAC00, 0xD7AF, "ko"),
        (0xF900, 0xFAFF, "zh ja"),
        (0x20000, 0x3FFFF, "zh ja"),
    )
)
_BEYOND_LATIN = 0x250  # code points from here on are of other scripts
LANGUAGES = tuple(sorted({*LATIN_LANGUAGES, *(language for *_, found in _SCRIPTS for language in found)}))

# What holds letters but no words, each with a piece of text without which it need not be looked for.
_NOT_WORDS = (
    ("`", re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)),
    ("://", re.compile(r"https?://\S+")),
    ("<", re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")),
    ("\\", re.compile(r"\\[A-Za-z]+")),
    ("", re.compile(r"(?<![A-Za-z0-9_])[A-Za-z_]*+[0-9][A-Za-z0-9_]*+")),  # x1, 3a, a variable's name
)
# Chinese characters and kana stand for a word each; everywhere else a word is a run of letters.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+(?:['’][a-z]+)?")

_LETTERS = (("ß", "de"), ("äöü", "de"), ("ñ", "es"), ("çœêîôûëï", "fr"), ("ìò", "it"))
_ENDINGS = (
    ("ungen ung heit keit schaft lich liche licher liches lichen isch ische ischer isches ischen", "de"),
    ("ing ness ful less ought ly", "en"),
)
_ENDINGS_OF = tuple((tuple(endings.split()), frozenset((language,))) for endings, language in _ENDINGS)
_SHORTEST = 6  # letters of a word whose ending is taken as a sign


def language_share(text: str, language: str) -> float:
    r"""The share of words of `language` among the words whose language can be told; 0.0 without any.

    Words that several languages have (`so`, `in`) count only where nothing else does, unknown Latin words never.
    Raises ValueError for a language that is not in `LANGUAGES`.

    >>> language_share("First 38+33=71. Then 71-49=22. So the result is 22.", "en")
    1.0
    >>> language_share("First 38+33=71. Dann 71-49=22.", "en")
    0.5
    >>> language_share("38+33=71", "en"), language_share(r"\frac{x}{2}", "en"), language_share("所以答案是 7", "zh")
    (0.0, 0.0, 1.0)
    """
    if language not in LANGUAGES:
        raise ValueError(f"no word list or script for language `{language}`; there are {', '.join(LANGUAGES)}")
    for sign, pattern in _NOT_WORDS:
        if sign in text:
            text = pattern.sub(" ", text)
    here = elsewhere = shared = 0
    for word, count in Counter(_WORD.findall(text)).items():
        languages = _languages(word)
        if len(languages) > 1 and ord(word[0]) < _BEYOND_LATIN:
            shared += count * (language in languages)
        elif language in languages:
            here += count
        elif languages:
            elsewhere += count
    if here or elsewhere:
        return here / (here + elsewhere)
    return 1.0 if shared else 0.0


MAIN_SHARE = 0.8  # of the words whose language can be told
MOST_LOOKED_AT = 400  # characters


def main_language(text: str) -> str:
    """The language of most words at the beginning of a text; "mixed" where none has most, "" where none can be told.

    >>> main_language("First 38+33=71, then subtract 49."), main_language("Erst 38+33=71, dann minus 49.")
    ('en', 'de')
    >>> main_language("First, dann the und"), main_language("38+33=71")
    ('mixed', '')
    """
    text = text[:MOST_LOOKED_AT]
    for sign, pattern in _NOT_WORDS:
        if sign in text:
            text = pattern.sub(" ", text)
    counts: Counter[str] = Counter()
    told = 0
    for word in _WORD.findall(text):
        languages = _languages(word)
        if languages and (len(languages) == 1 or ord(word[0]) >= _BEYOND_LATIN):
            told += 1
            counts.update(languages)
    if not told:
        return ""
    [(language, most)] = counts.most_common(1)
    return language if most >= MAIN_SHARE * told else "mixed"


@lru_cache(1 << 16)
def _languages(word: str) -> frozenset[str]:
    """The languages a word can be of; none for what is a word of no known language, or no word at all."""
    code = ord(word[0])
    if code >= _BEYOND_LATIN:
        by_script = next((found for first, last, found in _SCRIPTS if first <= code <= last), frozenset[str]())
        return frozenset() if len(word) == 1 and "el" in by_script else by_script
    if len(word) == 1:
        return frozenset()
    folded = word.lower().replace("’", "'")
    return LEXICON.get(folded) or LEXICON.get(folded.partition("'")[0]) or _by_form(folded)


def _by_form(word: str) -> frozenset[str]:
    """The language that letters or the ending of an unknown word give away."""
    if not word.isascii():
        for letters, language in _LETTERS:
            if any(letter in word for letter in letters):
                return frozenset((language,))
    if len(word) >= _SHORTEST:
        for endings, languages in _ENDINGS_OF:
            if word.endswith(endings) and not word.endswith("ling"):  # Zwilling, sibling: in both
                return languages
    return frozenset()
