"""The effects, on the real Envoy, of traps in the clusters of the router and the pools."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from ruamel.yaml import YAML

from extproc.config.loading import parse
from extproc.gateways.render.envoy import render_envoy
from extproc.gateways.render.numbers import Numbers
from tests.envoy.harness.biting import SLOW, Bitten, post, refusal
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, cluster, ext_proc
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN, bitten


def test_router_asked_over_http_1(bite: Bitten, tmp_path: Path) -> None:
    """Envoy rejects it with a health check; without one, no message reaches the router: everything goes long."""

    def unchecked(document: Document) -> None:
        del cluster(document, "dualpool")["health_checks"]

    assert "must support HTTP/2" in refusal(bitten("router-without-http2"), tmp_path)
    caller = bite("router-without-http2", unchecked)
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["reason"] for entry in caller.access_log()]


def test_router_asked_over_tls(bite: Bitten) -> None:
    """No message reaches the router: everything goes long."""
    caller = bite("router-tls")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["reason"] for entry in caller.access_log()]


@pytest.mark.parametrize("client_ca", [False, True])
def test_a_router_with_tls_is_asked_as_rendered(build: Build, tmp_path: Path, *, client_ca: bool) -> None:
    """The cluster of `dualpool render envoy` reaches a router with `listen.tls`, with and without mTLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "router-ca.pem"))
    for name, host in (("server", "localhost"), ("client", "gateway")):
        pair = authority.issue_cert(host)
        pair.private_key_pem.write_to_path(str(tmp_path / f"{name}-key.pem"))
        pair.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    tls = {
        "certificate_file": f"{tmp_path}/server.pem",
        "private_key_file": f"{tmp_path}/server-key.pem",
        **({"client_ca_file": f"{tmp_path}/router-ca.pem"} if client_ca else {}),
    }
    listen = {"address": "127.0.0.1:0", "tls": tls}
    rendered = render_envoy(Numbers(parse(json.dumps({"listen": listen}))))
    socket = cluster(YAML(typ="safe").load(rendered), "dualpool")["transport_socket"]
    socket = json.loads(json.dumps(socket).replace("/etc/envoy", str(tmp_path)))
    caller = build(
        "streamed",
        change=lambda document: cluster(document, "dualpool").update(transport_socket=socket),
        listen=listen,
    )
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]


def test_more_requests_than_the_router_s_breaker_lets_through(bite: Bitten) -> None:
    """Some of many concurrent requests are not decided: the filter fails open."""
    caller = bite("router-breakers-small")
    with ThreadPoolExecutor(12) as threads:
        served = [
            each.headers["x-served-by"] for each in threads.map(lambda _: post(caller, headers=SLOW), range(12))
        ]
    assert "long" in served
    assert caller.stack.gateway.statistic("http.ingress.ext_proc.failure_mode_allowed") > 0


def test_router_that_hangs_without_a_limit(build: Build) -> None:
    """Without a limit, all requests pile up at a router that hangs and wait for it."""

    def patient(document: Document) -> None:
        BITTEN["router-breakers-large"](document)
        # Long enough for all requests to arrive, even on a slow machine.
        ext_proc(document)["message_timeout"] = "20s"

    caller = build("streamed", change=patient)
    caller.stack.router.signal(signal.SIGSTOP)
    waiting = "cluster.dualpool.upstream_rq_active"
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(post, caller) for _ in range(12)]
        eventually(lambda: caller.stack.gateway.statistic(waiting) == len(asked), "all wait for the router")
        caller.stack.router.signal(signal.SIGCONT)
        assert {200} == {each.result().status_code for each in asked}


def test_one_connection_for_each_address(build: Build, router: RouterProcess) -> None:
    """Concurrent requests share one connection to the router's address, so one process behind it gets them all."""
    caller = build("streamed", router=router)
    with ThreadPoolExecutor(12) as threads:
        assert {"short"} == {
            each.headers["x-served-by"] for each in threads.map(lambda _: post(caller), range(48))
        }
    assert 48 == caller.stack.gateway.statistic("http.ingress.ext_proc.streams_started")
    assert 1 == caller.stack.gateway.statistic("cluster.dualpool.upstream_cx_http2_total")


def test_one_address_of_several_servers(tmp_path: Path) -> None:
    """A LOGICAL_DNS cluster has one address at a time: Envoy rejects one with two servers."""
    document = bitten("cluster-ip")
    (locality,) = cluster(document, "pool_short")["load_assignment"]["endpoints"]
    locality["lb_endpoints"] *= 2
    assert "LOGICAL_DNS clusters must have a single" in refusal(document, tmp_path)
