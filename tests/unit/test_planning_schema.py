"""The output of `dualpool plan --json` matches its schema."""

import json
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import main as command_line
from extproc.planning.output.schema import plan_schema
from tests.unit.planning_command import write_trace

KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
SCHEMA = plan_schema()


def faults(value: Any, schema: dict[str, Any], at: str = "plan") -> list[str]:
    """Return where a value violates a schema; supports the part of JSON Schema that this schema uses."""
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
    if "anyOf" in schema:
        return [] if any(not faults(value, each, at) for each in schema["anyOf"]) else [f"{at}: none of anyOf"]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is not in the enumeration"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "object" in kinds:
        keys = set(value) if isinstance(value, dict) else {"not an object"}
        if keys != set(schema["properties"]) or keys != set(schema["required"]):
            return [f"{at}: {sorted(keys ^ set(schema['properties']))}"]
        return [f for key in keys for f in faults(value[key], schema["properties"][key], f"{at}.{key}")]
    if "array" in kinds:
        if not isinstance(value, list):
            return [f"{at}: not an array"]
        items = schema.get("items") or {}
        each = schema.get("prefixItems") or [items] * len(value)
        if len(each) != len(value):
            return [f"{at}: {len(value)} items, not {len(each)}"]
        return [
            f for i, (one, of) in enumerate(zip(value, each, strict=True)) for f in faults(one, of, f"{at}[{i}]")
        ]
    right = any(isinstance(value, KINDS[kind]) and not (kind != "boolean" and value is True) for kind in kinds)
    return [] if right else [f"{at}: {value!r} is not {kinds}"]


@pytest.mark.parametrize("more", [(), ("--simulate", "--tune", "none", "--threshold", "4096", "--cache", "none")])
def test_a_plan_matches_the_schema(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan has exactly the schema's properties, with and without simulated fleets and a day."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    trace = str(write_trace(tmp_path / "t.csv"))
    question = ["plan", "--trace", trace, "--rate", "30", "--model", "llama-3-8b", "--gpu", "h100-80g", "--json"]
    day = tmp_path / "day.csv"
    day.write_text("hour,load\n" + "".join(f"{hour},{1 + hour % 3}\n" for hour in range(24)))
    short = (
        ["--requests", "2000", "--router", "oracle", "--balance", "full-scan", "--day-curve", str(day)]
        if more
        else []
    )
    assert command_line.main([*question, "--times", "roofline", *more, *short]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [] == faults(plan, SCHEMA)
    assert bool(more) == bool(plan["fleets"])


def test_a_violated_schema_is_detected() -> None:
    """The check itself detects an extra key, a missing one, and values of another type."""
    part = {"type": "object", "properties": {"a": {"type": ["number", "null"]}}, "required": ["a"]}
    assert [] == faults({"a": None}, part)
    assert ["plan: ['b']"] == faults({"a": 1, "b": 2}, part)
    assert ["plan: ['a']"] == faults({}, part)
    assert ["plan.a: 'x' is not ['number', 'null']"] == faults({"a": "x"}, part)
