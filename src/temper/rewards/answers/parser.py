r"""Expressions out of tokens: nested tuples `(operation, …)`, nothing computed.

("num", Fraction, how)      how: "int", "decimal", "mixed", "vulgar"
("name", "x_1")             variables; ("const", "pi" | "e" | "i" | "infty")
("add", ((sign, node), …))  sign: "+", "-", or "±" and "∓" for two values
("mul", (node, …))  ("div", above, below)  ("pow", base, exponent)  ("root", degree, node)
("neg", node)  ("group", node)  ("fact", node)  ("fn", name, nodes)
"""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import Any

from temper.rewards.answers.ring import TooLarge
from temper.rewards.answers.tokens import END, Token, is_product

MAX_DEPTH = 30  # of brackets in brackets
Node = tuple[Any, ...]

_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_COMMAND_BRACKETS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_ACCENTS = frozenset({"dot", "ddot", "hat", "bar", "tilde"})
_FACTOR_COMMANDS = (
    frozenset({"frac", "sqrt", "pi", "binom", "infty", "lfloor", "lceil", "dbinom", "tbinom", "imath"}) | _ACCENTS
)
_TIMES = frozenset({"cdot", "times"})


class Parser:
    """Reads one expression from `tokens`, as far as it goes; `at` is where it stopped.

    `names` are letters known as variables: a run of them, as in `2ab`, is a product; with `split` any short run is.
    """

    def __init__(self, tokens: list[Token], names: Collection[str] = (), split: bool = False):
        self.tokens = tokens
        self.names = names
        self.split = split
        self.at = 0
        self.depth = 0
        self.bars = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else END

    def whole(self) -> Node:
        """All tokens as one expression. Raises ValueError where something is left."""
        node = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"`{self.next.text}` stands behind the value")
        return node

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge("it is nested too deeply")
        terms: list[tuple[str, Node]] = []
        while True:
            sign = self._sign()
            if terms and not sign:
                break
            terms.append((sign or "+", self.term()))
        self.depth -= 1
        if len(terms) == 1:
            sign, node = terms[0]
            return node if sign == "+" else ("neg", node) if sign == "-" else ("add", tuple(terms))
        return ("add", tuple(terms))

    def _sign(self) -> str:
        token = self.next
        if token.text in ("+", "-"):
            self.at += 1
            return token.text
        if token.kind == "command" and token.text in ("pm", "mp"):
            self.at += 1
            return "±" if token.text == "pm" else "∓"
        return ""

    def term(self) -> Node:
        factors = [self.factor()]
        while True:
            token = self.next
            if token.text == "*" or (token.kind == "command" and token.text in _TIMES):
                self.at += 1
                factors.append(self.factor())
            elif token.text == "/" or (token.kind == "command" and token.text == "div"):
                self.at += 1
                factors = [("div", _product(factors), self._implicit())]
            elif self._starts_factor(token):
                if token.kind in ("number", "vulgar") and factors[-1][0] != "group":
                    raise ValueError("two values stand side by side")
                factors.append(self.factor())
            else:
                return _product(factors)

    def _implicit(self) -> Node:
        """The divisor behind a `/`: one factor, with a variable behind a number taken along, as in `3/2x`? No: one."""
        if self.next.text == "-":
            self.at += 1
            return ("neg", self.factor())
        return self.factor()

    def _starts_factor(self, token: Token) -> bool:
        kind = token.kind
        if kind in ("number", "vulgar", "name", "function"):
            return not token.roman or kind != "name" or token.text in self.names or token.text in ("i", "e")
        if kind == "command":
            return token.text in _FACTOR_COMMANDS
        if kind == "word":
            return self._splits(token)
        return token.text in ("(", "{", "[") or (token.text == "|" and not self.bars)

    def _splits(self, token: Token) -> bool:
        if token.roman or not token.text.isascii():
            return False
        return all(letter in self.names for letter in token.text) or (self.split and is_product(token.text))

    def factor(self) -> Node:
        base = self.atom()
        while True:
            text = self.next.text
            if text == "^":
                if base[0] == "mul_letters":
                    *rest, last = base[1]
                    self.at += 1
                    base = ("mul", (*rest, ("pow", last, self.argument())))
                    continue
                if self._is_degree():
                    self.at += 2 if self.tokens[self.at + 1].text != "{" else 4
                    base = ("mul", (base, ("const", "deg")))
                    continue
                self.at += 1
                base = ("pow", base, self.argument())
            elif text == "!" and base[0] != "mul_letters":
                self.at += 1
                base = ("fact", base)
            else:
                return ("mul", base[1]) if base[0] == "mul_letters" else base

    def _is_degree(self) -> bool:
        ahead = self.tokens[self.at + 1 : self.at + 3]
        return any(token.text in ("circ", "degree", "prime") for token in ahead[:1]) or (
            len(ahead) == 2 and ahead[0].text == "{" and ahead[1].text in ("circ", "degree", "prime")
        )

    def argument(self) -> Node:
        """What a command or a `^` applies to: a group in braces, or one digit, letter or command."""
        token = self.next
        if token.text == "{":
            return self._bracketed()
        if token.text == "(":
            return self._bracketed()
        if token.text in ("-", "+"):
            self.at += 1
            inner = self.argument()
            return ("neg", inner) if token.text == "-" else inner
        if token.kind == "number":
            if len(token.text) > 1 and token.text.isdigit():
                return self._first_digit(token)
            self.at += 1
            return ("num", token.value, "int" if token.text.isdigit() else "decimal")
        node = self.atom()
        return ("mul", node[1]) if node[0] == "mul_letters" else node

    def _first_digit(self, token: Token) -> Node:
        r"""`\frac12`: one digit of a number; the rest stays. A power `2^10` is read whole."""
        if self.at and self.tokens[self.at - 1].text == "^":
            self.at += 1
            return ("num", token.value, "int")
        first, rest = token.text[0], token.text[1:]
        self.tokens = [
            *self.tokens[: self.at],
            Token("number", first, Fraction(int(first)), token.spaced),
            Token("number", rest, Fraction(int(rest)), False),
            *self.tokens[self.at + 1 :],
        ]
        self.at += 1
        return ("num", Fraction(int(first)), "int")

    def atom(self) -> Node:
        token = self.next
        kind = token.kind
        if kind == "number":
            return self._number(token)
        if kind == "vulgar":
            self.at += 1
            return ("num", token.value, "vulgar")
        if kind == "name":
            return self._name(token)
        if kind == "function":
            return self._function(token)
        if kind == "command":
            return self._command(token)
        if kind == "word" and self._splits(token):
            self.at += 1
            return ("mul_letters", tuple(_letter(letter, self.names) for letter in token.text))
        if token.text in _BRACKETS:
            return self._bracketed()
        if token.text == "|":
            self.at += 1
            self.bars += 1
            inner = self.sum()
            self.bars -= 1
            self._expect("|")
            return ("fn", "abs", (inner,))
        raise ValueError(f"`{token.text}` is no value" if token.text else "a value is missing")

    def _number(self, token: Token) -> Node:
        self.at += 1
        if token.text.isdigit():
            part = self._mixed_part()
            if part is not None:
                assert token.value is not None
                return ("num", token.value + part, "mixed") if token.value else _refuse("a mixed number begins with 0")
        how = "int" if "." not in token.text else "decimal"
        if (
            token.text[-1:].isdigit()
            and "e" in token.text.lower()
            and not 1 <= float(token.text.lower().partition("e")[0]) < 10
        ):
            how = "unscaled"
        return ("num", token.value, how)

    def _mixed_part(self) -> Fraction | None:
        r"""The proper fraction behind a whole number: `\frac{3}{4}`, ` 3/4`, `¾`."""
        token = self.next
        if token.kind == "vulgar":
            self.at += 1
            return token.value
        start = self.at
        if token.kind == "command" and token.text == "frac":
            self.at += 1
            above, below = self.argument(), self.argument()
        elif token.kind == "number" and token.spaced and self.at + 2 < len(self.tokens) and self._over(self.at + 1):
            above, below = ("num", token.value, "int"), ("num", self.tokens[self.at + 2].value, "int")
            self.at += 3
        else:
            return None
        above, below = _plain(above), _plain(below)
        if above is not None and below is not None and 0 < above < below:
            if Fraction(above, below).denominator != below:
                _refuse("the fraction of a mixed number is not in lowest terms")
            return Fraction(above, below)
        if above is not None and below is not None:
            _refuse("two values stand side by side")
        self.at = start
        return None

    def _over(self, at: int) -> bool:
        return self.tokens[at].text == "/" and self.tokens[at + 1].kind == "number"

    def _name(self, token: Token) -> Node:
        self.at += 1
        name = token.text
        if name in ("e", "i") and name not in self.names and self.next.text != "_":
            return ("const", name)
        if self.next.text == "_":
            self.at += 1
            name += "_" + self._subscript()
        if (at_number := self._at_number(name)) in self.names or (at_number and self.split):
            self.at += 3
            return ("name", at_number)
        primes = 0
        while self.next.text == "'":
            primes += 1
            self.at += 1
        return ("name", name + "'" * primes)

    def _at_number(self, name: str) -> str:
        """`I(0)`, a function's value at a number, where that stands next; else \"\"."""
        ahead = self.tokens[self.at : self.at + 3]
        if [token.text for token in ahead[::2]] != ["(", ")"] or ahead[1].kind != "number" or ahead[0].spaced:
            return ""
        return f"{name}({ahead[1].text})"

    def _subscript(self) -> str:
        token = self.next
        self.at += 1
        if token.text != "{":
            return token.text
        parts: list[str] = []
        while self.next.text != "}":
            if self.next is END:
                raise ValueError("a bracket is not closed")
            parts.append(self.next.text)
            self.at += 1
        self.at += 1
        return "".join(parts)

    def _function(self, token: Token) -> Node:
        self.at += 1
        name, base, exponent = token.text, None, None
        for _ in range(2):
            if self.next.text == "_":
                self.at += 1
                base = self.argument()
            elif self.next.text == "^" and not self._is_degree():
                self.at += 1
                exponent = self.argument()
        if exponent == ("neg", ("num", Fraction(1), "int")) or exponent == ("group", ("neg", ("num", 1, "int"))):
            name, exponent = "arc" + name, None
        inner = self._function_argument()
        node: Node = ("fn", name, (inner,) if base is None else (inner, base))
        return node if exponent is None else ("pow", node, exponent)

    def _function_argument(self) -> Node:
        if self.next.text in ("(", "[", "{", "|"):
            node = self.factor()
            if node[0] != "group" or self.next.text in ("^",):
                return node
            inner = [node[1]]
            return inner[0]
        factors = [self.factor()]
        while self._starts_factor(self.next) and self.next.kind not in ("function", "number") and self.next.text != "(":
            factors.append(self.factor())
        if self.next.text == "/" and len(factors) == 1:
            self.at += 1
            return ("div", factors[0], self.factor())
        return _product(factors)

    def _command(self, token: Token) -> Node:
        name = token.text
        self.at += 1
        if name == "frac":
            return ("div", self.argument(), self.argument())
        if name == "sqrt":
            return self._root()
        if name in _ACCENTS:
            inner = self.argument()
            if inner[0] != "name":
                raise ValueError(f"`\\{name}` stands over no variable")
            return ("name", f"{name}:{inner[1]}")
        if name in ("pi", "infty"):
            return ("const", name)
        if name == "imath":
            return ("const", "i")
        if name in ("binom", "dbinom", "tbinom"):
            return ("fn", "binom", (self.argument(), self.argument()))
        if name in _COMMAND_BRACKETS:
            closing, function = _COMMAND_BRACKETS[name]
            inner = self.sum()
            self._expect(closing)
            return ("fn", function, (inner,))
        raise ValueError(f"`\\{name}` is no part of a value")

    def _root(self) -> Node:
        degree: Node = ("num", Fraction(2), "int")
        if self.next.text == "[":
            self.at += 1
            degree = self.sum()
            self._expect("]")
        return ("root", degree, self.argument())

    def _bracketed(self) -> Node:
        opened = self.next.text
        self.at += 1
        bars, self.bars = self.bars, 0
        inner = self.sum()
        if opened == "{" and self.next.kind == "command" and self.next.text == "over":
            self.at += 1
            inner = ("div", inner, self.sum())
        self.bars = bars
        self._expect(_BRACKETS[opened])
        return inner if opened == "{" else ("group", inner)

    def _expect(self, closing: str) -> None:
        if self.next.text != closing:
            raise ValueError(f"`{closing}` is missing")
        self.at += 1


def _letter(letter: str, names: Collection[str]) -> Node:
    return ("const", letter) if letter in ("e", "i") and letter not in names else ("name", letter)


def _product(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else ("mul", tuple(factors))


def _plain(node: Node) -> int | None:
    return int(node[1]) if node[0] == "num" and node[2] == "int" and node[1].denominator == 1 else None


def _refuse(why: str) -> Any:
    raise ValueError(why)
