r"""The dress of an answer, taken off: `$…$`, Markdown emphasis, `\text{…}`, "the answer is", a closing full stop.

What is taken off leaves a break (an invisible white space) behind, so that `**1** 234` never becomes 1234.
Each text is at most `MAX_CHARACTERS` long here.
"""

from __future__ import annotations

import re

from temper.rewards.numbers import THIN_SPACE

MAX_CHARACTERS = 1_000  # of a final form: an answer is short, and what is computed about it stays cheap
BREAK = "\x1f"

_TEXT_COMMAND = re.compile(
    r"\\(?:text|textrm|textnormal|textbf|textit|mathrm|mathbf|mathit|mathsf|boldsymbol|mbox|hbox|emph|operatorname)"
    r"\s*\{([^{}]*)\}"
)
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?=\s*(?:[()\[\]]|\\[{}]))|\\displaystyle(?![A-Za-z])")
_WIDE_SPACES = re.compile(r"\\(?:quad|qquad|;|:)(?![A-Za-z])")
_THIN_SPACES = re.compile(r"\\,|\\thinspace(?![A-Za-z])|\{,\}|,\\!|\{\\,\}")
_HARD_SPACES = re.compile(r"\\ |(?<=[\w}])~(?=[\w\\])")  # a tie as in 5~cm: `~5` is about 5
_PAIRS = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)
_DOLLAR = re.compile(r"(?<!\\)\$")
_DOLLARS = re.compile(r"(?<!\\)(\$\$?)((?:[^$\\]|\\.)+)\1", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![\w*`\\])(\*{1,3}|_{1,3}|`{1,3})(?=[^\s*`])([^*`]*?[^\s*`])\1(?![\w*`])")
_NOUN = r"(?:(?:final|correct|exact|right|end)\s+)?(?:answer|result|solution|antwort|ergebnis|lösung|endergebnis)"
_ARTICLE = r"(?:(?:the|my|our|die|das|unser|mein)\s+)?"
_INTRODUCTION = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|finally|also|damit|somit|daher),?\s+)?"
    rf"(?:{_ARTICLE}{_NOUN}\s*(?:(?:to\s+the\s+(?:problem|question)|of\s+the\s+equation)\s*)?"
    r"(?:(?:is|equals|ist|lautet|beträgt)(?![\w'’])(?:\s+equal\s+to\b|\s+gleich\b)?\s*:?|[:=])"
    rf"|(?:ist|lautet)\s+{_ARTICLE}{_NOUN}(?![\w'’])\s*:?)\s*",
    re.IGNORECASE,
)
_ENDING = re.compile(rf"\s+(?:is|ist)\s+{_ARTICLE}{_NOUN}", re.IGNORECASE)


def undress(text: str) -> str:
    r"""What is left of an answer without what may stand around it.

    >>> undress(r"**The answer is $\frac{1}{2}$.**").strip()
    '\\frac{1}{2}'
    >>> undress("5 apples")
    '5 apples'
    """
    text = _markdown(_math_delimiters(plain_latex(text))).strip()
    text = _full_stop(text)
    introduction = _INTRODUCTION.match(text)
    if introduction:
        text = text[introduction.end() :].strip()
    else:
        ending = _last(_ENDING, text)
        text = text[: ending.start()] if ending and ending.end() == len(text) else text
    return text.strip()


def plain_latex(text: str) -> str:
    r"""LaTeX that only lays out becomes plain text: `\text{ cm}`, `\left(`, spaces, `1{,}234`.

    >>> plain_latex(r"5\,\mathrm{kg}").split()
    ['5', 'kg']
    """
    for _ in range(3):  # commands inside commands
        text, count = _TEXT_COMMAND.subn(lambda found: BREAK + found[1] + BREAK, text)
        if not count:
            break
    text = _WIDE_SPACES.sub(BREAK, _SIZES.sub("", text))
    return _HARD_SPACES.sub("\u00a0", _THIN_SPACES.sub(THIN_SPACE, text))


def _math_delimiters(text: str) -> str:
    r"""`\(…\)`, `\[…\]`, `$…$` and `$$…$$` off; a single dollar sign is money and stays."""
    text = _PAIRS.sub(lambda found: BREAK + (found[1] or found[2] or "") + BREAK, text)
    bare, pairs = _DOLLARS.subn(lambda found: BREAK + found[2] + BREAK, text)
    return text if pairs and _DOLLAR.search(bare) else bare  # one too many: nothing closes it


def _markdown(text: str) -> str:
    for _ in range(3):  # emphasis inside emphasis
        text, count = _EMPHASIS.subn(lambda found: BREAK + found[2] + BREAK, text)
        if not count:
            break
    return text


def _full_stop(text: str) -> str:
    return text[:-1].rstrip() if text[-1:] in (".", "。") and len(text) > 1 else text


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found
