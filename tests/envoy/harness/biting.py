"""Envoys that have a trap, and helpers to send requests to them.

The patches are the same ones in which the unit tests require the checker to find the trap. So the checker cannot
drift away from what Envoy really does.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, envoy_binary, route, virtual_host
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import chat_body

__all__ = ["BODY", "NO_HEADERS", "SLOW", "Bitten", "action_with", "post", "refusal", "retry_with", "with_variants"]

JSON = {"content-type": "application/json"}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
SLOW = {"x-emulate-fault": "slow=0.5"}
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)

Bitten = Callable[..., Caller]


def post(caller: Caller, body: bytes = BODY, headers: Mapping[str, str] = NO_HEADERS) -> httpx.Response:
    """Send the body, unchanged, as a chat request."""
    return caller.http.post("/v1/chat/completions", content=body, headers={**JSON, **headers})


def refusal(document: Document, folder: Path) -> str:
    """Return the output with which Envoy rejects a configuration."""
    path = folder / "envoy.json"
    path.write_text(json.dumps(document))
    command = [envoy_binary(), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    return result.stdout + result.stderr


def with_variants(changes: Mapping[str, Callable[[Document], None]]) -> Callable[[Document], None]:
    """Insert a changed copy of the route `short` per change, for requests that name the change in `x-variant`."""

    def change(document: Document) -> None:
        routes, short = virtual_host(document)["routes"], route(document, "short")
        for name, edit in changes.items():
            variant = deepcopy(short)
            variant["name"] = name
            variant["match"]["headers"].append({"name": "x-variant", "string_match": {"exact": name}})
            edit(variant)
            routes.insert(routes.index(short), variant)

    return change


def retry_with(**fields: Any) -> Callable[[Document], None]:
    """Return a change that sets fields of a route's retry policy."""
    return lambda variant: variant["route"]["retry_policy"].update(fields)


def action_with(**fields: Any) -> Callable[[Document], None]:
    """Return a change that sets fields of a route's action."""
    return lambda variant: variant["route"].update(fields)
