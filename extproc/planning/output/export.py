"""The plan as JSON: dataclasses become objects, tuples become arrays, nan and infinity become null."""

from collections.abc import Sequence
from dataclasses import fields

import msgspec

from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import Costs
from extproc.planning.paper.reasons import reasons
from extproc.planning.paper.replay import PAPER_COSTS, Replay, WorkloadReplay
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["plan_json", "replay_json"]


def plan_json(plan: Plan, costs: Costs) -> str:
    """Return the plan as indented JSON; each simulated fleet has its `cost`, spares included."""
    return _json({**_fields(plan), "fleets": _with_costs(plan.fleets, costs)})


def replay_json(replay: Replay) -> str:
    """Return the replay as indented JSON, with the paper's figures and the reason for each difference."""
    workloads = [
        {
            **_fields(work),
            "paper_slots": _with_costs(work.paper_slots, PAPER_COSTS),
            "physical": _with_costs(work.physical, PAPER_COSTS),
        }
        for work in replay.workloads
    ]
    return _json({**_fields(replay), "workloads": workloads, "reasons": reasons(replay)})


def _with_costs(fleets: Sequence[FleetEstimate], costs: Costs) -> list[dict[str, object]]:
    return [{**_fields(fleet), "cost": costs.of(fleet)} for fleet in fleets]


def _fields(value: Plan | Replay | WorkloadReplay | FleetEstimate) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
