"""The plan as JSON: every dataclass as an object, tuples as arrays, nan as null."""

import msgspec

from extproc.planning.paper import Replay
from extproc.planning.paper_reasons import reasons
from extproc.planning.plan import Plan

__all__ = ["plan_json", "replay_json"]


def plan_json(plan: Plan) -> str:
    """Return the whole plan as indented JSON."""
    return _json(plan)


def replay_json(replay: Replay) -> str:
    """Return the replay as indented JSON, with the paper's figures and the reasons for each difference."""
    return _json({**msgspec.to_builtins(replay), "reasons": reasons(replay)})


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
