"""`dualpool check envoy` on config dumps of older Envoys, which tell their version; files do not."""

import json
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, connection_manager, load, route
from tests.traps.bitten_chain import insert
from tests.traps.finding import found_in, names_in

Version = tuple[int, int] | None
LIMIT_BYTES = 33_554_432
ENVOY = "type.googleapis.com/envoy"


def dump_of(document: Document, version: Version) -> Document:
    """Return the config dump of an Envoy of this version, major and minor, that runs a file."""
    held = document["static_resources"]
    said = {"major_number": version[0], "minor_number": version[1]} if version else {}
    bootstrap = {"node": {"user_agent_build_version": {"version": said}}}

    def dumped(name: str) -> list[dict[str, Any]]:
        kind = f"{ENVOY}.config.{name}.v3.{name.title()}"
        return [{name: {"@type": kind, **each}} for each in held[f"{name}s"]]

    return {
        "configs": [
            {"@type": f"{ENVOY}.admin.v3.BootstrapConfigDump", "bootstrap": bootstrap},
            {"@type": f"{ENVOY}.admin.v3.ClustersConfigDump", "static_clusters": dumped("cluster")},
            {"@type": f"{ENVOY}.admin.v3.ListenersConfigDump", "static_listeners": dumped("listener")},
        ]
    }


@pytest.mark.parametrize("version", [(1, 36), (1, 37), (1, 40), (2, 0), None])
@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex", "two-models/envoy"])
def test_a_limit_for_bodies_that_an_older_envoy_does_not_apply(mode: str, version: Version) -> None:
    """Before 1.37 a host's limit does not raise the listener's while the router's filter holds a body: files in
    mode BUFFERED have a trap there that they do not have in later versions.
    """
    holds = mode in ("buffered", "two-models/envoy")
    found = {each.trap.name for each in found_in(json.dumps(dump_of(load(mode), version)))}
    traps = {"buffer-below-body-cap"} if holds and version == (1, 36) else set()
    assert traps == found & {"buffer-below-body-cap"}


def test_limits_that_an_older_envoy_applies() -> None:
    """There the listener's limit and the window of an HTTP/2 stream together are as good as the host's limit."""
    document = load("buffered")
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = LIMIT_BYTES
    assert {"buffer-below-body-cap"} == names_in(dump_of(document, (1, 36)))
    connection_manager(document)["http2_protocol_options"] = {
        "initial_stream_window_size": LIMIT_BYTES,
        "initial_connection_window_size": 16 * LIMIT_BYTES,
    }
    assert set() == names_in(dump_of(document, (1, 36)))


@pytest.mark.parametrize("version", [(1, 38), (1, 39), (1, 40), None])
@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
def test_the_pool_is_to_say_100(mode: str, version: Version) -> None:
    """In 1.39 clients wait for `100 Continue` in vain in full duplex, too, not only in mode BUFFERED."""
    document = load(mode)
    connection_manager(document)["proxy_100_continue"] = True
    hangs = mode == "buffered" or (mode == "full-duplex" and version == (1, 39))
    assert ({"expect-hangs"} if hangs else set()) == names_in(dump_of(document, version))


@pytest.mark.parametrize(("version", "is_found"), [((1, 37), True), ((1, 38), False), (None, False)])
@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
def test_an_endpoint_picker_behind_the_router(mode: str, version: Version, *, is_found: bool) -> None:
    """Before 1.38 bodies are lost between two filters in full duplex; not if the router's is in another mode."""
    document = load(mode)
    modes = {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
    service = {"envoy_grpc": {"cluster_name": "other"}}
    kind = "ext_proc.v3.ExternalProcessor"
    insert(document, "picker", kind, before=False, grpc_service=service, processing_mode=modes)
    found = "waiting-filter-after" in names_in(dump_of(document, version))
    assert found == (is_found and mode == "full-duplex")


@pytest.mark.parametrize(("version", "is_found"), [((1, 32), True), ((1, 33), False), (None, False)])
def test_private_addresses_that_are_trusted(version: Version, *, is_found: bool) -> None:
    """Before 1.33 clients with such addresses bring retries along, or refuse them, without any setting."""
    document = load("streamed")
    for name in ("short", "long"):
        route(document, name).pop("request_headers_to_remove")
    traps = {"retries-by-clients", "repair-declined"} if is_found else set()
    assert traps == names_in(dump_of(document, version))
