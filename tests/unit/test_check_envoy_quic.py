"""`dualpool check envoy` on listeners that speak HTTP/3."""

import json
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, connection_manager, load
from tests.traps.finding import found_in, names_in

SMALL = {"quic_protocol_options": {"initial_stream_window_size": 65_536}}


def over_quic(mode: str, **options: Any) -> Document:
    """Return a file whose listener speaks HTTP/3; `options` are its quic_options."""
    document = load(mode)
    listener = document["static_resources"]["listeners"][0]
    listener["udp_listener_config"] = {"quic_options": options}
    connection_manager(document)["codec_type"] = "HTTP3"
    return document


def test_the_listener_s_window_limits_bodies() -> None:
    """Envoy stops sending chunks of a body at its stream's window: 16 MiB unless the listener sets it."""
    assert set() == names_in(over_quic("streamed"))
    (found,) = found_in(json.dumps(over_quic("streamed", **SMALL)))
    assert "buffer-below-early-decision" == found.trap.name
    assert "quic_options.quic_protocol_options.initial_stream_window_size is 65,536" in found.what
    assert found.place.path.endswith("quic_options.quic_protocol_options")


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
def test_the_window_does_not_matter_in_other_modes(mode: str) -> None:
    """With its own limit for bodies, or without holding any, no mode but STREAMED stalls at a small window."""
    assert set() == names_in(over_quic(mode, **SMALL))


def test_what_limits_other_versions_does_not_count() -> None:
    """Neither the buffer limit, nor HTTP/2's window, nor the connection manager's for HTTP/3 acts on QUIC."""
    document = over_quic("streamed")
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 65_536
    manager = connection_manager(document)
    manager["http2_protocol_options"] = {"initial_stream_window_size": 65_536}
    manager["http3_protocol_options"] = SMALL
    assert set() == names_in(document)
