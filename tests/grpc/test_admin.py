import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from tests.grpc.served import App, learn_once
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]


async def get(app: App, path: str) -> httpx.Response:
    """Fetch an admin page."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        return await client.get(f"http://{app.admin_address}{path}")


async def get_while_the_loop_hangs(app: App, *paths: str) -> list[httpx.Response]:
    """Fetch admin pages while the router's loop is blocked."""
    hangs, there = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        there.wait(10)

    hanging = asyncio.ensure_future(asyncio.to_thread(app.ask, hang))
    await asyncio.to_thread(hangs.wait, 10)
    try:
        return [await get(app, path) for path in paths]
    finally:
        there.set()
        await hanging


def speaks_ipv6() -> bool:
    """Return whether this machine has the address ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def samples(text: str) -> dict[str, float]:
    """Return all samples of a scrape, keyed by name and labels."""
    return {
        f"{s.name}{json.dumps(s.labels, sort_keys=True)}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_metrics_say_what_happened(router: Router, call: type[Any]) -> None:
    """One request that was learned from appears in every metric it concerns."""

    async def scenario() -> None:
        async with router() as app:
            await learn_once(app, call)
            found = samples((await get(app, "/metrics")).text)
            # A model gets its own label value with its first 2xx response.
            labels = '{"api": "chat_completions", "model": "other", "pool": "short", "reason": "fits"}'
            assert found[f"dualpool_requests_total{labels}"] == 1
            assert found['dualpool_actual_prompt_tokens_sum{"model": "m"}'] == 7
            assert found['dualpool_estimate_ratio_count{"model": "m"}'] == 1
            assert found['dualpool_bytes_per_token{"category": "latin", "model": "m"}'] == 24 / 7
            assert found["dualpool_streams_kept_total{}"] == found["dualpool_streams_total{}"] == 1
            assert found["dualpool_streams_open{}"] == 0
            assert found["dualpool_decision_seconds_count{}"] == 1

    asyncio.run(scenario())


def test_state_and_config_are_shown(router: Router, call: type[Any]) -> None:
    """/state shows what was learned per category, /config the settings in force."""

    async def scenario() -> None:
        async with router("tenant_header: x-tenant") as app:
            await learn_once(app, call)
            categories = (await get(app, "/state")).json()["categories"]
            assert ("m", "latin") in {(row.get("model"), row["key"]) for row in categories if "key" in row}
            assert "x-tenant" == (await get(app, "/config")).json()["tenant_header"]

    asyncio.run(scenario())


def test_the_state_is_encoded_without_blocking_the_event_loop(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While /state is encoded as JSON, however large it is, the event loop keeps serving."""
    begun, served = threading.Event(), threading.Event()

    def slow(_state: LearnedState) -> str:
        begun.set()
        return json.dumps({"served": served.wait(10)})

    async def scenario() -> None:
        async with router() as app:
            asking = asyncio.ensure_future(get(app, "/state"))
            assert await asyncio.to_thread(begun.wait, 10)
            assert 200 == (await get(app, "/healthz")).status_code
            served.set()
            assert (await asking).json() == {"served": True}

    monkeypatch.setattr("extproc.server.admin.to_json", slow)
    asyncio.run(scenario())


def test_a_drain_changes_readiness_but_not_liveness(router: Router) -> None:
    """While draining, /readyz is 503 and /healthz still 200; an unknown path is 404."""

    async def scenario() -> None:
        async with router() as app:
            assert [200, 200] == [(await get(app, path)).status_code for path in ("/readyz", "/healthz")]
            app.turn_unready()
            codes = [(await get(app, path)).status_code for path in ("/readyz", "/healthz", "/nothing")]
            assert [503, 200, 404] == codes

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/config", "/nothing"])
def test_head_responds_as_get_without_the_body(router: Router, path: str) -> None:
    """A HEAD request gets the same status and headers as GET, and the connection stays usable."""

    async def scenario() -> None:
        async with (
            router() as app,
            httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as client,
        ):
            head, got = await client.head(path), await client.get(path)
            assert (got.status_code, b"") == (head.status_code, head.content)
            assert got.headers["content-type"] == head.headers["content-type"]
            assert "content-length" in head.headers

    asyncio.run(scenario())


