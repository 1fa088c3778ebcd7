"""What may stand around the one number of an answer: a currency, a percent sign, a unit of measure, a counted noun.

Units of measure and currencies have one canonical name, so that `5 cm` and `5 centimetres` agree and `5 m` does not;
nouns are let through whatever they are, unless they are words that change the number (`5 thousand`, `5 or more`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_NOUNS = 4  # words after a number: "apples in the basket" is a unit, a sentence is not
MAX_LETTERS = 40  # of such a word

# canonical name: other ways to write it. Symbols are matched as they stand, words of three letters or more in any case.
_MEASURES = """
mm: millimeter millimetre millimeters millimetres     cm: centimeter centimetre centimeters centimetres zentimeter
dm: decimeter decimetre dezimeter                     m: meter metre meters metres metern
km: kilometer kilometre kilometers kilometres kms     in: inch inches zoll
ft: foot feet                                         yd: yard yards
mi: mile miles meile meilen                           mg: milligram milligrams milligramm
g: gram grams gramme gramm                            kg: kilogram kilograms kilogramm kilo kilos kgs
t: tonne tonnes tonnen                                lb: lbs
oz: ounce ounces                                      ms: millisecond milliseconds millisekunden
s: sec secs second seconds sekunde sekunden           min: mins minute minutes minuten
h: hr hrs hour hours stunde stunden                   day: days tag tage tagen
week: weeks woche wochen                              month: months monat monate monaten
year: years yr yrs jahr jahre jahren                  ml: mL milliliter millilitre milliliters millilitres
L: l liter litre liters litres litern                 mph: MPH
V: volt volts                                         W: watt watts
kW: kilowatt kilowatts                                N: newton newtons
J: joule joules                                       kJ: kilojoule kilojoules
Hz: hertz                                             kHz: kilohertz
Pa: pascal pascals                                    mol: mole moles
rad: radian radians                                   kWh:
deg: degree degrees grad                              kcal: kilocalories
USD: dollar dollars bucks $ US$                       EUR: euro euros €
GBP: £                                                JPY: yen ¥
INR: rupee rupees ₹ Rs                                CNY: yuan RMB 元
CHF: franken                                          cent: cents ¢ ct
CAD: C$                                               AUD: A$
"""
UNITS: dict[str, str] = {
    alias: entry[0].rstrip(":")
    for line in _MEASURES.strip().splitlines()
    for entry in (part.split() for part in re.split(r"\s{2,}(?=\S+:)", line))
    for alias in (entry[0].rstrip(":"), *entry[1:])
}
CURRENCIES = frozenset({"USD", "EUR", "GBP", "JPY", "INR", "CNY", "CHF", "CAD", "AUD"})

# Words that are numbers, compute, compare, join or deny: beside a number they make another answer of it.
_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million
    millions billion billions trillion trillions bn mio mrd dozen dozens score half halves third thirds quarter quarters
    fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth
    hundredths thousandth thousandths lakh crore googol pi tau infinity infinite nan inf
    null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig dreissig vierzig fünfzig sechzig
    siebzig achtzig neunzig hundert tausend millionen milliarde milliarden dutzend halb halbe halbes drittel viertel
    fünftel sechstel achtel zehntel unendlich deux trois quatre cinq huit neuf dix mil mille millón millones
"""
_JOINING = """
    plus minus multiplied divided over by mod modulo squared cubed doubled tripled factorial root sqrt power
    geteilt durch quadrat hoch wurzel equals equal gleich than least most about approximately approx around roughly
    nearly almost under above below ungefähr etwa circa ca mindestens höchstens to until through bis between zwischen
    and und et y e or oder ou either maybe perhaps possibly vielleicht alternatively bzw not no nor nicht kein keine
    cannot isn doesn negative is are was were ist sind war be if but aber versus vs remainder ratio permille promille
    except without unless xyz abc wrong false falsch
"""
NUMBER_WORDS = frozenset(_NUMBERS.split())
CHANGING_WORDS = NUMBER_WORDS | frozenset(_JOINING.split())
HEDGING = re.compile(r"\b(?:or|oder|either|maybe|perhaps|possibly|vielleicht|alternatively|bzw)\b", re.IGNORECASE)

_CURRENCY_SIGN = r"US\$|C\$|A\$|\\?\$|[€£¥₹]|\\euro(?![A-Za-z])|\\pounds(?![A-Za-z])"
_CURRENCY_CODE = r"USD|EUR|GBP|JPY|INR|CNY|CHF|CAD|AUD|Rs\.?"
_BEFORE = re.compile(rf"(?:(?P<sign>{_CURRENCY_SIGN})|(?P<code>{_CURRENCY_CODE})(?=[\s0-9]))\s*")
_PERCENT = re.compile(
    r"\s*(?:\\?%|(?:percent|per\s+cent|prozent|pour\s+cent|por\s+ciento|per\s+cento)(?!\w))", re.IGNORECASE
)
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|°)\s*([CFK]?)(?!\w)")
_SQUARED = re.compile(r"\^\s*\{\s*([23])\s*\}|\^\s*([23])(?![0-9])|([²³])")
_SQUARE_WORD = re.compile(r"(?:(square|sq|quadrat)|(cubic|cu|kubik))\s*(?=[A-Za-z])", re.IGNORECASE)
_SHORT = frozenset({"of", "in", "on", "at", "am", "pm", "im", "an"})  # other short words would be products: 5 xy
_VARIABLES = ("t", "N", "J")  # units when a space stands before them, factors when none does
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Around:
    """What stood around a number: whether that makes a percentage of it, and the canonical unit ("" for none known)."""

    percent: bool
    unit: str


