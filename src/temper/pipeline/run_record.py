"""run.json: how far a run is and what it cost, replaced in one step whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from temper.artifacts import write_atomically
from temper.code.sandbox import tier_in_use
from temper.environment import versions
from temper.kernels import choice
from temper.masking import masked
from temper.planning.plan import Plan, StagePlan
from temper.record.cost import Cost, Meter
from temper.sealed import seal
from temper.text.template import DATE

FORMAT = 1


class Record:
    """The content of run.json. Costs add up over every process that worked on the run."""

    def __init__(self, plan: Plan, meter: Meter, command: Sequence[str], settings: Sequence[str]):
        self.plan, self.meter = plan, meter  # the meter of the whole process
        self.ran: set[str] = set()
        self.path = plan.folder.root / "run.json"
        before = plan.folder.record()
        self.overhead = Cost.read(before.get("overhead"))
        self.costs: dict[str, Cost] = {}  # of earlier processes, for the stages that go on
        old = before.get("stages")
        stages = self._entries(plan, old if isinstance(old, dict) else {})
        recipe = plan.recipe
        self.values: dict[str, Any] = {
            "format": FORMAT,
            "recipe": recipe.name,
            "note": recipe.note,
            "source": recipe.source.identity,
            "seed": recipe.seed,
            "threads": recipe.threads,
            "settings": list(settings),
            "command": list(command),
            "versions": versions(),
            "template_date": DATE.date().isoformat(),  # the day that chat templates are told
            "started": before.get("started") or _now(),
            "state": "running",
            "stages": stages,
            **self._rounds(plan),
        }
        for name in ("sandbox", "matmul"):
            if before.get(name):
                self.values[name] = before[name]

    def _entries(self, plan: Plan, old: dict[str, Any]) -> dict[str, Any]:
        """The entry of each stage of a plan; `old` are those of run.json as it is."""
        stages: dict[str, Any] = {}
        for planned in plan.stages:
            name = planned.stage.name
            entry = old.get(name)
            if not planned.runs:
                about = planned.manifest.about if planned.manifest else {}
                stages[name] = self._entry(planned, "done", Cost.read(about), about.get("steps"))
                continue
            goes_on = isinstance(entry, dict) and entry.get("fingerprint") == planned.fingerprint
            steps = entry.get("steps") if isinstance(entry, dict) and goes_on else None
            self.costs[name] = Cost.read(entry) if goes_on else Cost()
            stages[name] = self._entry(planned, "waiting", self.costs[name], steps)
        return stages

    def follow(self, plan: Plan) -> None:
        """Go on with another plan for the stages that have not run: a round has ended, and its block perhaps."""
        kept = self.values["stages"]
        made = {name: entry for name, entry in kept.items() if name in self.ran}
        self.plan = plan
        self.values |= {"stages": {**self._entries(plan, kept), **made}, **self._rounds(plan)}

    def _rounds(self, plan: Plan) -> dict[str, Any]:
        """What is known of blocks that have a rule."""
        found = {
            name: {"of": of.rounds, "what": of.what, "values": list(of.values), "why": of.why}
            for name, of in plan.verdicts.items()
        }
        return {"rounds": found} if found else {}

    def _entry(self, planned: StagePlan, state: str, cost: Cost, steps: Any) -> dict[str, Any]:
        stage = planned.stage
        return {
            "number": stage.number,
            "kind": stage.kind,
            "makes": stage.makes,
            "fingerprint": planned.fingerprint,
            "state": state,
            "steps": steps,
            **cost.as_dict(),
        }

    def cost(self, planned: StagePlan, meter: Meter) -> Cost:
        """What a stage cost so far, earlier processes included."""
        return self.costs[planned.stage.name] + meter.spent()

    def update(self, planned: StagePlan, state: str, cost: Cost, steps: int | None) -> None:
        """Write down how far a stage is."""
        self.ran.add(planned.stage.name)
        self.values["stages"][planned.stage.name] = self._entry(planned, state, cost, steps)
        self.save("running" if state in ("running", "done") else state)

    def save(self, state: str) -> None:
        """Replace run.json. The run's cost is that of its stages, and what the processes spent around them."""
        costs = {name: Cost.read(entry) for name, entry in self.values["stages"].items()}
        overhead = self.overhead
        if self.ran:
            here = sum((costs[name] - self.costs[name] for name in self.ran), Cost())
            overhead = overhead + (self.meter.spent() - here)
        total = sum(costs.values(), overhead)
        if tier := tier_in_use():
            self.values["sandbox"] = tier  # what held the programs that models wrote
        if products := choice.table():
            self.values["matmul"] = products  # the faster way for each shape, by which a run that goes on abides
        self.values |= {
            "state": state,
            "updated": _now(),
            "cpu_seconds": round(total.cpu_seconds, 3),
            "wall_seconds": round(total.seconds, 3),
            "peak_memory_bytes": total.peak_memory_bytes,
            "overhead": overhead.as_dict(),
        }
        write_atomically(self.path, seal("run.json", masked(self.values), indent=1) + b"\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
