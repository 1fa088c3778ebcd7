"""Tokens between brackets: where one closes, what stands at the top level, the items of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from temper.rewards.answers.tokens import Token

OPENING = {"(": ")", "[": "]", "\\{": "\\}", "{": "}", "langle": "rangle"}
CLOSING = frozenset(OPENING.values())
JOINING = frozenset({"and", "or", "und", "oder", "lor", "land", "vee", "wedge", "或", "和"})


def infinite(tokens: Sequence[Token]) -> str:
    """ "+" or "-" for infinity, "" for anything else."""
    texts = [token.text for token in tokens if token.text not in ("{", "}")]
    return {"infty": "+", "+infty": "+", "-infty": "-"}.get("".join(texts), "")


def before_in(tokens: Sequence[Token]) -> Sequence[Token]:
    r"""What stands before `\in`, all where there is none."""
    at = next((i for i, token in enumerate(tokens) if token.text == "in"), len(tokens))
    return tokens[:at]


def unbraced(tokens: Sequence[Token]) -> Sequence[Token]:
    """Without the braces around all of it."""
    braced = len(tokens) > 1 and tokens[0].text == "{" and closing(tokens, 0) == len(tokens) - 1
    return tokens[1:-1] if braced and not any(token.text == "over" for token in tokens) else tokens


def closing(tokens: Sequence[Token], at: int) -> int:
    """Where the bracket that opens at `at` closes, any bracket closing any; -1 for nowhere."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i].text in OPENING:
            depth += 1
        elif tokens[i].text in CLOSING:
            depth -= 1
            if not depth:
                return i
    return -1


def top_level(tokens: Sequence[Token], wanted: Callable[[Token], bool]) -> list[int]:
    """The places outside all brackets where a token is `wanted`."""
    depth, found = 0, []
    for i, token in enumerate(tokens):
        if token.text in OPENING or token.text == "begin":
            depth += 1
        elif token.text in CLOSING or token.text == "end":
            depth -= 1
        elif not depth and wanted(token):
            found.append(i)
    return found


def split_at(tokens: Sequence[Token], places: Sequence[int]) -> list[list[Token]]:
    """What stands between the places."""
    bounds = [-1, *places, len(tokens)]
    return [list(tokens[bounds[i] + 1 : bounds[i + 1]]) for i in range(len(bounds) - 1)]


def split_on(tokens: Sequence[Token], text: str) -> list[list[Token]]:
    """What stands between the tokens of this text, outside all brackets."""
    return split_at(tokens, top_level(tokens, lambda token: token.text == text))


def lines(tokens: Sequence[Token]) -> list[list[Token]]:
    r"""The lines of a matrix, between `\\`."""
    return split_on(tokens, "\\\\")


def separated(tokens: Sequence[Token]) -> tuple[list[list[Token]], list[str]]:
    """The parts between top-level commas, semicolons, "and" and "or"; what stood between them."""
    places = top_level(tokens, lambda token: token.text in (",", ";") or token.text in JOINING)
    parts = split_at(tokens, places)
    joints = [tokens[at].text for at in places]
    kept: list[list[Token]] = []
    between: list[str] = []
    for i, part in enumerate(parts):
        if not part and 0 < i < len(parts) - 1 and joints[i] in JOINING and joints[i - 1] == ",":
            continue  # 3, 5, and 7
        if not part and len(parts) > 1:
            raise ValueError("an item of the list is missing")
        kept.append(part)
        if i < len(joints):
            between.append(joints[i])
    return kept, between