def before_number(text: str) -> tuple[str, str]:
    """(canonical currency in front of a number or "", the rest).

    >>> before_number("$5"), before_number("EUR 5"), before_number("5")
    (('USD', '5'), ('EUR', '5'), ('', '5'))
    """
    found = _BEFORE.match(text)
    if found is None:
        return "", text
    latex = {"\\$": "USD", "\\euro": "EUR", "\\pounds": "GBP"}
    written = (found["sign"] or found["code"]).rstrip(".")
    return latex.get(written) or UNITS[written], text[found.end() :]


def after_number(text: str, currency: str = "") -> Around:
    """Reads what follows a number. Raises ValueError where that is more than a percent sign, a unit or a few nouns.

    >>> after_number(" cm^2"), after_number(" apples"), after_number("%")
    (Around(percent=False, unit='cm^2'), Around(percent=False, unit=''), Around(percent=True, unit=''))
    """
    percent = _PERCENT.match(text)
    if percent:
        if currency:
            raise ValueError("it is both an amount of money and a percentage")
        behind = text[percent.end() :]
        if behind.split()[:1] and behind.split()[0].casefold().startswith(("point", "punkt")):
            raise ValueError("percentage points are no percentage")
        _nouns(behind)
        return Around(True, "")
    if not text.strip():
        return Around(False, currency)
    if text.rstrip() in _VARIABLES:
        raise ValueError(f"`{text.strip()}` directly behind the number is a variable, not a unit")
    degrees = _DEGREES.fullmatch(text.rstrip())
    unit = f"deg{degrees[1]}" if degrees else _measure(text) or _nouns(text)
    if currency and unit not in ("", currency):
        raise ValueError(f"it is in {currency} and in {unit}")
    return Around(False, currency or unit)


def _measure(text: str) -> str:
    """The canonical name of a unit of measure such as `km/h` or `square metres`, "" where it is none."""
    text = _SQUARED.sub(lambda m: f"^{m[1] or m[2] or ('2' if m[3] == '²' else '3')}", text.strip())
    square = _SQUARE_WORD.match(text)
    if square and _canonical(text[square.end() :].strip()):
        return f"{_canonical(text[square.end() :].strip())}^{2 if square[1] else 3}"
    text = re.sub(r"\s*(?:\bper\b|\bpro\b|/)\s*", "/", text)
    atoms = re.split(r"(/|\s*\\cdot\s*|·)", text)
    names = [_atom(atom) if i % 2 == 0 else "/" if atom == "/" else "·" for i, atom in enumerate(atoms)]
    return "".join(names) if all(names) else ""


def _atom(text: str) -> str:
    name, raised, power = text.partition("^")
    canonical = _canonical(name.strip())
    if not raised:
        return canonical
    return f"{canonical}^{power}" if canonical and canonical not in CURRENCIES and power in ("2", "3") else ""


def _canonical(name: str) -> str:
    return UNITS.get(name) or (UNITS.get(name.lower(), "") if len(name) > 2 else "") or UNITS.get(name.lstrip("\\"), "")


def _nouns(text: str) -> str:
    """The canonical unit that the words after a number begin with, "" for a counted noun. Raises ValueError for more
    than a few words, and for words that make another number of it."""
    words = text.split()
    if not words:
        return ""
    if not text[0].isspace() and not all(map(_uncased, words[0])):
        raise ValueError(f"`{text.split()[0][:20]}` stands directly behind the number")
    if len(words) > MAX_NOUNS:
        raise ValueError("a sentence stands behind the number")
    for word in words:
        if len(word) > MAX_LETTERS or not _WORD.fullmatch(word):
            raise ValueError(f"`{word[:20]}` behind the number is not a unit")
        parts = re.split("['’-]", word.casefold())
        percent = parts[0].startswith(("percent", "prozent"))
        if percent or CHANGING_WORDS.intersection(parts) or any(character.isnumeric() for character in word):
            raise ValueError(f"the word `{word[:20]}` makes another answer of the number")
        if len(word) < 3 and word not in UNITS and word.lower() not in _SHORT and not _uncased(word[0]):
            raise ValueError(f"`{word}` behind the number is a variable, not a unit")
    return UNITS.get(words[0]) or _canonical(words[0])


def _uncased(character: str) -> bool:
    """A letter of a script without upper and lower case, such as a Chinese counting word."""
    return character.isalpha() and character.lower() == character.upper() and not character.isnumeric()
