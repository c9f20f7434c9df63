"""Reports of findings: text for people, JSON for programs, and SARIF for code review."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from extproc import __version__
from extproc.gateways.findings import Finding, Findings
from extproc.gateways.traps import TRAPS
from extproc.gateways.traps.trap import Severity

__all__ = ["as_json", "as_sarif", "as_text"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(findings: Findings) -> str:
    """Return a paragraph for each finding, and a line with their number."""
    return "\n".join(_lines(findings))


def _lines(findings: Findings) -> Iterator[str]:
    for each in _sorted(findings.found):
        yield f"{each.place}: {each.trap.severity}: {each.what} [{each.trap.name}]"
        if each.place.line is not None and each.place.path:
            yield f"    at    {each.place.path}"
        yield f"    why   {each.trap.why}"
        yield f"    fix   {each.trap.fix}"
    for said in findings.unchecked:
        yield f"not checked: {said}"
    errors = sum(each.trap.severity is Severity.ERROR for each in findings.found)
    warnings = len(findings.found) - errors
    places = f"{findings.gateways} gateway{'s' if findings.gateways != 1 else ''}"
    if findings.found:
        yield f"{places}: {_count(errors, 'error')}, {_count(warnings, 'warning')} ({len(TRAPS)} traps checked)"
    else:
        yield f"{places}: none of {len(TRAPS)} traps"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda each: (each.trap.severity, each.place.source, each.place.line or 0))


def as_json(findings: Findings) -> str:
    """Return an object with `found`, `unchecked` and `gateways`."""
    found = [
        {
            "trap": each.trap.name,
            "severity": each.trap.severity,
            "source": each.place.source,
            "line": each.place.line,
            "path": each.place.path,
            "what": each.what,
            "why": each.trap.why,
            "fix": each.trap.fix,
        }
        for each in _sorted(findings.found)
    ]
    return json.dumps({"found": found, "unchecked": findings.unchecked, "gateways": findings.gateways}, indent=2)


def as_sarif(findings: Findings) -> str:
    """Return a SARIF 2.1.0 log with one run; every trap is a rule, whether it was found or not.

    What could not be checked are notifications of the run, since without results it would look as if it had been.
    """
    rules = [
        {
            "id": trap.name,
            "shortDescription": {"text": trap.name.replace("-", " ")},
            "fullDescription": {"text": trap.why},
            "help": {"text": trap.fix},
            "defaultConfiguration": {"level": trap.severity},
        }
        for trap in TRAPS
    ]
    driver = {"name": "dualpool check envoy", "version": __version__, "rules": rules}
    said = [{"level": "warning", "message": {"text": f"not checked: {each}"}} for each in findings.unchecked]
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": said}],
        "results": [_result(each) for each in _sorted(findings.found)],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _result(finding: Finding) -> dict[str, Any]:
    place = finding.place
    physical: dict[str, Any] = {"artifactLocation": {"uri": place.source}}
    if place.line is not None:
        physical["region"] = {"startLine": place.line}
    location: dict[str, Any] = {"physicalLocation": physical}
    if place.path:
        location["logicalLocations"] = [{"fullyQualifiedName": place.path}]
    trap = finding.trap
    return {
        "ruleId": trap.name,
        "ruleIndex": [each.name for each in TRAPS].index(trap.name),
        "level": trap.severity,
        "message": {"text": f"{finding.what}. {trap.why} Fix: {trap.fix}"},
        "locations": [location],
    }
