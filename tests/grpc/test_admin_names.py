"""Which host names the admin pages answer to."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from extproc.config.loading import parse
from tests.grpc.served import App

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
        async with router() as app, httpx.AsyncClient() as client:
            got = await client.get(f"http://{app.admin_address}/config", headers={"host": host})
            assert status == got.status_code

    asyncio.run(scenario())


def test_the_configured_name_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name in `admin.address` that resolves to loopback, as a machine's own often does, can be used."""
    bound = socket.create_server
    monkeypatch.setattr(
        socket, "create_server", lambda address, **named: bound(("127.0.0.1", address[1]), **named)
    )

    async def scenario() -> list[int]:
        app = App(parse("{listen: {address: '127.0.0.1:0'}, admin: {address: 'Router.example:0'}, drain_s: 0}"))
        await app.start()
        try:
            async with httpx.AsyncClient() as client:
                url = f"http://127.0.0.1:{app.admin_address.rpartition(':')[2]}/healthz"
                hosts = ("Router.example:1", "router.example", "evil.example")
                return [(await client.get(url, headers={"host": host})).status_code for host in hosts]
        finally:
            await app.stop()

    assert [200, 200, 421] == asyncio.run(scenario())
