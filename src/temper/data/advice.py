"""What is said where columns leave a choice or fit no shape. A mapping is offered only where it was tried and works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from temper.data.columns import Table, paths
from temper.data.findings import clip
from temper.data.names import AFTER, ELSEWHERE, NAMES, SHAPES, folded
from temper.data.rows import nearest
from temper.errors import Fault, TemperError


@dataclass(frozen=True)
class Offers:
    """Tries what would be offered: `attempt` gives the shape that more entries of `columns` lead to, or raises."""

    attempt: Callable[[Mapping[str, str]], str]

    def work(self, mappings: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
        """The mappings that settle the matter; where none alone does, all: each then settles its part of it."""
        tried: list[Mapping[str, str]] = [dict(mapping) for mapping in mappings]
        return [mapping for mapping in tried if self._works(mapping)] or tried

    def shape(self, mapping: Mapping[str, str]) -> str:
        """The shape that a mapping leads to, "" where it leads to none."""
        try:
            return self.attempt(mapping)
        except TemperError:
            return ""

    def _works(self, mapping: Mapping[str, str]) -> bool:
        return bool(self.shape(mapping))


def listed(present: Sequence[str]) -> str:
    shown = ", ".join(f"`{clip(name, 30)}`" for name in present[:12]) + (" …" if len(present) > 12 else "")
    return f"columns found: {shown or 'none'}"


def yaml(mapping: Mapping[str, str]) -> str:
    return "columns: {" + ", ".join(f"{role}: {_scalar(name)}" for role, name in mapping.items()) + "}"


def _scalar(name: str) -> str:
    """A column's name as YAML reads it back."""
    plain = name.replace("_", "").replace(".", "").replace("-", "").replace(" ", "").isalnum()
    told = name if len(name) <= 60 else clip(name)
    return told if plain and name[:1].isalpha() and name == name.strip() else '"' + told.replace('"', '\\"') + '"'


def no_role(role: str, known: Sequence[str], where: str) -> Fault:
    close = nearest(role, known)
    return Fault(
        f"`columns` maps `{clip(role)}`, which is no part of a row",
        where,
        f"what a column can be: {', '.join(known)}",
        f"did you mean `{close}`?" if close else "write `columns: {prompt: YOUR_COLUMN}`",
    )


def missing(role: str, name: str, table: Table, where: str) -> Fault:
    below = [path for row in table.rows[:20] for path in paths(dict(row.values))] if "." in name else []
    close = nearest(name, dict.fromkeys([*below, *table.columns]))
    fix = f"did you mean `{clip(close)}`?" if close else ""
    what = f"no column `{clip(name)}`, which `columns` gives for `{role}`"
    return Fault(what, where, listed(table.columns), fix)


def messages_and_prompt(
    messages: str, prompts: Sequence[str], wanted: Sequence[str], where: str, offers: Offers
) -> Fault:
    mappings = [{"messages": messages}] if "messages" in wanted else []
    if any("prompt" in SHAPES[name] for name in wanted):
        mappings += [{"prompt": prompt} for prompt in prompts]
        mappings += [{"prompt": messages}] if "messages" not in wanted else []
    fix = " or ".join(f"`{yaml(mapping)}`" for mapping in offers.work(mappings))
    both = (
        f"`{messages}` and `{prompts[0]}`" if len(prompts) == 1 else ", ".join(f"`{c}`" for c in (messages, *prompts))
    )
    what = f"ambiguous: the file has both {both}"
    return Fault(what, where, "each could be the prompt, and they are not the same", f"choose with {fix}")


def two_players(role: str, names: Sequence[str], where: str, offers: Offers | None) -> Fault:
    both = " and ".join(f"`{name}`" for name in names)
    mappings: list[Mapping[str, str]] = [{role: name} for name in names]
    settled = offers.work(mappings) if offers else mappings
    fix = "choose with " + " or ".join(f"`{yaml(mapping)}`" for mapping in settled)
    why = "two columns for one part of a row, and they are not the same"
    return Fault(f"ambiguous: {both} could each be the {role}", where, why, fix)


def many_shapes(fitting: Sequence[str], players: Mapping[str, Sequence[str]], where: str, offers: Offers) -> Fault:
    told = [f"{name} ({' + '.join(players[role][0] for role in SHAPES[name] if players[role])})" for name in fitting]
    fix = "choose with " + " or ".join(f"`--shape {name}`" for name in fitting)
    uses = Counter(role for name in fitting for role in SHAPES[name])
    own = [{role: players[role][0]} for role, count in uses.items() if count == 1 and players[role]]
    if settled := [mapping for mapping in own if offers.shape(mapping)]:
        fix += " (`temper check`), " + " or ".join(f"`{yaml(mapping)}`" for mapping in settled) + " (recipe)"
    return Fault("ambiguous: the columns fit more than one shape", where, " and ".join(told), fix)


def no_shape(
    table: Table, mapping: Mapping[str, str], wanted: Sequence[str], where: str, whole: Sequence[str], offers: Offers
) -> Fault:
    needs = ", or ".join(" + ".join(SHAPES[name]) for name in wanted)
    roles = {role: NAMES[role][1:] for name in wanted for role in SHAPES[name]}
    other = [f"{role} may be called {' or '.join(names[:3])}" for role, names in roles.items() if names]
    others = [] if mapping else [name for name in whole if name not in wanted]
    what = f"these are {others[0]} rows, and {' or '.join(wanted)} rows are needed" if others else "no known shape"
    why = "\n".join([listed(table.columns), f"needed: {needs}", "; ".join(other)]).rstrip("\n")
    return Fault(what, where, why, _guess(table, mapping, wanted, offers))


def _guess(table: Table, mapping: Mapping[str, str], wanted: Sequence[str], offers: Offers) -> str:
    """The mapping that would make the first shape fit, from names that are near or used elsewhere."""
    best: dict[str, str] = {}
    for name in wanted:
        guess: dict[str, str] = {}
        for role in SHAPES[name]:
            left = [column for column in _reachable(table) if column not in guess.values()]
            guess |= {role: column} if (column := _candidate(role, left, mapping, table)) else {}
        renamed = {role: column for role, column in guess.items() if mapping.get(role) != column}
        shorter = {role: column for role, column in renamed.items() if folded(column) not in _known(role)}
        for tried in (shorter, renamed):
            if len(guess) == len(SHAPES[name]) and tried and offers.shape(tried):
                return f"if that is what they are: `{yaml({**mapping, **tried})}`"
        best = best or shorter
    if best:
        return f"perhaps `{yaml(best)}`, and the other columns likewise"
    return "map the columns: `columns: {prompt: YOUR_COLUMN, …}`"


def _known(role: str) -> set[str]:
    return {*NAMES[role], *(name for names in AFTER.get(role, ()) for name in names)}


def _reachable(table: Table) -> list[str]:
    below = [path for row in table.rows[:20] for path in paths(dict(row.values))]
    return list(dict.fromkeys([*table.columns, *below]))


def _candidate(role: str, present: Sequence[str], mapping: Mapping[str, str], table: Table) -> str | None:
    if role in mapping:
        return mapping[role]
    usable = [column for column in present if column not in mapping.values() and table.can(column, role)]
    last = {folded(column.rpartition(".")[2]): column for column in reversed(usable)}
    names = (*NAMES[role], *(name for line in AFTER.get(role, ()) for name in line), *ELSEWHERE.get(role, ()))
    known = next((last[name] for name in names if name in last), None)
    alike = NAMES[role][:3] if role != "messages" else NAMES[role][:1]  # `conversation` is all too near to `question`
    return known or next((close for name in alike if (close := nearest(name, usable))), None)
