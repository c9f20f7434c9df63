"""HTTP/3 clients of the router's Envoy: another Envoy in front of it, which speaks HTTP/1.1 with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from bench.numbered import chat_body
from tests.envoy.harness.building import Build
from tests.envoy.harness.gateway import Document, Envoy, connection_manager
from tests.envoy.harness.router import BRIEF
from tests.plain import NO_AUTHORITIES

TYPES = "type.googleapis.com/envoy.extensions"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
BODY = chat_body(300_000)
# Budgets within which the body has to be read to its end.
POOLS = [{"name": "short", "max_budget_tokens": 400_000}, {"name": "long", "max_budget_tokens": 1_000_000}]
SMALL: Document = {"quic_protocol_options": {"initial_stream_window_size": 65_536}}


@pytest.fixture
def certificate(tmp_path: Path) -> Document:
    """Write a certificate of localhost; return the TLS settings of a server that has it."""
    issued = trustme.CA().issue_cert("localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    files = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    return {"common_tls_context": {"alpn_protocols": ["h3"], "tls_certificates": [files]}}


def speak_quic(document: Document, certificate: Document) -> None:
    """Make the listener speak HTTP/3, and nothing else."""
    (listener,) = document["static_resources"]["listeners"]
    listener["address"]["socket_address"]["protocol"] = "UDP"
    listener["udp_listener_config"] = {"quic_options": {}}
    kind = f"{TYPES}.transport_sockets.quic.v3.QuicDownstreamTransport"
    listener["filter_chains"][0]["transport_socket"] = {
        "name": "envoy.transport_sockets.quic",
        "typed_config": {"@type": kind, "downstream_tls_context": certificate},
    }
    connection_manager(document)["codec_type"] = "HTTP3"


def front_of(port: int) -> Document:
    """Return an Envoy that sends everything on over HTTP/3."""
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "quic", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    upstream = {
        "@type": f"{TYPES}.transport_sockets.quic.v3.QuicUpstreamTransport",
        "upstream_tls_context": {"sni": "localhost"},
    }
    options = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "explicit_http_config": {"http3_protocol_options": {}},
    }
    cluster = {
        "name": "quic",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
        "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": upstream},
        "load_assignment": {
            "cluster_name": "quic",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}}]}],
        },
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "front", "address": at(0), "filter_chains": [chain]}
    return {
        "admin": {"address": at(0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def at(port: int) -> Document:
    """Return an address on this machine."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Callable[[int], Envoy]]:
    """Return a function that starts an Envoy in front of a QUIC port."""
    started: list[Envoy] = []

    def start(port: int) -> Envoy:
        started.append(Envoy("front", front_of(port), tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.terminate()


@pytest.mark.parametrize("small", ["none", "of the manager", "of the listener"])
def test_the_window_that_stalls_bodies(
    build: Build, front: Callable[[int], Envoy], certificate: Document, small: str
) -> None:
    """A body over the listener's window is decided at the deadline; the connection manager's has no effect."""

    def change(document: Document) -> None:
        speak_quic(document, certificate)
        if small == "of the manager":
            connection_manager(document)["http3_protocol_options"] = SMALL
        if small == "of the listener":
            document["static_resources"]["listeners"][0]["udp_listener_config"] = {"quic_options": SMALL}

    exchange = BRIEF if small == "of the listener" else {}
    caller = build("streamed", change=change, configured=POOLS, exchange=exchange)
    url = f"{front(caller.stack.gateway.port).url}{caller.root}/v1/chat/completions"
    httpx.post(url, content=BODY, headers={"content-type": "application/json"}, verify=NO_AUTHORITIES)
    (entry,) = caller.access_log()
    assert ("deadline" if small == "of the listener" else "fits") == entry["reason"]
