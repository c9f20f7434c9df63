"""Checks of the manifests in the pages about gateways that cannot run in the tests.

Allowed fields and values are those of the gateways' own API types: kgateway's ExtProcProvider, ProcessingMode and
ListenerPolicy, and agentgateway's extProc with its processing options.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc.config.schema import Configuration
from extproc.gateways.render.numbers import Mode, Numbers
from tests.unit.chart import HELM, NO_HELM, rendered

ROOT = Path(__file__).parents[2]
NUMBERS = Numbers(Configuration(), Mode.BUFFERED)
SENT = {"DEFAULT", "SEND", "SKIP"}
BODIES = {"NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"}
EXT_PROC = {
    *(
        "grpcService",
        "failOpen",
        "processingMode",
        "allowProcessingModeOverride",
        "allowedProcessingModeOverrides",
    ),
    *("messageTimeout", "maxMessageTimeout", "statPrefix", "routeCacheAction", "metadataOptions"),
}
AGENT_EXT_PROC = {
    *(
        "backendRef",
        "failureMode",
        "requestAttributes",
        "responseAttributes",
        "metadataContext",
        "processingOptions",
    ),
}
AGENT_BODIES = {"None", "Buffered", "BufferedPartial", "FullDuplexStreamed"}


def manifests(page: str) -> dict[str, dict[str, Any]]:
    """Return the manifests of a page by their kind."""
    text = (ROOT / "docs" / "gateways" / f"{page}.md").read_text("utf-8")
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    found = [each for block in blocks for each in YAML(typ="safe", pure=True).load_all(textwrap.dedent(block))]
    return {each["kind"]: each for each in found if "kind" in each}


@pytest.mark.parametrize("page", ["kgateway", "agentgateway"])
def test_the_default_route_is_the_long_pool(page: str) -> None:
    """Only the router's header leads to the short pool, and the catch-all rule comes last."""
    short, long = manifests(page)["HTTPRoute"]["spec"]["rules"]
    assert [{"name": NUMBERS.set_headers[0], "value": NUMBERS.smaller_pools[0].name}] == short["matches"][0][
        "headers"
    ]
    assert [{"path": {"type": "PathPrefix", "value": "/"}}] == long["matches"]
    assert ["vllm-short", "vllm-long"] == [rule["backendRefs"][0]["name"] for rule in (short, long)]


def test_kgateway_has_the_settings_of_the_tested_files() -> None:
    """Modes, timeout and failing open are as in envoy/buffered.yaml, in fields that kgateway's API has."""
    settings = manifests("kgateway")["GatewayExtension"]["spec"]["extProc"]
    assert set(settings) <= EXT_PROC
    modes = settings["processingMode"]
    assert ("BUFFERED", "STREAMED") == (modes["requestBodyMode"], modes["responseBodyMode"])
    assert {modes[f"{each}BodyMode"] for each in ("request", "response")} <= BODIES
    assert {value for key, value in modes.items() if "Body" not in key} <= SENT
    assert (True, "FromResponse") == (settings["failOpen"], settings["routeCacheAction"])
    assert f"{NUMBERS.message_timeout.total_seconds() * 1000:.0f}ms" == settings["messageTimeout"]
    policy = manifests("kgateway")["TrafficPolicy"]["spec"]
    assert {"extensionRef": {"name": "dualpool"}} == policy["extProc"]
    listener = manifests("kgateway")["ListenerPolicy"]["spec"]["default"]
    assert list(NUMBERS.set_headers) == listener["httpSettings"]["earlyRequestHeaderModifier"]["remove"]
    assert NUMBERS.buffer_bytes < listener["perConnectionBufferLimitBytes"] <= NUMBERS.body_bytes


def test_agentgateway_calls_the_router_before_a_route_is_chosen() -> None:
    """The filter runs before routing, in full duplex with trailers, and fails open, in fields that its API has."""
    traffic = manifests("agentgateway")["AgentgatewayPolicy"]["spec"]["traffic"]
    assert ("PreRouting", "FailOpen") == (traffic["phase"], traffic["extProc"]["failureMode"])
    assert set(traffic["extProc"]) <= AGENT_EXT_PROC
    options = traffic["extProc"]["processingOptions"]
    assert {"FullDuplexStreamed"} == {value for key, value in options.items() if "Body" in key} & AGENT_BODIES
    assert {"Send"} == {value for key, value in options.items() if "Body" not in key}


@pytest.mark.skipif(HELM is None, reason=NO_HELM)
def test_the_pages_use_the_service_of_the_chart() -> None:
    """The Service and its port are those of the chart."""
    (port, *_) = rendered()["Service", "dualpool"]["spec"]["ports"]
    references = (
        manifests("kgateway")["GatewayExtension"]["spec"]["extProc"]["grpcService"]["backendRef"],
        manifests("agentgateway")["AgentgatewayPolicy"]["spec"]["traffic"]["extProc"]["backendRef"],
    )
    assert [{"name": "dualpool", "port": port["port"]}] * 2 == list(references)
