"""The plan as JSON: every dataclass as an object, tuples as arrays, nan as null."""

import msgspec

from extproc.planning.plan import Plan

__all__ = ["plan_json", "to_json"]


def plan_json(plan: Plan) -> str:
    """Return the whole plan as indented JSON."""
    return to_json(plan)


def to_json(value: object) -> str:
    """Return dataclasses as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
