"""Linked lists and trees that cross between a program and a test. A node that comes back is the one that was sent, with
what was changed in it. Imported by the guest's interpreter: standard library only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

KINDS = ("ListNode", "TreeNode")
MOST = 100_000  # nodes of one list or tree
Code = Callable[[Any], Any]


class Nodes:
    """The nodes that one end of a line knows, each by a name that both ends have for it."""

    def __init__(self, mine: str):
        self.mine = mine
        self.classes: dict[str, type] = {}
        self._known: dict[str, Any] = {}  # name -> node
        self._names: dict[int, str] = {}  # id of a node -> name

    def name(self, node: Any) -> str:
        if id(node) not in self._names:
            name = self._names[id(node)] = f"{self.mine}{id(node)}"
            self._known[name] = node
        return self._names[id(node)]

    def node(self, tag: str, name: str) -> Any:
        if name not in self._known:
            kind: Any = self.classes[tag]
            node = self._known[name] = kind.__new__(kind)
            self._names[id(node)] = name
        return self._known[name]

    def notation(self, value: Any, encode: Code) -> dict:
        """A list as its nodes in order and the one that comes after them (of a cycle); a tree by levels."""
        if type(value).__name__ == "ListNode":
            items: list[Any] = []
            seen: set[int] = set()
            while value is not None and id(value) not in seen and len(items) < MOST:
                seen.add(id(value))
                items.append([self.name(value), encode(value.val)])
                value = value.next
            return {"ListNode": [items, None if value is None else self.name(value)]}
        items, level = [], [value]
        while level and len(items) < MOST:
            items += [None if node is None else [self.name(node), encode(node.val)] for node in level]
            level = [child for node in level if node is not None for child in (node.left, node.right)]
        return {"TreeNode": [items, None]}

    def of(self, tag: str, inner: list, decode: Code) -> Any:
        """The first node of what the other end sent."""
        items, after = inner
        nodes = [None if item is None else self.node(tag, item[0]) for item in items]
        for node, item in zip(nodes, items, strict=True):
            if node is not None:
                node.val = decode(item[1])
        if tag == "ListNode":
            nodes.append(None if after is None else self.node(tag, after))
            for node, following in itertools.pairwise(nodes):
                node.next = following  # pyright: ignore[reportOptionalMemberAccess]
            return nodes[0]
        children = iter(nodes[1:])
        for node in nodes:
            if node is not None:
                node.left, node.right = next(children, None), next(children, None)
        return nodes[0] if nodes else None
