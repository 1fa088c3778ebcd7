"""Answers that are no value: words, a choice letter, a time of day, a date; and which words of a question are nouns."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_WORDS = 4  # of a gold answer in words: more are a sentence, which no reply repeats
MAX_CHARACTERS = 60

# Numbers in words: a second value beside a number, never a noun.
_NUMERAL_WORDS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million
    millions billion billions trillion trillions dozen dozens score gross pair pairs couple half halves third thirds
    quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths
    hundredth hundredths thousandth thousandths lakh crore myriad googol infinity twice thrice double triple negative
    minus plus squared cubed factorial percent null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
    zwanzig hundert tausend million millionen milliarde milliarden dutzend halb drittel viertel
"""
NUMERALS = frozenset(_NUMERAL_WORDS.split())
_NUMERAL_CHARACTERS = frozenset("〇零一二两三四五六七八九十百千万亿兆割打半倍分억만천백")
# The words of a sentence that name nothing which could be counted.
_GRAMMAR_WORDS = """
    and or not no nor but if than then to through between by about around least most approximately nearly almost
    either neither both is are was were be been do does did can could will would should may might must have has had how
    what which who whom whose when where why it its he she they we you i this that these those some any all every as so
    except without unless versus vs over under above below never ever always inverse opposite und oder nicht
"""
_GRAMMAR = frozenset(_GRAMMAR_WORDS.split())
LINKS = frozenset({"of", "the", "in", "on", "a", "an", "for", "from", "at", "per"})
_WORD = re.compile(r"[^\W\d_]+")
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*)?(?:\(\s*([A-J])\s*\)|\[\s*([A-J])\s*\]|([A-J])\s*[).:、]?)", re.IGNORECASE
)
_CHOICE_WITH_TEXT = re.compile(r"[(\[]?([A-J])(?:[)\]][.:]?|[.:、．])\s*(\S.*)", re.DOTALL)
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*([ap]\s*\.?\s*m\b\s*\.?)?(?:\s+on\s+(.+))?", re.IGNORECASE)
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DATE = re.compile(
    rf"(?:(?P<month>{_MONTHS})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+"
    rf"(?:of\s+)?(?P<month2>{_MONTHS}))(?:,?\s+(?P<year>\d{{4}}))?",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)", re.IGNORECASE)


def choice(text: str) -> str:
    """The letter that a text without dress is, in upper case; "" for none.

    >>> choice("(C)"), choice("b."), choice("CC")
    ('C', 'B', '')
    """
    found = _CHOICE.fullmatch(text) if len(text) < 20 else None
    return (found[1] or found[2] or found[3]).upper() if found else ""


def choice_with_text(text: str) -> tuple[str, str]:
    """(the letter, the text behind it) of `C. 5 apples`; ("", "") for anything else."""
    found = _CHOICE_WITH_TEXT.fullmatch(text)
    return (found[1], found[2]) if found else ("", "")


def says_option(question: str, letter: str, text: str) -> bool:
    """Whether the question has this text behind this letter, white space and dollar signs aside."""
    said = re.sub(r"[\s$\\,{}.]|text|mathrm|textbf", "", text)
    asked = re.sub(r"[\s$\\,{}.]|text|mathrm|textbf", "", question)
    return bool(said) and any(f"{letter}{mark}{said}" in asked for mark in (")", ":", "、", "", "]"))


def time_of(text: str) -> tuple[str, ...] | None:
    """A time of day: hours, minutes, seconds, "am" or "pm" or "", a date.

    >>> time_of("4:30 p.m."), time_of("four")
    (('4', '30', '', 'pm', ''), None)
    """
    found = _TIME.fullmatch(text) if len(text) < 60 else None
    if not found or not (found[4] or (found[2] and (found[3] or found[5]))):
        return None
    half = "".join(c for c in (found[4] or "").lower() if c.isalpha())
    return (found[1].lstrip("0") or "0", found[2] or "00", found[3] or "", half, plain_words(found[5] or ""))


def date_of(text: str) -> tuple[str, ...] | None:
    """A date: month, day, year or "".

    >>> date_of("4th of July"), date_of("July 4"), date_of("next week")
    (('july', '4', ''), ('july', '4', ''), None)
    """
    found = _DATE.fullmatch(text)
    if not found:
        return None
    month, day = found["month"] or found["month2"], found["day"] or found["day2"]
    return (month.lower(), day.lstrip("0"), found["year"] or "")


def plain_words(text: str) -> str:
    """Words as they are compared: case, white space, quotes and a full stop aside.

    >>> plain_words(" No  solution. ")
    'no solution'
    """
    return " ".join(text.casefold().replace("’", "'").strip(" .\"'`").split())


def gold_words(text: str) -> str:
    """The words that a gold answer is, as they are compared; "" where it is none: a sentence, numbers, signs."""
    plain = plain_words(text)
    parts = plain.split()
    if not 1 <= len(parts) <= MAX_WORDS or len(plain) > MAX_CHARACTERS:
        return ""
    if numerals_in(plain) and NUMERALS.issuperset(_pieces(plain)):
        return ""
    named = False
    for part in parts:
        word = part.strip(",;()'\"-.")
        if _ORDINAL.fullmatch(word):
            named = True
        elif word.isdigit() and named:
            continue
        elif all(piece.isalpha() for piece in re.split(r"['\-.]", word) if piece) and word:
            named = True
        else:
            return ""
    return plain if named else ""


def numerals_in(text: str) -> list[str]:
    """The words of a text that are numbers or parts of one.

    >>> numerals_in("one half maybe"), numerals_in("Three-Mile Island"), numerals_in("no solution")
    (['one', 'half'], ['three'], [])
    """
    return [piece for piece in _pieces(text.casefold()) if piece in NUMERALS]


def _pieces(text: str) -> list[str]:
    """The words of a number in words: `twenty-five`, `one hundred and five`."""
    return [piece for piece in re.split(r"[\s,-]+", text) if piece and piece != "and"]


@lru_cache(maxsize=512)
def nouns_of(question: str) -> frozenset[str]:
    """The words of a question that could name what is counted, with their plural or singular."""
    found: set[str] = set()
    for word in _WORD.findall(question[:20_000].casefold()):
        if word in _GRAMMAR or word in NUMERALS:
            continue
        found.add(word)
        found.add(singular(word))
    return frozenset(found)


def is_noun(word: str, question: str, counted: frozenset[str] = frozenset()) -> bool:
    """Whether a word beside a value only names what is counted."""
    word = word.casefold()
    if word in NUMERALS or word in _GRAMMAR:
        return False
    if word in counted or word in LINKS:
        return True
    if not word.isascii():
        return not _NUMERAL_CHARACTERS.intersection(word) and (word in question or all(c in counted for c in word[:1]))
    return len(word) > 1 and (word in nouns_of(question) or singular(word) in nouns_of(question))


def is_numeral(word: str) -> bool:
    """Whether a word is a number, or makes one of what stands before it."""
    word = word.casefold()
    return (
        word in NUMERALS
        or any(part in NUMERALS for part in word.split("-"))
        or bool(not word.isascii() and _NUMERAL_CHARACTERS.intersection(word[:1]))
    )


def singular(word: str) -> str:
    """A noun without its plural ending, roughly: both sides are treated alike."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word
