"""`dualpool check envoy` on filters that hold whole bodies: ext_authz with bodies, beside the buffer filter."""

from typing import Any

import pytest

from extproc.config.schema import Configuration
from extproc.core.placing.pool import Pool
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, load, virtual_host
from tests.traps.bitten_chain import authorization
from tests.traps.finding import names_in

TRAP = "authorized-by-body"
PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
SMALL: dict[str, Any] = {"max_request_bytes": 8 << 10}


def authorized(mode: str, body: Document | None, own: Document | None = None, *, before: bool = True) -> set[str]:
    """Return what is found in a file with an ext_authz filter, and settings for it on the host."""
    document = load(mode)
    authorization(document, body, before=before)
    if own is not None:
        virtual_host(document).setdefault("typed_per_filter_config", {})["authz"] = {"@type": PER_ROUTE, **own}
    return names_in(document)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
def test_an_authorization_by_the_body(mode: str, before: bool) -> None:  # noqa: FBT001
    """It is a trap in every mode and on both sides where prompts of the largest pool are larger than its limit."""
    assert TRAP in authorized(mode, SMALL, before=before)
    assert TRAP not in authorized(mode, {"max_request_bytes": 4 << 20}, before=before)
    assert TRAP not in authorized(mode, None, before=before)
    assert TRAP not in authorized(mode, SMALL | {"allow_partial_message": True}, before=before)


@pytest.mark.parametrize(("tokens", "found"), [(65_536, {TRAP}), (65_535, set())])
def test_what_counts_as_the_largest_prompt(tokens: int, found: set[str]) -> None:
    """It is the context of the largest pool, with four bytes to a token."""
    document = load("streamed")
    authorization(document, {"max_request_bytes": 4 * 65_535}, before=True)
    pools = (Pool("short", 8_192), Pool("long", tokens))
    assert found == names_in(document, Router(Configuration(pools=pools)))


@pytest.mark.parametrize(
    ("body", "own", "found"),
    [
        (SMALL, {"disabled": True}, set()),
        (SMALL, {"check_settings": {}}, {TRAP}),
        (SMALL, {"check_settings": {"disable_request_body_buffering": True}}, set()),
        (SMALL, {"check_settings": {"with_request_body": {"max_request_bytes": 4 << 20}}}, set()),
        (None, {"check_settings": {"with_request_body": SMALL}}, {TRAP}),
        (None, {"check_settings": {"with_request_body": SMALL | {"allow_partial_message": True}}}, set()),
    ],
)
def test_settings_of_a_host(body: Document | None, own: Document, found: set[str]) -> None:
    """They replace the filter's."""
    assert found == authorized("streamed", body, own)


@pytest.mark.parametrize("limit", [9_999, 65_536])
def test_bodies_that_bypass_the_authorization(limit: int) -> None:
    """Where larger ones take a route before it, without the router's filter, none is refused."""
    document = load("streamed")
    authorization(document, {"max_request_bytes": limit}, before=True)
    large = {"name": "content-length", "string_match": {"safe_regex": {"regex": "[0-9]{5,}"}}}
    around = {
        "match": {"prefix": "/", "headers": [large]},
        "route": {"cluster": "pool_long", "timeout": "0s"},
        "typed_per_filter_config": {
            name: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
            for name in ("authz", "envoy.filters.http.ext_proc")
        },
    }
    virtual_host(document)["routes"].insert(0, around)
    assert set() == names_in(document)


@pytest.mark.parametrize(("size", "found"), [(4 << 20, set()), (256 << 20, {"message-limit"})])
def test_an_authorization_in_front_replaces_the_listener_s_limit(size: int, found: set[str]) -> None:
    """As a buffer filter's, its limit counts for the router's filter, too, whether it is larger or smaller."""
    document = load("buffered")
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 64 << 10
    for each in (virtual_host(document), *virtual_host(document)["routes"]):
        each.pop("request_body_buffer_limit", None)
    assert "buffer-below-body-cap" in names_in(document)
    authorization(document, {"max_request_bytes": size}, before=True)
    assert found == names_in(document)
