"""The JSON Schema of `dualpool plan --json`, generated from the plan's dataclasses."""

from typing import Any

import msgspec

from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import FleetCost

__all__ = ["plan_schema"]

TITLE = "dualpool plan --json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def plan_schema() -> dict[str, Any]:
    """Return the schema: every property is required, and a number that does not exist (nan, infinity) is null."""
    schema = msgspec.json.schema(Plan)
    definitions = schema["$defs"] | msgspec.json.schema(FleetCost)["$defs"]
    plan = definitions.pop("Plan")
    fleet = definitions["FleetEstimate"]
    fleet["properties"] |= {"cost": {"$ref": "#/$defs/FleetCost"}}
    for each in (plan, *definitions.values()):
        if "properties" in each:  # a definition without properties is an enumeration
            each |= {"required": list(each["properties"]), "additionalProperties": False}
    document: dict[str, Any] = _plain({"$schema": DIALECT, **plan, "title": TITLE, "$defs": definitions})
    return document


def _plain(value: Any) -> Any:  # noqa: ANN401  (a JSON value)
    """Return a value with one-line descriptions, without defaults (all fields are written), and with nullable
    numbers.
    """
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _plain(each) for key, each in value.items() if key != "default"}
    if plain.get("type") == "number":
        plain["type"] = ["number", "null"]
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(plain["description"].split())
    return plain
