"""Envoy does not forward the credentials of clients and pools to the router."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.envoy.harness.building import addresses
from tests.envoy.harness.eavesdropper import Eavesdropper, header_names
from tests.envoy.harness.gateway import Document, Gateway, virtual_host
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import chat_body
from tests.plain import NO_AUTHORITIES

SECRETS = {
    "Authorization": "Bearer secret-1",
    "Proxy-Authorization": "secret-2",
    "api-key": "secret-3",
    "x-api-key": "secret-4",
    "Cookie": "session=secret-5",
}


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    """Run an eavesdropper for the duration of the test."""
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.stop()


def test_credentials_stay_in_envoy(eavesdropper: Eavesdropper, pools: Pools, mode: str, tmp_path: Path) -> None:
    """The router gets the headers it needs to decide, and no credentials; the pool gets the credentials."""
    gateway = Gateway(mode, addresses(eavesdropper.address, pools), tmp_path)
    try:
        body = chat_body(MODEL, "Hello.", max_tokens=4)
        headers = SECRETS | {"x-tenant": "acme", "content-type": "application/json"}
        response = httpx.post(
            f"{gateway.url}/{tmp_path.name}/v1/chat/completions",
            content=body,
            headers=headers,
            verify=NO_AUTHORITIES,
        )
        assert "long" == response.headers["x-served-by"]
    finally:
        gateway.terminate()
    (message,) = eavesdropper.messages
    assert b"secret" not in message
    assert {":method", ":path", "content-type", "x-request-id", "x-tenant"} == header_names(message)
    ((_, received),) = pools.received(f"/{tmp_path.name}/")
    assert set(SECRETS.values()) - {"secret-2"} <= set(received.headers.values())


def pools_set_cookies(document: Document) -> None:
    """Add a cookie and a token to every response, as pools and their gateways do."""
    added = {"set-cookie": "session=secret-6", "x-pool-token": "secret-7"}
    virtual_host(document)["response_headers_to_add"] = [
        {"header": {"key": key, "value": value}} for key, value in added.items()
    ]


def test_cookies_of_responses_stay_in_envoy(
    eavesdropper: Eavesdropper, pools: Pools, mode: str, tmp_path: Path
) -> None:
    """The router gets the response headers it needs to learn, and no cookies; the client gets the cookies."""
    gateway = Gateway(mode, addresses(eavesdropper.address, pools), tmp_path, pools_set_cookies)
    try:
        response = httpx.get(f"{gateway.url}/v1/models", verify=NO_AUTHORITIES)
    finally:
        gateway.terminate()
    assert ("session=secret-6", "secret-7") == (response.headers["set-cookie"], response.headers["x-pool-token"])
    _, message = eavesdropper.messages
    assert b"secret" not in message
    assert {":status", "content-type", "x-envoy-attempt-count"} == header_names(message)
