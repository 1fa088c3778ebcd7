"""How an expression is written: what the final-form rules and the factored form ask of its tree."""

from __future__ import annotations

from temper.rewards.answers.parser import Node


def bare(node: Node) -> Node:
    """A node without the brackets around it."""
    while node[0] == "group":
        node = node[1]
    return node


def flat(node: Node) -> list[Node]:
    """The factors of a product, those of products in it too."""
    parts: list[Node] = []
    for part in node[1]:
        inner = bare(part)
        parts += flat(inner) if inner[0] == "mul" else [part]
    return parts


def is_number(node: Node) -> bool:
    """A plain number, or a sign, fraction or power made of plain numbers only."""
    if node[0] in ("num",):
        return True
    if node[0] in ("neg", "group"):
        return is_number(node[1])
    return node[0] == "div" and is_number(bare(node[1])) and is_number(bare(node[2]))


def is_decimal(node: Node) -> bool:
    """Whether it is a number that is neither whole nor a plain fraction."""
    return node[0] == "num" and node[2] in ("decimal", "mixed", "vulgar")


def is_scientific(parts: list[Node]) -> bool:
    r"""`1.5 \times 10^{-7}`: one digit before the point, then a power of ten."""
    if len(parts) != 2 or parts[0][0] != "num" or parts[1][0] != "pow":
        return False
    base = parts[1][1]
    return base[0] == "num" and base[1] == 10 and 1 <= parts[0][1] < 10


def has_sum(node: Node) -> bool:
    """Whether a sum stands inside it."""
    return any(isinstance(part, tuple) and (part[0] == "add" or has_sum(part)) for part in children(node))


def has_function(node: Node) -> bool:
    """Whether functions or factorials stand in it."""
    return node[0] in ("fn", "fact") or any(has_function(part) for part in children(node))


def has_number_power(node: Node) -> bool:
    """Whether a plain number is raised to a power in it that is no root."""
    if node[0] == "pow" and is_number(bare(node[1])) and not has_fraction(node[2]):
        return True
    return any(has_number_power(part) for part in children(node))


def has_fraction(node: Node) -> bool:
    """Whether it is written with a fraction."""
    if node[0] == "div" or (node[0] == "num" and node[2] in ("mixed", "vulgar")):
        return True
    return any(has_fraction(part) for part in children(node))


def names_in(node: Node) -> frozenset[str]:
    """The variables of an expression."""
    if node[0] == "name":
        return frozenset([node[1]])
    return frozenset().union(*(names_in(part) for part in children(node)))


def has_two_values(node: Node) -> bool:
    """Whether ± stands in it."""
    if node[0] == "add" and any(sign in "±∓" for sign, _ in node[1]):
        return True
    return any(has_two_values(part) for part in children(node))


def has_name(node: Node) -> bool:
    """Whether a variable stands in it."""
    return node[0] == "name" or any(has_name(part) for part in children(node))


def children(node: Node) -> list[Node]:
    """The expressions directly inside it."""
    kind = node[0]
    if kind in ("num", "name", "const"):
        return []
    if kind == "add":
        return [part for _, part in node[1]]
    if kind == "mul":
        return list(node[1])
    if kind == "fn":
        return list(node[2])
    return [part for part in node[1:] if isinstance(part, tuple)]


def factor_count(node: Node) -> int:
    """How many factors with a variable a product has, powers counted as often as they say; 1 for anything else.

    >>> x, one = ("name", "x"), ("num", 1, "int")
    >>> factor_count(("mul", (x, ("group", ("add", (("+", x), ("+", one))))))), factor_count(x)
    (2, 1)
    """
    node = bare(node)
    if node[0] == "neg":
        return factor_count(node[1])
    if node[0] == "mul":
        return max(1, sum(factor_count(part) for part in flat(node) if has_name(part)))
    if node[0] == "div":
        return factor_count(node[1])
    if node[0] == "pow" and bare(node[2])[0] == "num" and bare(node[2])[1].denominator == 1:
        return factor_count(node[1]) * max(1, min(int(bare(node[2])[1]), 50))
    return 1


def is_expanded(node: Node) -> bool:
    """Whether no sum stands inside a product or a power."""
    node = bare(node)
    if node[0] == "add":
        return all(is_expanded(part) for _, part in node[1])
    if node[0] == "neg":
        return is_expanded(node[1])
    if node[0] == "div":
        return is_expanded(node[1])
    return not has_sum(node)
