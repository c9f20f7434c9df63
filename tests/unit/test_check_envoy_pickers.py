"""`dualpool check envoy` on other ext_proc filters before the router's: which of them choose endpoints."""

from copy import deepcopy
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, cluster, load
from tests.traps.bitten_chain import KINDS, endpoint_picker, insert, taking_endpoints
from tests.traps.finding import names_in


def asked_first(document: Document, **settings: Any) -> None:
    """Ask another server before the router, such as one that checks prompts or keeps a record of them."""
    insert(document, "guardrails", "ext_proc.v3.ExternalProcessor", before=True, **settings)
    held = deepcopy(cluster(document, "dualpool")) | {"name": "guardrails"}
    held["load_assignment"]["cluster_name"] = "guardrails"
    document["static_resources"]["clusters"].append(held)


ASKED: Document = {"grpc_service": {"envoy_grpc": {"cluster_name": "guardrails"}}, "failure_mode_allow": True}
WHOLE: Document = {"processing_mode": {"request_body_mode": "BUFFERED"}}
DUPLEX: Document = {
    "processing_mode": {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
}
BY_OTHERS: Document = {
    "name": "envoy.load_balancing_policies.override_host",
    "typed_config": {"@type": f"{KINDS}.load_balancing_policies.override_host.v3.OverrideHost"},
}


@pytest.mark.parametrize(
    ("settings", "policy", "found"),
    [
        (WHOLE, None, set()),
        (DUPLEX | {"observability_mode": True}, BY_OTHERS, set()),
        (WHOLE, BY_OTHERS, {"endpoint-picker-before"}),
        (DUPLEX, None, set()),
        (DUPLEX, BY_OTHERS, {"endpoint-picker-before"}),
    ],
)
def test_a_server_that_is_asked_before_the_router(settings: Document, policy: Any, found: set[str]) -> None:
    """It may be an endpoint picker only if a pool of the router takes endpoints from filters."""
    document = load("streamed")
    asked_first(document, **ASKED, **settings)
    if policy:
        held = cluster(document, "pool_short")
        del held["lb_policy"]
        held["load_balancing_policy"] = {"policies": [{"typed_extension_config": policy}]}
    assert found == names_in(document)


def test_a_server_that_is_asked_before_the_router_and_a_picker_after_it() -> None:
    """One that reads the model from the body comes first, as of the Gateway API's inference extension."""
    document = load("streamed")
    endpoint_picker(document, "picker", before=False)
    asked_first(document, **ASKED, **DUPLEX)
    taking_endpoints(document)
    assert "endpoint-picker-before" not in names_in(document)


def test_pools_of_others_that_take_endpoints() -> None:
    """An InferencePool of another application does not make a picker of what the router's requests pass first."""
    document = load("streamed")
    asked_first(document, **ASKED, **DUPLEX)
    others = deepcopy(cluster(document, "pool_short")) | {"name": "other"}
    document["static_resources"]["clusters"].append(others)
    del others["lb_policy"]
    others["load_balancing_policy"] = {"policies": [{"typed_extension_config": BY_OTHERS}]}
    assert set() == names_in(document)


def test_pools_that_are_not_in_the_input() -> None:
    """Where nothing is known of the pools, a filter before the router's may be their picker."""
    document = load("streamed")
    asked_first(document, **ASKED, **DUPLEX)
    resources = document["static_resources"]
    resources["clusters"] = [each for each in resources["clusters"] if each["name"] in {"dualpool", "guardrails"}]
    assert "endpoint-picker-before" in names_in(document)
