r"""Undressed answers into values: `3, 5, 7`, `(1, 2]`, `x \in [-2, 7]`, `y = 2x + 3`, matrices, `2516_8`, `5 km/h`.

One reader serves both sides. A gold answer is trusted: it is worked out, and short runs of letters are products. What a
model writes must be a final form and is read in the light of the gold answer: its variables, its units, and whether its
commas separate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from temper.rewards.answers.brackets import (
    before_in,
    closing,
    infinite,
    lines,
    separated,
    split_at,
    split_on,
    top_level,
    unbraced,
)
from temper.rewards.answers.forms import has_function, has_two_values, names_in
from temper.rewards.answers.joined import as_interval, in_base, intersection, is_plain, renamed, repeats, union
from temper.rewards.answers.normal import Normal
from temper.rewards.answers.parser import Node, Parser
from temper.rewards.answers.retold import whole_degrees
from temper.rewards.answers.ring import Quotient, generator
from temper.rewards.answers.tokens import Token, tokens_of
from temper.rewards.answers.units import Around, currency_before, split_around
from temper.rewards.answers.values import Interval, Matrix, Number, Relation, Several, Union, Value, Words, same

MAX_ITEMS = 60
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SUCH_THAT = frozenset({"|", ":"})
_BIG = frozenset({"begin", "cup", "cap", "setminus", "in", "emptyset", "varnothing", "mathbb", "langle"})


@dataclass
class Reader:
    """`gold` trusts what it reads; the rest is what the gold answer says about how an answer is to be read."""

    gold: bool = False
    names: frozenset[str] = frozenset()  # the gold answer's variables
    units: frozenset[str] = frozenset()  # the gold answer's units
    powers: bool = False
    functions: bool = False
    vulgar: bool = True
    units_by_letter: bool = True  # `5 m` is five metres; inside $…$ it is a product
    commas: bool = False  # commas separate items, they do not group digits
    question: str = ""
    two_values: bool = True  # ± stands somewhere
    written: list[Node] = field(default_factory=list)  # every expression that was read

    def text(self, text: str) -> Value:
        """The value of an undressed text. Raises ValueError with the reason where it has none."""
        tokens = tokens_of(whole_degrees(text), grouped=not self.commas)
        if not tokens:
            raise ValueError("there is nothing")
        self.two_values = any(token.text in ("pm", "mp") for token in tokens)
        return self.value(tokens)

    def value(self, tokens: Sequence[Token]) -> Value:
        parts, joints = separated(tokens)
        if len(parts) > 1:
            return self._list(parts, joints)
        tokens = unbraced(parts[0])
        if not tokens:
            raise ValueError("there is nothing")
        if len(tokens) < len(parts[0]) and len(separated(tokens)[0]) > 1:
            return self._set(tokens, "\\}")
        endless = infinite(tokens)
        if endless:
            return Words("infinity", (endless,))
        if any(token.kind == "command" and token.text in _BIG for token in tokens):
            special = self._special(tokens)
            if special is not None:
                return special
        relations = top_level(tokens, lambda token: token.kind == "relation")
        colons = top_level(tokens, lambda token: token.text == ":") if self.gold and relations else []
        if len(colons) == 1:  # -2 <= n <= 4: [-2, 4] says it twice
            return self.value(tokens[colons[0] + 1 :])
        if relations:
            return self._related(tokens, relations)
        return self._bracketed(tokens) or self._quantity(tokens)

    def _list(self, parts: list[list[Token]], joints: list[str]) -> Value:
        if len(parts) > MAX_ITEMS:
            raise ValueError("it has too many items")
        items: list[Value] = []
        for part in parts:
            value = self.value(part)
            items += value.items if isinstance(value, Several) and value.form == "list" else [value]
        if set(joints) <= {"and", "land", "wedge"} and (both := intersection(items)):
            return both
        names = [item.name for item in items]
        if names[0] and not any(names[1:]):
            items = [renamed(item, "") for item in items]  # x = 1, -2
        elif names[0] and len(set(names)) == 1:
            items = [renamed(item, "") for item in items]
        if all(isinstance(item, Interval | Union) for item in items) and set(joints) & {"or", "lor", "vee", "或"}:
            return union(items)
        if not self.gold and repeats(items) and set(joints) & {"or", "and"}:
            raise ValueError("a value stands twice")
        return Several("list", tuple(items))

    def _special(self, tokens: Sequence[Token]) -> Value | None:
        r"""`\begin{…}`, `\cup`, `\in`, `\emptyset`, the real numbers."""
        cups = top_level(tokens, lambda token: token.text == "cup")
        membership = top_level(tokens, lambda token: token.kind == "command" and token.text == "in")
        if len(membership) == 1:
            at = membership[0]
            inner = self.value(tokens[at + 1 :])
            if not isinstance(inner, Interval | Union | Several):
                raise ValueError("a variable lies in no interval or set")
            return renamed(as_interval(inner), self._name_of(tokens[:at]) or "")
        if top_level(tokens, lambda token: token.kind == "relation"):
            return None
        if cups:
            return union([self.value(part) for part in split_at(tokens, cups)])
        if tokens[0].text in ("emptyset", "varnothing") and len(tokens) == 1:
            return Several("set", ())
        if [token.text for token in tokens] in (["mathbb", "{", "R", "}"], ["mathbb", "R"]):
            return Interval("()", None, None)
        if any(token.text == "begin" for token in tokens):
            return self._matrix(tokens)
        return None

    def _matrix(self, tokens: Sequence[Token]) -> Value:
        begin = next(i for i, token in enumerate(tokens) if token.text == "begin")
        end = next((i for i, token in enumerate(tokens) if token.text == "end"), -1)
        before, after = list(tokens[:begin]), list(tokens[end + 4 :])
        if end < begin + 4 or len(tokens) < end + 4 or tokens[begin + 1].text != "{":
            raise ValueError("a matrix is not closed")
        kind = tokens[begin + 2].text
        if before and before[-1].text in ("(", "[") and after and after[0].text in (")", "]"):
            before, after = before[:-1], after[1:]
        elif kind not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "psmallmatrix"):
            raise ValueError("the lines are no matrix")
        if after:
            raise ValueError("something stands behind the matrix")
        inner = list(tokens[begin + 4 : end])
        if kind == "array" and inner[:1] and inner[0].text == "{":
            inner = inner[closing(inner, 0) + 1 :]
        rows = [row for row in lines(inner) if row]
        name = ""
        if before and before[-1].text == "=":
            name, before = self._name_of(before[:-1]) or "", []
        factor = self._exact(before) if before else None
        cells = tuple(
            tuple(self._exact(cell) * factor if factor else self._exact(cell) for cell in split_on(row, "&"))
            for row in rows
        )
        if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MAX_ITEMS:
            raise ValueError("the rows of the matrix are not of one length")
        return Matrix(cells, name=name)

    def _exact(self, tokens: Sequence[Token]) -> Quotient:
        return self._evaluated(self._parsed(tokens))

    def _parsed(self, tokens: Sequence[Token]) -> Node:
        node = Parser(list(tokens), self.names, split=self.gold).whole()
        self.written.append(node)
        return node

    def _evaluated(self, node: Node, sign: int = 0) -> Quotient:
        if not sign and self.two_values and has_two_values(node):
            raise ValueError("± makes two values of it")
        normal = Normal(not self.gold, sign or 1, self.powers, self.functions, self.vulgar)
        return normal.of(node)

    def _related(self, tokens: Sequence[Token], relations: list[int]) -> Value:
        sides = split_at(tokens, relations)
        signs = [tokens[at].text for at in relations]
        if tokens[0].text == "=" and len(relations) == 1:
            return self.value(tokens[1:])
        if set(signs) == {"="}:
            return self._equation(sides)
        if len(signs) <= 2 and all(sides):
            return self._inequality(sides, signs)
        raise ValueError("it is no equation and no inequality")

    def _equation(self, sides: list[list[Token]]) -> Value:
        if not all(sides):
            raise ValueError("a side of the equation is missing")
        name = self._name_of(sides[0])
        if name is None or not self._is_told(sides[0], name):
            if len(sides) == 2 and self._name_of(sides[1]) and is_plain(sides[0]):
                return self._equation(sides[::-1])  # 5 = x
            return self._both_sides(sides)
        value = self.value(sides[-1])
        for side in sides[1:-1]:
            between = Reader(True, self.names, self.units, question=self.question).value(side)
            if not same(between, value):
                raise ValueError("the sides of the equation are not equal")
        if isinstance(value, Several) and value.form == "(" and name.startswith("("):
            return renamed(value, "")
        if isinstance(value, Number) and names_in(value.node):
            if name in names_in(value.node):
                return self._both_sides(sides)
            if name.isalpha():
                return Number(value.exact, value.node, generator("name", name) + -value.exact, name=name)
        return renamed(value, name)

    def _is_told(self, tokens: Sequence[Token], name: str) -> bool:
        """Whether the left side names something; a function of numbers does where the question asks for it."""
        plain = not any(token.kind in ("name", "word") for token in tokens)
        return self.gold or not (plain and any(token.kind == "function" for token in tokens)) or self._asked(name)

    def _both_sides(self, sides: list[list[Token]]) -> Value:
        if len(sides) != 2:
            if self.gold:
                return self.value(sides[-1])
            raise ValueError("it is a chain of equations")
        nodes = [self._parsed(unbraced(side)) for side in sides]
        if not any(names_in(node) for node in nodes):
            loose = Normal(strict=False)  # \log_4 8 = 3/2 says its last side
            if (self.gold or has_function(nodes[0])) and loose.of(nodes[0]) == loose.of(nodes[1]):
                return self.value(sides[1])
            raise ValueError("it is an equation of numbers")
        loose = Normal(strict=False)
        for node in nodes:
            if not self.gold:
                Normal(True, 1, True, True).of(node)
        exact = loose.of(nodes[0]) + -loose.of(nodes[1])
        if not exact.above:  # it holds for all values: worked out, it says its last side
            return self.value(sides[1])
        return Relation("=", exact)

    def _inequality(self, sides: list[list[Token]], signs: list[str]) -> Value:
        names = [self._name_of(side) for side in sides]
        if len(sides) == 3 and names[1]:
            left, right = signs
            if not {left, right} <= {"<", "<="} and not {left, right} <= {">", ">="}:
                raise ValueError("the two inequalities point different ways")
            low, high = (sides[0], sides[2]) if left[0] == "<" else (sides[2], sides[0])
            ends = (left, right) if left[0] == "<" else (right, left)
            brackets = ("[" if ends[0].endswith("=") else "(") + ("]" if ends[1].endswith("=") else ")")
            return Interval(brackets, self._bound(low), self._bound(high), name=names[1])
        if len(sides) != 2:
            raise ValueError("it is no inequality")
        if names[0] or (names[1] and is_plain(sides[0])):
            sign = signs[0] if names[0] else _FLIPPED.get(signs[0], signs[0])
            bound_tokens = sides[1] if names[0] else sides[0]
            node = self._parsed(bound_tokens)
            if not names_in(node) - {"k", "n"} or names[0]:
                return self._half(sign, self._evaluated(node), names[0] or names[1] or "")
        nodes = [self._parsed(side) for side in sides]
        exact = self._evaluated(nodes[0]) + -self._evaluated(nodes[1])
        sign = signs[0]
        if sign[0] == ">":
            sign, exact = _FLIPPED[sign], -exact
        return Relation(sign, exact)

    def _half(self, sign: str, bound: Quotient, name: str) -> Value:
        if sign == "!=":
            return Union((Interval("()", None, bound), Interval("()", bound, None)), name=name)
        if sign[0] == "<":
            return Interval("(" + ("]" if sign == "<=" else ")"), None, bound, name=name)
        return Interval(("[" if sign == ">=" else "(") + ")", bound, None, name=name)

    def _bound(self, tokens: Sequence[Token]) -> Quotient | None:
        texts = [token.text for token in tokens if token.text not in ("+", "-")]
        if texts == ["infty"]:
            return None
        tokens, _ = split_around(tokens, self.names, self.gold, self.units)
        return self._exact(tokens)

    def _bracketed(self, tokens: Sequence[Token]) -> Value | None:
        """Tuples, intervals, sets, ratios; None where the brackets only hold a value together."""
        opened = tokens[0].text
        if opened not in ("(", "[", "\\{", "langle") or closing(tokens, 0) != len(tokens) - 1:
            ratio = top_level(tokens, lambda token: token.text == ":")
            if ratio and len(ratio) < 4:
                return Several(":", tuple(self.value(part) for part in split_at(tokens, ratio)))
            return None
        closed = tokens[-1].text
        inner = tokens[1:-1]
        if opened == "\\{":
            return self._set(inner, closed)
        parts, joints = separated(inner)
        if len(parts) < 2:
            if opened == "[" and not self.gold and parts[0]:
                raise ValueError("one value in brackets is no interval")
            return None
        if set(joints) - {",", ";"} or len(parts) > MAX_ITEMS or not all(parts):
            raise ValueError("what stands in the brackets is no tuple")
        if len(parts) == 2 and opened != "langle":
            ends = [infinite(part) for part in parts]
            if any(ends) or opened + closed not in ("()", "[]"):
                low, high = (None if end else self._bound(part) for end, part in zip(ends, parts, strict=True))
                if (ends[0] and opened == "[") or (ends[1] and closed == "]") or ends[0] == "+" or ends[1] == "-":
                    raise ValueError("infinity belongs to no interval")
                return Interval(opened + closed, low, high)
        if opened + closed not in ("()", "[]", "langlerangle"):
            raise ValueError("the brackets do not belong together")
        return Several("(" if opened == "langle" else opened, tuple(self.value(part) for part in parts))

    def _set(self, inner: Sequence[Token], closed: str) -> Value:
        if closed != "\\}":
            raise ValueError("the brackets do not belong together")
        such = top_level(inner, lambda token: token.text in _SUCH_THAT)
        if such and self._name_of(before_in(inner[: such[0]])):
            value = self.value(inner[such[0] + 1 :])
            if not isinstance(value, Interval | Union | Several | Number | Relation):
                raise ValueError("what stands in the set is no condition")
            return value
        if not inner:
            return Several("set", ())
        parts, joints = separated(inner)
        if set(joints) - {",", ";"} or len(parts) > MAX_ITEMS:
            raise ValueError("what stands in the braces is no set")
        items = [self.value(part) for part in parts]
        if not self.gold and repeats(items):
            raise ValueError("an element of the set stands twice")
        if self.gold:
            items = [item for i, item in enumerate(items) if not any(same(item, other) for other in items[:i])]
        return Several("set", tuple(items))

    def _quantity(self, tokens: Sequence[Token]) -> Value:
        based = in_base(tokens)
        if based:
            return based
        sign: list[Token] = []
        if tokens[0].text in ("-", "+") and currency_before(tokens[1:])[1]:
            sign, tokens = [tokens[0]], tokens[1:]
        currency, used = currency_before(tokens)
        if tokens[0].text == "$" and len(tokens) > 1 and tokens[1].text == "{":
            raise ValueError("`${` begins no value")
        rest = [*sign, *tokens[used:]]
        head, around = split_around(rest, self.names, self.gold, self.units, self.units_by_letter)
        if currency:
            if around.percent or around.unit not in ((), ((currency, 1),)):
                raise ValueError("it has two units")
            around = Around(((currency, 1),), False, around.nouns)
        node = self._parsed(head)
        if self.two_values and has_two_values(node):
            if not self.gold and not self.commas:
                raise ValueError("± makes two values of it")
            both = [Number(self._evaluated(node, one), node, around=around) for one in (1, -1)]
            return Several("list", tuple(both))
        return Number(self._evaluated(node), node, around=around)

    def _name_of(self, tokens: Sequence[Token]) -> str | None:
        r"""What may stand before an equals sign as a name: `x`, `f(2)`, `\angle ABC`, `Area`, `(x, y)`, or what the
        question has word for word; None for anything else."""
        tokens = unbraced(tokens)
        if not tokens or len(tokens) > 40:
            return None
        text = "".join(token.text for token in tokens)
        if text[0] == "(" and all(token.kind == "name" or token.text in "(,)" for token in tokens):
            return text
        depth, letters = 0, False
        for at, token in enumerate(tokens):
            if token.text in ("(", "{", "[", "|"):
                depth += 1
            elif token.text in (")", "}", "]"):
                depth -= 1
            elif token.kind in ("name", "word", "function"):
                if token.kind == "word" and len(token.text) > 2 and not self._may_name(token.text):
                    return None
                if token.kind == "word" and token.text.islower() and not token.roman and len(token.text) == 2:
                    return text if self._asked(text) else None
                letters = letters or token.kind != "function" or at + 1 < len(tokens)
            elif token.text == "_":
                continue
            elif not depth and token.text not in ("'", ",", "angle", "triangle", "overline", "widehat", "hat"):
                if at and tokens[at - 1].text == "_":
                    continue
                if token.text == "^" and at + 2 < len(tokens) and tokens[at + 1].text in ("{", "-"):
                    continue  # f^{-1}(x)
                return text if letters and self._asked(text) else None
        return text if letters and depth >= 0 and tokens[0].text not in ("(", "{", "[") else None

    def _may_name(self, word: str) -> bool:
        return self.gold or word.isupper() or word.lower() in _MEASURED or word.lower() in self.question.casefold()

    def _asked(self, text: str) -> bool:
        asked = "".join(self.question.split()).replace("\\", "").replace("{", "").replace("}", "")
        return len(text) > 1 and text.replace("\\", "").replace("{", "").replace("}", "") in asked


_MEASURES = (
    "area perimeter volume total sum product answer probability length width height distance speed cost price time "
    "average mean median mode range radius diameter circumference slope det max min"
)
_MEASURED = frozenset(_MEASURES.split())
