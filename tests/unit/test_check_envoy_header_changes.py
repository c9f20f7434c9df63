"""`dualpool check envoy` on manifests that change headers of requests, by which retries are asked for."""

from typing import Final

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT, names_of

TRAP: Final = "retries-on-default-route"
REMOVED: Final = "          request_headers_to_remove: [x-envoy-retry-on, x-envoy-retry-grpc-on]\n"
LIMIT: Final = "            max_request_headers_kb: 96\n"
LONG: Final = "    - name: long\n"
VIRTUAL: Final = (
    "[{destination: {host: vllm-long.dualpool.svc.cluster.local, port: {number: 8000}}}]\n      # Explicit"
)
BACKEND: Final = "      backendRefs: [{name: vllm-long, port: 8000}]\n"
UNLIMITED: Final = "      # No limit on the whole response: a generation may take minutes.\n"
DUPLEX: Final = ("request: {body: Buffered}", "request: {body: FullDuplexStreamed}")
ASKS: Final = "set: [{name: x-envoy-retry-on, value: 5xx}]"
CHANGES: Final = [
    ("set: [{name: X-Envoy-Retry-On, value: 5xx}]", True),
    ("add: [{name: x-envoy-retry-grpc-on, value: cancelled}]", True),
    ("add: [{name: x-team, value: a}], remove: [x-envoy-retry-on]", False),
]


def modifier(said: str) -> str:
    """Return the filters of a rule or a backend that change headers so."""
    return f"filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{said}}}}}]"


def traps(gateway: str, *changes: tuple[str, str]) -> set[str]:
    """Return the traps in the manifests with these changes of their texts."""

    def change(text: str) -> str:
        for old, new in changes:
            text = text.replace(old, new)
        return text

    return names_of(gateway, change=change)


@pytest.mark.parametrize(("said", "asks"), CHANGES)
def test_a_rule_of_an_http_route(said: str, asks: bool) -> None:  # noqa: FBT001
    """What its filters add is added to the requests of its routes, after what a patch removes from those."""
    line = f"      {modifier(said)}\n"
    assert asks == (TRAP in traps("envoy gateway", DUPLEX, (UNLIMITED, line)))
    assert asks == (TRAP in traps("istio with the Gateway API", (LONG, LONG + line)))


@pytest.mark.parametrize(("said", "asks"), CHANGES)
@pytest.mark.parametrize("other", ["", ", {name: vllm-other, port: 8000}"])
def test_a_backend_of_an_http_route(said: str, other: str, asks: bool) -> None:  # noqa: FBT001
    """What is added for one backend comes before what the route removes, unless it is the only one."""
    long = "name: vllm-long}]\n" + UNLIMITED
    filtered = f"name: vllm-long, {modifier(said)}}}{other.replace(', port: 8000', '')}]\n"
    assert asks == (TRAP in traps("envoy gateway", DUPLEX, (long, filtered)))
    refs = f"      backendRefs: [{{name: vllm-long, port: 8000, {modifier(said)}}}{other}]\n"
    found = traps("istio with the Gateway API", (BACKEND, refs))
    assert (asks and not other) == (TRAP in found)
    assert asks == (TRAP in traps("istio with the Gateway API", (BACKEND, refs), (REMOVED, "")))


def test_other_filters_of_a_rule() -> None:
    """They leave what the one for headers changes."""
    rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.example}}]"
    line = f"      {modifier(ASKS)[:-1]}, {rewrite}\n"
    assert TRAP in traps("envoy gateway", DUPLEX, (UNLIMITED, line))


def test_backends_that_get_nothing() -> None:
    """What is added to their requests is added to none."""
    long = "name: vllm-long}]\n" + UNLIMITED
    unused = f"name: vllm-long}}, {{name: vllm-other, weight: 0, {modifier(ASKS)}}}]\n"
    assert TRAP not in traps("envoy gateway", DUPLEX, (long, unused))


@pytest.mark.parametrize("other", ["", ", {destination: {host: vllm-other}, weight: 1}"])
def test_a_destination_of_a_virtual_service(other: str) -> None:
    """Its changes are those of the route if it is the only one, and otherwise of its share of the requests."""
    headers = "headers: {request: {add: {x-envoy-retry-on: 5xx}}}, weight: 1"
    changed = VIRTUAL.replace("}}}]", f"}}}}, {headers}}}{other}]")
    assert (not other) == (TRAP in traps("istio", (VIRTUAL, changed)))
    assert TRAP in traps("istio", (VIRTUAL, changed), (REMOVED, ""))


@pytest.mark.parametrize(
    "headers", ["", "headers: {request: {remove: [x-envoy-retry-on, x-envoy-retry-grpc-on]}}"]
)
def test_a_virtual_service_that_removes_what_internal_clients_send(headers: str) -> None:
    """It may do so itself, instead of a patch."""
    trusting = (LIMIT, f"{LIMIT}            internal_address_config: {{}}\n")
    rule = f"{LONG}      {headers}\n" if headers else LONG
    found = traps("istio", trusting, (REMOVED, ""), (LONG, rule))
    assert ("retries-by-clients" in found) == (not headers)


def test_the_line_of_a_header() -> None:
    """The finding is where the header is."""
    request = "            x-team: a\n            x-envoy-retry-on: 5xx\n"
    rule = f"{LONG}      headers:\n        request:\n          set:\n{request}"
    texts = [path.read_text("utf-8").replace(LONG, rule) for path in sorted(ROOT.glob(DEPLOYED["istio"][0]))]
    documents = [each for number, text in enumerate(texts) for each in read(text, f"{number}.yaml")]
    router = Router()
    found = find_traps(read_gateways(documents, router).gateways, router).found
    lines = ["", *texts[1].splitlines()]
    assert [(TRAP, "            x-envoy-retry-on: 5xx")] == [
        (each.trap.name, lines[each.place.line or 0]) for each in found
    ]