@pytest.mark.skipif(not speaks_ipv6(), reason="no IPv6 here")
def test_the_admin_pages_are_served_on_ipv6() -> None:
    """The router listens on an IPv6 address in brackets, and reports it with its port."""

    async def scenario() -> None:
        app = App(parse("listen: {address: '[::1]:0'}\nadmin: {address: '[::1]:0'}\ndrain_s: 0"))
        await app.start()
        try:
            assert app.admin_address.startswith("[::1]:")
            assert 200 == (await get(app, "/healthz")).status_code
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_the_configuration_shows_no_secret(router: Router, tmp_path: Path) -> None:
    """Over HTTP, too, the path of the private key is replaced by asterisks."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_pem.write_to_path(str(tmp_path / "hidden.pem"))
    pair.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = f"{{certificate_file: {tmp_path}/cert.pem, private_key_file: {tmp_path}/hidden.pem}}"

    async def scenario() -> None:
        app = App(parse(f"listen: {{address: 'localhost:0', tls: {tls}}}\nadmin: {{address: '127.0.0.1:0'}}"))
        await app.start()
        try:
            shown = await get(app, "/config")
            assert {
                "certificate_file": f"{tmp_path}/cert.pem",
                "private_key_file": "***",
                "client_ca_file": "",
            } == (shown.json()["listen"]["tls"])
            assert "hidden" not in shown.text
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_a_hanging_event_loop_is_not_healthy(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the loop hangs, /healthz, /readyz and /state respond with 503 in time; /metrics needs no loop."""
    monkeypatch.setattr("extproc.server.admin.LOOP_ANSWERS_WITHIN_S", 0.05)

    async def scenario() -> None:
        async with router() as app:
            responses = await get_while_the_loop_hangs(app, "/healthz", "/readyz", "/state", "/metrics")
            assert [503, 503, 503, 200] == [response.status_code for response in responses]
            assert "the event loop has not answered for 0.05 s\n" == responses[0].text
            assert 200 == (await get(app, "/healthz")).status_code

    asyncio.run(scenario())


def test_an_address_in_use_is_a_configuration_error(router: Router) -> None:
    """An admin address that is already in use is a configuration error that names the setting."""

    async def scenario() -> None:
        async with router() as app:
            App(parse(f"listen: {{address: '127.0.0.1:0'}}\nadmin: {{address: '{app.admin_address}'}}"))

    with pytest.raises(ConfigurationError, match=r"admin\.address: .* cannot be bound"):
        asyncio.run(scenario())


@pytest.mark.parametrize("speaks_ipv6", [True, False])
def test_probes_on_every_address_accept_ipv4(speaks_ipv6: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """[::], as in the shipped manifests, serves IPv4, too: the kubelet and Prometheus use the pod's address."""
    if not speaks_ipv6:
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    probed = (
        "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0', probes_address: '[::]:0'}\ndrain_s: 0"
    )

    async def scenario() -> None:
        app = App(parse(probed))
        await app.start()
        try:
            port = app._admins[1].address.rpartition(":")[2]
            async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
                assert 200 == (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_probes_have_a_port_without_secrets(router: Router) -> None:
    """The port for other machines serves metrics and health, but neither state nor configuration."""

    async def scenario() -> None:
        app = App(
            parse(
                "listen: {address: '127.0.0.1:0'}\n"
                "admin: {address: '127.0.0.1:0', probes_address: '127.0.0.1:0'}\ndrain_s: 0"
            )
        )
        await app.start()
        try:
            async with httpx.AsyncClient(
                base_url=f"http://{app._admins[1].address}", verify=NO_AUTHORITIES
            ) as client:
                paths = ("/metrics", "/healthz", "/readyz", "/config", "/state")
                assert [200, 200, 200, 404, 404] == [(await client.get(path)).status_code for path in paths]
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_the_encoded_state_is_reused_for_a_while(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that took a while to encode is reused for a while."""
    made: list[LearnedState] = []

    def noted(state: LearnedState) -> str:
        made.append(state)
        return "{}"

    monkeypatch.setattr("extproc.server.admin.KEEPS_FOR", 1e9)
    monkeypatch.setattr("extproc.server.admin.to_json", noted)

    async def scenario() -> None:
        async with router() as app:
            for _ in range(3):
                assert {} == (await get(app, "/state")).json()

    asyncio.run(scenario())
    assert 1 == len(made)


def test_a_page_that_cannot_be_made_is_a_500_and_is_logged(
    router: Router, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets a status, and the log the exception."""

    def broken(_state: LearnedState) -> str:
        raise KeyError("a fault of ours")

    monkeypatch.setattr("extproc.server.admin.to_json", broken)

    async def scenario() -> None:
        async with router() as app:
            assert 500 == (await get(app, "/state")).status_code

    asyncio.run(scenario())
    assert ["exception in the admin server"] == [r.getMessage() for r in caplog.records if r.exc_info]
