"""What may stand around the value of an answer: a currency, a percent sign, a unit of measure, a counted noun.

Units have one canonical name with a power, so that `5 cm` and `5 centimetres` agree, `m/s` is `metres per second` and
`5 m` is something else. Nothing is converted. A word that is no unit of this table is a noun: the caller decides what
it may be, by the question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from temper.rewards.answers.layout import END_TEXT, TEXT
from temper.rewards.answers.tokens import END, Token, is_product

# canonical name: other ways to write it. Symbols are matched as they stand, words of three letters or more in any case.
_MEASURES = """
mm: millimeter millimetre millimeters millimetres 毫米
cm: centimeter centimetre centimeters centimetres zentimeter 厘米
dm: decimeter decimetre decimeters decimetres dezimeter 分米   m: meter metre meters metres metern 米
km: kilometer kilometre kilometers kilometres kms 千米 公里    in: inch inches zoll 英寸
ft: foot feet 英尺                                            yd: yard yards yds
mi: mile miles meile meilen 英里                              mg: milligram milligrams milligramm
g: gram grams gramme gramm gm 克
kg: kilogram kilograms kilogramm kgs 千克 公斤
t: tonne tonnes tonnen 吨                                     ton: tons
lb: lbs pound pounds 磅                                       oz: ounce ounces
ms: millisecond milliseconds millisekunden                    s: sec secs second seconds sekunde sekunden 秒
min: mins minute minutes minuten 分钟                         h: hr hrs hour hours stunde stunden 小时
day: days tag tage tagen 天 日                                week: weeks woche wochen 周 星期
month: months monat monate monaten 个月                       year: years yr yrs jahr jahre jahren 年
ml: mL milliliter millilitre milliliters millilitres 毫升     L: l liter litre liters litres litern 升
gal: gallon gallons                                           qt: quart quarts
pt: pint pints                                                cup: cups
tsp: teaspoon teaspoons                                       tbsp: tablespoon tablespoons
acre: acres                                                   ha: hectare hectares 公顷
V: volt volts                                                 A: amp amps ampere amperes
W: watt watts                                                 kW: kilowatt kilowatts
N: newton newtons                                             J: joule joules
kJ: kilojoule kilojoules                                      Hz: hertz
kHz: kilohertz                                                Pa: pascal pascals
kPa: kilopascal kilopascals                                   mol: mole moles
K: kelvin                                                     ohm: ohms
C: coulomb coulombs                                           T: tesla
nm: nanometer nanometers nanometre nanometres                 eV: electronvolt electronvolts
rad: radian radians                                           kWh:
deg: degree degrees grad 度                                   kcal: kilocalories
cal: calorie calories                                         rpm:
GB: gigabyte gigabytes                                        MB: megabyte megabytes
unit: units 单位                                              erg: ergs
pc: parsec parsecs                                            AU: au
USD: dollar dollars bucks US$ 美元                            EUR: euro euros €
GBP: £                                                        JPY: yen ¥ 日元
INR: rupee rupees ₹ Rs                                        CNY: yuan RMB 元
CHF: franken                                                  cent: cents ¢ ct
CAD: C$                                                       AUD: A$
"""
# Things that are counted, where a question names none: each of them is one, whatever it is called.
_COUNTED = """
apple apples orange oranges egg eggs book books student students child children person people man men woman women boy
boys girl girls friend friends cookie cookies marble marbles ball balls pencil pencils pen pens car cars page pages
ticket tickets stamp stamps card cards coin coins box boxes bag bags bottle bottles flower flowers tree trees dog dogs
cat cats bird birds fish chicken chickens cow cows point points game games toy toys candy candies cupcake cupcakes piece
pieces slice slices pizza pizzas cake cakes sandwich sandwiches banana bananas integer integers way ways
solution solutions step steps digit digits triangle triangles side sides team teams member
members row rows chair chairs table tables seat seats room rooms house houses floor floors shirt shirts hat hats shoe
shoes sticker stickers balloon balloons passenger passengers worker workers player players word words letter letters
个 只 本 张 支 人 名 棵 条 件 元 袋 盒 颗 辆 朵 页 块 瓶 枝 头 位 岁 道 次 下 把 筐 箱 枚 套 杯 匹
"""
COUNTED = frozenset(_COUNTED.split())
UNITS: dict[str, str] = {
    alias: entry[0].rstrip(":")
    for line in _MEASURES.strip().splitlines()
    for entry in (part.split() for part in re.split(r"\s{2,}(?=\S+:)", line))
    for alias in (entry[0].rstrip(":"), *entry[1:])
}
_COMPOUND = {"mph": (("h", -1), ("mi", 1)), "kmh": (("h", -1), ("km", 1)), "kph": (("h", -1), ("km", 1))}
CURRENCIES = frozenset({"USD", "EUR", "GBP", "JPY", "INR", "CNY", "CHF", "CAD", "AUD"})
_SIGNS = {"$": "USD", "\\$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR"}
_CODES = {code: code for code in CURRENCIES} | {"Rs": "INR", "US": "USD"}
_RAISED = {"square": 2, "sq": 2, "quadrat": 2, "cubic": 3, "cu": 3, "kubik": 3}
_PERCENT_WORDS = frozenset({"percent", "pct", "prozent", "percents"})
_IN_UNITS = frozenset({"/", "^", "{", "}", "-", ".", "cdot"})
_OPERATORS = frozenset({"cdot", "times"})
MAX_NOUNS = 5
_UNIT_FRACTION = re.compile(
    rf"\\frac\s*\{{\s*{TEXT}\s*([A-Za-z]{{2,}})\s*{END_TEXT}\s*\}}\s*\{{\s*{TEXT}\s*([A-Za-z]+)\s*{END_TEXT}\s*\}}"
)

Unit = tuple[tuple[str, int], ...]  # canonical names with their powers, sorted; () for none
DEGREES: Unit = (("deg", 1),)


@dataclass(frozen=True)
class Around:
    """What stood around a value: a unit, whether a percent sign, and the words that are no unit of the table."""

    unit: Unit = ()
    percent: bool = False
    nouns: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.unit and not self.percent and not self.nouns


NOTHING = Around()
AMBIGUOUS = frozenset({"K", "T"})  # kelvin or thousand, tesla or trillion: units only where the gold answer has them


def canonical(word: str) -> str:
    """The canonical name of a unit, "" for a word that is none."""
    return UNITS.get(word) or (UNITS.get(word.lower(), "") if len(word) > 2 or not word.isascii() else "")


def on_one_line(plain: str) -> str:
    r"""An undressed answer, its unit written as a fraction put on one line: `\frac{\text{miles}}{\text{hour}}`."""
    if TEXT not in plain:
        return plain
    return _UNIT_FRACTION.sub(_fraction_of_units, plain)


def _fraction_of_units(found: re.Match[str]) -> str:
    known = canonical(found[1]) and canonical(found[2])
    return f"{TEXT}{found[1]}/{found[2]}{END_TEXT}" if known else found[0]


def currency_before(tokens: Sequence[Token]) -> tuple[str, int]:
    """(the currency in front of a value or "", how many tokens it takes)."""
    if not tokens:
        return "", 0
    first, following = tokens[0], tokens[1] if len(tokens) > 1 else END
    if first.text in _SIGNS:
        return _SIGNS[first.text], 1
    if first.text in _CODES:
        if following.text in ("$", "\\$") and first.text == "US":
            return "USD", 2
        dot = 1 if first.text == "Rs" and following.text == "." else 0
        return (_CODES[first.text], 1 + dot) if len(tokens) > 1 + dot and first.text != "US" else ("", 0)
    return "", 0


def split_around(
    tokens: Sequence[Token], names: Collection[str], splits: bool, own: Iterable[str] = (), letters: bool = True
) -> tuple[list[Token], Around]:
    r"""(the tokens of the value, what stands behind it). `names` are variables; `splits` says that short runs of
    letters may be products; `own` are units that may stand directly behind a number, as in `5m`; without
    `letters` a single letter is a unit only inside `\text{…}`.

    Raises ValueError where something stands behind the value that is neither.
    """
    at = _first_behind(tokens, names, splits, frozenset(own), letters)
    return list(tokens[:at]), around_of(tokens[at:]) if at < len(tokens) else NOTHING


def _first_behind(
    tokens: Sequence[Token], names: Collection[str], splits: bool, own: frozenset[str], letters: bool
) -> int:
    depth = 0
    for at, token in enumerate(tokens):
        text = token.text
        depth += {"(": 1, "[": 1, "{": 1, "\\{": 1, ")": -1, "]": -1, "}": -1, "\\}": -1}.get(text, 0)
        if at == 0:
            continue
        if depth == 1 and text == "(" and _is_words(tokens[at:]) and not set(tokens[at + 1].text) <= set(names):
            return at
        if depth:
            continue
        if text in ("%", "\\%", "€", "£", "¥", "₹", "¢", "\\$", "$") or (text == "^" and _degree_at(tokens, at)):
            return at
        if token.kind == "command" and text in ("circ", "degree"):
            return at
        if token.kind == "word" and not _is_variables(token, names, splits):
            return at
        if token.kind == "name" and (letters or token.roman) and _is_unit_letter(tokens, at, names, own):
            return at
    return len(tokens)


def _is_words(tokens: Sequence[Token]) -> bool:
    """Whether `( … )` is all that is left and holds a word, as in `9 (apples)`."""
    if len(tokens) < 3 or tokens[-1].text != ")" or "word" not in (tokens[1].kind, tokens[2].kind):
        return False
    return all(token.kind in ("word", "name") or token.text in ("-", "'", ".") for token in tokens[1:-1])


def _is_variables(token: Token, names: Collection[str], splits: bool) -> bool:
    if token.roman or not token.text.isascii():
        return False
    if names and all(letter in names for letter in token.text):
        return True
    return splits and is_product(token.text) and not canonical(token.text) and token.text not in COUNTED


def _is_unit_letter(tokens: Sequence[Token], at: int, names: Collection[str], own: frozenset[str]) -> bool:
    token, before = tokens[at], tokens[at - 1]
    if token.text in names or token.text not in UNITS:
        return False
    if at > 1 and tokens[at - 2].text in ("^", "_"):
        return False
    if before.kind not in ("number", "vulgar") and before.text not in ("}", ")", "pi"):
        return False
    if at + 1 < len(tokens) and tokens[at + 1].kind in ("name", "number"):
        return False
    if token.roman or UNITS[token.text] in own:
        return True
    return token.spaced and all(
        after.kind in ("word", "number") or after.text in _IN_UNITS or after.text in UNITS for after in tokens[at + 1 :]
    )


def _degree_at(tokens: Sequence[Token], at: int) -> bool:
    ahead = [token.text for token in tokens[at + 1 : at + 3]]
    return ahead[:1] in (["circ"], ["degree"]) or ahead in (["{", "circ"], ["{", "degree"])


def around_of(tokens: Sequence[Token]) -> Around:
    """What a unit, a percent sign or a few nouns say. Raises ValueError for anything else.

    >>> from temper.rewards.answers.tokens import tokens_of
    >>> around_of(tokens_of("km/h")).unit, around_of(tokens_of("square metres")).unit
    ((('h', -1), ('km', 1)), (('m', 2),))
    >>> around_of(tokens_of("red apples")).nouns
    ('red', 'apples')
    """
    if tokens and tokens[0].text == "(" and tokens[-1].text == ")":
        tokens = tokens[1:-1]
    tokens = [token for token in tokens if token.text not in ("{", "}")]
    texts = [token.text for token in tokens]
    if texts[:1] in (["%"], ["\\%"]) or (texts and texts[0].lower() in _PERCENT_WORDS):
        return _with_nouns((), True, tokens[1:])
    if [text.lower() for text in texts[:2]] == ["per", "cent"]:
        return _with_nouns((), True, tokens[2:])
    unit, used = _unit(tokens)
    return _with_nouns(unit, False, tokens[used:])


def _with_nouns(unit: Unit, percent: bool, tokens: Sequence[Token]) -> Around:
    nouns: list[str] = []
    for at, token in enumerate(tokens):
        if token.text in ("-", "'", ".") and at > 0:
            continue
        if token.kind not in ("word", "name") or token.text.startswith("\\"):
            raise ValueError(f"`{token.text}` behind the value is not a unit")
        nouns.append(token.text.casefold())
    if len(nouns) > MAX_NOUNS:
        raise ValueError("a sentence stands behind the value")
    return Around(unit, percent, tuple(nouns))


def _unit(tokens: Sequence[Token]) -> tuple[Unit, int]:
    """(the unit that the tokens begin with, how many they are)."""
    powers: dict[str, int] = {}
    at, sign = 0, 1
    while at < len(tokens):
        start = at
        text = tokens[at].text
        if at and (text == "/" or text.lower() in ("per", "pro", "a", "an")):
            sign, at = -1, at + 1
        elif at and (text in ("*", "-") or text in _OPERATORS):
            at += 1
        found, at = _unit_atom(tokens, at)
        if not found:
            at = start
            break
        for name, power in found:
            powers[name] = powers.get(name, 0) + sign * power
    return tuple(sorted((name, power) for name, power in powers.items() if power)), at


def _unit_atom(tokens: Sequence[Token], at: int) -> tuple[Unit, int]:
    if at >= len(tokens):
        return (), at
    if tokens[at].text == "^" and at + 1 < len(tokens) and tokens[at + 1].text in ("circ", "degree"):
        return _degrees(tokens, at + 2)
    if tokens[at].text in ("circ", "degree"):
        return _degrees(tokens, at + 1)
    raised = _RAISED.get(tokens[at].text.lower())
    if raised:
        at += 2 if at + 1 < len(tokens) and tokens[at + 1].text == "." else 1
        name = canonical(tokens[at].text) if at < len(tokens) else ""
        return (((name, raised),), at + 1) if name else ((), at)
    text = tokens[at].text
    if text in _SIGNS:
        return ((_SIGNS[text], 1),), at + 1
    if text == "\\Omega":
        return (("ohm", 1),), at + 1
    if text.lower() in _COMPOUND:
        return _COMPOUND[text.lower()], at + 1
    name = canonical(text)
    if not name:
        return (), at
    at += 1
    if name in ("deg",) and at < len(tokens) and tokens[at].text.lower() in ("celsius", "fahrenheit", "c", "f"):
        return ((f"deg{tokens[at].text[0].upper()}", 1),), at + 1
    if at < len(tokens) and tokens[at].text == "." and at + 1 < len(tokens):
        at += 1
    power, used = _power(tokens, at)
    return ((name, power),), at + used


def _degrees(tokens: Sequence[Token], at: int) -> tuple[Unit, int]:
    if at < len(tokens) and tokens[at].text in ("C", "F", "K"):
        return ((f"deg{tokens[at].text}", 1),), at + 1
    return DEGREES, at


def _power(tokens: Sequence[Token], at: int) -> tuple[int, int]:
    """(the power behind a unit, the tokens it takes): `^2`, `^{-1}`, `squared`."""
    if at >= len(tokens):
        return 1, 0
    if tokens[at].text.lower() in ("squared", "cubed"):
        return (2 if tokens[at].text.lower() == "squared" else 3), 1
    if tokens[at].text != "^":
        return 1, 0
    sign = 1
    used = 1
    if at + used < len(tokens) and tokens[at + used].text == "-":
        sign, used = -1, used + 1
    number = tokens[at + used].value if at + used < len(tokens) else None
    if number is None or number.denominator != 1 or not 1 <= number <= 9:
        raise ValueError("the power of the unit is none")
    return sign * int(number), used + 1
