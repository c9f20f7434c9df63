"""Which host names the admin pages answer to."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from extproc.config.loading import parse
from extproc.server import admin_http
from tests.grpc.served import App
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1", 200),
        ("[::1]:9", 200),
        ("evil.example", 421),
        ("evil.example:9", 421),
    ],
)
def test_a_loopback_address_refuses_other_host_names(router: Router, host: str, status: int) -> None:
    """A web page whose host name was pointed at this machine (DNS rebinding) cannot read the admin pages."""

    async def scenario() -> None:
        async with router() as app, httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
            got = await client.get(f"http://{app.admin_address}/config", headers={"host": host})
            assert status == got.status_code

    asyncio.run(scenario())


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every host name resolve to these addresses, in this order."""
    look_up = socket.getaddrinfo

    def resolve(_host: str, port: int, **named: Any) -> list[Any]:
        return [found for address in addresses for found in look_up(address, port, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(
    ("addresses", "bound_to"),
    [
        (("::1",), "::1"),
        (("::1", "127.0.0.1"), "127.0.0.1"),
        (("192.0.2.1", "::1"), "::1"),  # an address that this machine does not have
    ],
)
def test_a_host_name_is_bound_where_it_leads(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], bound_to: str
) -> None:
    """IPv4 is preferred; where a name, such as localhost, leads to IPv6 only, that is used."""
    resolves_to(monkeypatch, *addresses)
    with admin_http.listening("localhost", 0) as bound:
        assert bound_to == bound.getsockname()[0]


def test_a_port_in_use_is_not_evaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program has the IPv4 address, the router does not serve on the IPv6 address alone."""
    resolves_to(monkeypatch, "127.0.0.1", "::1")
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        admin_http.listening("localhost", other.getsockname()[1])


def test_the_configured_name_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name in `admin.address` that resolves to loopback, as a machine's own often does, can be used."""
    resolves_to(monkeypatch, "127.0.0.1")

    async def scenario() -> list[int]:
        app = App(parse("{listen: {address: '127.0.0.1:0'}, admin: {address: 'Router.example:0'}, drain_s: 0}"))
        await app.start()
        try:
            async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
                url = f"http://127.0.0.1:{app.admin_address.rpartition(':')[2]}/healthz"
                hosts = ("Router.example:1", "router.example", "evil.example")
                return [(await client.get(url, headers={"host": host})).status_code for host in hosts]
        finally:
            await app.stop()

    assert [200, 200, 421] == asyncio.run(scenario())
