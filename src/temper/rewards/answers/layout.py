r"""The dress of an answer, taken off: `$…$`, Markdown emphasis, `\left(`, spaces, "the answer is", a closing full stop.

What is taken off leaves a break (an invisible white space) behind, so that `**1** 234` never becomes 1234; what stood
in `\text{…}` stays between two marks, so that a unit can be told from a variable. A text is short here.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 1_500  # of a final form: an answer is short, and what is computed about it stays cheap
BREAK = "\x1f"
TEXT, END_TEXT = "\x02", "\x03"
THOUSANDS = "\u2009"  # a separator that cannot part two numbers, such as `{,}`

_TEXT_COMMAND = re.compile(
    r"\\(?:text|textrm|textnormal|textbf|textit|texttt|textsf|mathrm|mathit|mathsf|mathtt|mbox|hbox|emph|rm|operatorname)"
    r"\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_MATH_FONT = re.compile(r"\\(?:mathbf|boldsymbol|bm|mathcal|mathbb|vec|overrightarrow|pmb)(?![A-Za-z])")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_SIZES = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?|\\(?:displaystyle|textstyle|limits|large|Large)(?![A-Za-z])"
)
_WIDE_SPACES = re.compile(r"\\(?:quad|qquad|enspace(?![A-Za-z]))|\\[;:>!]|(?<!\\)\\(?=[ \n]|$)|(?<![\\~])~(?![~\d])")
_PRIME = re.compile(r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime))")
_GROUPING = re.compile(r"(?<=\d)(?:\{\s*,\s*\}|\{\\,\}|,\s*\\!\s*|\\,\s*|\\thinspace\s*)(?=\d{3})")
_THIN_SPACE = re.compile(r"\\,|\\thinspace(?![A-Za-z])|\\hspace\{[^{}]*\}")
_PAIRS = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)\$")
_DOLLARS = re.compile(r"(?<!\\)(\$\$?)((?:[^$\\]|\\.)+)\1", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*`\\^}])(\*{1,3}|_{1,3}|`{1,3})(?=[^\s*`])([^*`]*?[^\s*`])\1(?![\w*`])")
_HEADING = re.compile(r"(?:^|\n)\s*#{1,6}\s+(?=\w)")
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "≤": r"\le ",
    "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ", "°": r"^\circ ",
    "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ", "²": "^2", "³": "^3", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}",
    "⟨": r"\langle ", "⟩": r"\rangle ", "\u00a0": " ", "\u202f": THOUSANDS, "，": ", ", "’": "'", "′": "'",
}  # fmt: skip
_SYMBOL = re.compile("|".join(_SYMBOLS))
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")
_NOUN = (
    r"(?:(?:final|correct|exact|right|end|simplified|required|numerical|my)\s+)*"
    r"(?:answers?|result|solutions?|total|value|antwort|ergebnis|lösung|endergebnis)"
)
_ARTICLE = r"(?:(?:the|my|our|die|das|unser|mein)\s+)?"
_INTRODUCTION = re.compile(
    rf"{TEXT}?(?:(?:so|thus|hence|therefore|then|finally|also|damit|somit|daher),?\s+|∴\s*)?"
    rf"(?:{_ARTICLE}{_NOUN}\s*(?:(?:to\s+the\s+(?:problem|question)|(?:of|to)\s+the\s+(?:equation|expression))\s*)?"
    r"(?:(?:is|are|equals|ist|lautet|beträgt)(?![\w'’])(?:\s+equal\s+to\b|\s+gleich\b|\s+therefore\b)?\s*:?|[:：=]|\n)"
    rf"|(?:ist|lautet)\s+{_ARTICLE}{_NOUN}(?![\w'’])\s*:?"
    r"|(?:it\s+is|it['’]s|es\s+ist)(?![\w'’])\s*:?"
    r"|答案\s*(?:是|为|：|:)?\s*[:：]?)?\s*",
    re.IGNORECASE,
)
_ENDING = re.compile(rf"\s+(?:is|ist)\s+{_ARTICLE}{_NOUN}$", re.IGNORECASE)


def undress(text: str) -> str:
    r"""What is left of an answer without what may stand around it.

    >>> undress(r"**The answer is $\frac{1}{2}$.**").strip(BREAK)
    '\\frac{1}{2}'
    >>> undress("5 apples")
    '5 apples'
    """
    if text.isascii() and text.isalnum():
        return text
    text = plain_latex(_heading(_math_delimiters(text)))
    text = _strip(_markdown(text))
    text = _full_stop(text)
    introduction = _INTRODUCTION.match(text)
    if introduction and introduction.end():
        return _full_stop(_strip(text[introduction.end() :]))
    ending = _ENDING.search(text[-60:])
    return _strip(text[: len(text) - 60 + ending.start()] if ending and len(text) > 60 else _before(ending, text))


def plain_latex(text: str) -> str:
    r"""LaTeX that only lays out becomes plain text; printed symbols become their commands.

    >>> plain_latex(r"5\,\mathrm{kg}")
    '5 \x02kg\x03'
    """
    if not text.isascii():
        text = _SYMBOL.sub(lambda found: _SYMBOLS[found.group()], unicodedata.normalize("NFC", text))
        text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    if "\\" not in text and "~" not in text and "{" not in text:
        return text
    text = _GROUPING.sub(THOUSANDS, text)
    if "prime" in text:
        text = _PRIME.sub(lambda found: "'" * (found[1] or found[2]).count("prime"), text)
    for _ in range(3):  # commands inside commands
        text, count = _TEXT_COMMAND.subn(lambda found: TEXT + _DOLLAR.sub("", found[1]) + END_TEXT, text)
        if not count:
            break
    text = _SIZES.sub("", _MATH_FONT.sub("", _FRACTIONS.sub(r"\\frac", text)))
    return _WIDE_SPACES.sub(" ", _THIN_SPACE.sub(" ", text))


def words_of(text: str) -> str:
    """An undressed text without the marks that are left in it, its white space made one space each."""
    return " ".join(text.translate(_UNMARKED).split())


_UNMARKED = str.maketrans({TEXT: " ", END_TEXT: " ", BREAK: " ", "{": "", "}": "", "$": " "})


def _before(ending: re.Match[str] | None, text: str) -> str:
    return text[: ending.start()] if ending else text


def _strip(text: str) -> str:
    return text.strip(" \t\r\n" + BREAK)


def _math_delimiters(text: str) -> str:
    r"""`\(…\)`, `\[…\]`, `$…$` and `$$…$$` off; a single dollar sign is money and stays."""
    if "\\(" in text or "\\[" in text:
        text = _PAIRS.sub(lambda found: BREAK + _one_line(found[1] or found[2] or "") + BREAK, text)
    if "$" not in text:
        return text
    bare, pairs = _DOLLARS.subn(lambda found: BREAK + _one_line(found[2]) + BREAK, text)
    return text if pairs and _DOLLAR.search(bare) else bare  # one too many: nothing closes it


def _one_line(formula: str) -> str:
    """A formula's own line ends are spaces: what stands before it is no heading."""
    return formula.replace("\n", " ")


def _markdown(text: str) -> str:
    for _ in range(3):  # emphasis inside emphasis
        if "*" not in text and "_" not in text and "`" not in text:
            break
        text, count = _EMPHASIS.subn(lambda found: BREAK + found[2] + BREAK, text)
        if not count:
            break
    return text


def _heading(text: str) -> str:
    return _HEADING.sub("\n", text) if "#" in text else text


def _full_stop(text: str) -> str:
    """One full stop at the very end off, but for an ellipsis."""
    bare = text.rstrip(" \t\r\n" + BREAK + END_TEXT)
    if not bare.endswith((".", "。")) or bare.endswith((". .", "..")):
        return text
    return bare[:-1] + END_TEXT if text.count(TEXT) > bare.count(END_TEXT) else bare[:-1]
