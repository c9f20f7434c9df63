"""The output of `dualpool plan --json` matches its schema; options that would have no effect are refused."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import main as command_line
from extproc.cli.plan_simulation import add_simulation_options
from extproc.planning.output.schema import plan_schema
from tests.unit.planning_command import refusal_of, write_trace

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


@pytest.mark.parametrize("more", [(), ("--simulate", "--tune", "none", "--threshold", "4096")])
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
    assert command_line.main([*question, "--cache", "none", "--times", "roofline", *more, *short]) == 0
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


def options() -> list[tuple[str, list[str]]]:
    """Return the options that only a simulation uses, each with a value that is not its default."""
    parser = argparse.ArgumentParser()
    add_simulation_options(parser)
    found = []
    for action in parser._actions:
        if action.dest in {"help", "simulate", "cache"}:
            continue
        defaults = action.default if isinstance(action.default, list) else [action.default]
        values = [str(choice) for choice in action.choices or () if choice not in defaults]
        value = [] if action.nargs == 0 else [values[0] if values else "7"]
        found.append((action.option_strings[0], value))
    return found


@pytest.mark.parametrize(("option", "value"), options())
def test_options_of_the_simulation_are_refused_without_it(
    option: str, value: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This covers options that are added later, too: none is silently ignored."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    message = refusal_of(["--mean-tokens", "100,100", "--rate", "9", option, *value], capsys)
    assert f"{option}: is only used with --simulate" in message
