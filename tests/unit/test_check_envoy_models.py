"""`dualpool check envoy` on a host for each model, next to one for all models."""

import json
from copy import deepcopy

import pytest

from extproc.config.loading import parse
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES, Document, connection_manager, load, virtual_host
from tests.traps.finding import found_in, names_in

CONFIGURATION = (FILES / "two-models" / "dualpool.yaml").read_text("utf-8")
LARGEST = {"a": "pool_a_long", "b": "pool_b_long"}


def host_of(document: Document, model: str) -> Document:
    """Return a host with the routes to the pools of one model, the largest of which is the default."""
    host = deepcopy(virtual_host(document)) | {"name": model, "domains": [f"{model}.example"]}
    others = [f"{other}_{pool}" for other in LARGEST.keys() - {model} for pool in ("short", "long")]
    host["routes"] = [each for each in host["routes"] if each["name"] not in others or not headers(each)]
    for each in host["routes"]:
        if "x-token-budget-pool" not in headers(each):
            each["route"]["cluster"] = LARGEST[model]
    return host


def headers(route: Document) -> list[str]:
    """Return the names of the headers on which a route depends."""
    return [each["name"] for each in route["match"].get("headers", [])]


def a_host_for_each() -> Document:
    """Return the example of two models, each on a host of its own."""
    document = load("two-models/envoy")
    hosts = [host_of(document, model) for model in LARGEST]
    connection_manager(document)["route_config"]["virtual_hosts"] = hosts
    return document


def test_a_host_for_each_model_needs_its_pools_only() -> None:
    """What the router sends elsewhere does not arrive there, and its default is the largest pool of its model."""
    assert set() == names_in(a_host_for_each(), Router(parse(CONFIGURATION)))


@pytest.mark.parametrize(
    ("model", "default", "found"),
    [("a", "pool_a_short", "default-route-not-largest"), ("b", "pool_b_short", "default-route-not-largest")],
)
def test_such_a_host_has_a_largest_pool(model: str, default: str, found: str) -> None:
    """Its default route to a smaller one is found, as on a host for all."""
    document = a_host_for_each()
    (host,) = (
        each for each in connection_manager(document)["route_config"]["virtual_hosts"] if each["name"] == model
    )
    for each in host["routes"]:
        if not headers(each):
            each["route"]["cluster"] = default
    assert {found} == names_in(document, Router(parse(CONFIGURATION)))


def test_pools_that_name_no_models_belong_to_every_host() -> None:
    """They may serve whatever arrives."""
    document = a_host_for_each()
    sizes = {"a-short": 8192, "b-short": 8193, "b-long": 65536, "a-long": 131072}
    pools = [{"name": name, "max_budget_tokens": size} for name, size in sizes.items()]
    router = Router(parse(json.dumps({"pools": pools})))
    missing = {each.what for each in found_in(json.dumps(document), router) if "no reachable" in each.what}
    assert 3 == len(missing)
