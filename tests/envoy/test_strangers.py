"""What another program can do that answers on the router's address: nothing but what the router does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from tests.envoy.harness.building import addresses
from tests.envoy.harness.eavesdropper import Eavesdropper
from tests.envoy.harness.gateway import Gateway
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import chat_body
from tests.plain import NO_AUTHORITIES
from tests.traps.bitten import BITTEN, Bite

FILES = ("streamed", "buffered")
REFUSAL = ProcessingResponse()
REFUSAL.immediate_response.status.code = 403
MUTATIONS = ProcessingResponse()
MUTATIONS.request_headers.response.clear_route_cache = True
for _name, _value in ((":path", b"/elsewhere"), ("x-other", b"1"), ("x-token-budget-pool", b"short")):
    _set = MUTATIONS.request_headers.response.header_mutation.set_headers.add()
    _set.header.key, _set.header.raw_value = _name, _value
HEADER = ProcessingResponse()
HEADER.request_headers.response.header_mutation.set_headers.add().header.key = "x-other"
HEADER.request_headers.response.header_mutation.set_headers[0].header.raw_value = b"1"


@contextmanager
def _response(
    reply: ProcessingResponse, pools: Pools, file: str, folder: Path, change: Bite | None = None
) -> Iterator[httpx.Response]:
    """Send a chat request through an Envoy whose router is a stranger with this reply; yield the response."""
    stranger = Eavesdropper(reply)
    gateway = Gateway(file, addresses(stranger.address, pools), folder, change)
    try:
        url = f"{gateway.url}/{folder.name}/v1/chat/completions"
        body = chat_body(MODEL, "Hello.", max_tokens=4)
        yield httpx.post(url, content=body, headers={"content-type": "application/json"}, verify=NO_AUTHORITIES)
    finally:
        gateway.terminate()
        stranger.stop()


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    """Each of the files in which a request continues whatever happens."""
    name: str = request.param
    return name


def test_a_stranger_cannot_respond(pools: Pools, file: str, tmp_path: Path) -> None:
    """A response of its own is refused: the long pool serves the request."""
    with _response(REFUSAL, pools, file, tmp_path) as response:
        assert (200, "long") == (response.status_code, response.headers["x-served-by"])


def test_a_stranger_can_choose_a_pool_and_change_nothing_else(pools: Pools, file: str, tmp_path: Path) -> None:
    """Of its headers only the router's reach the pool; the path is the client's."""
    with _response(MUTATIONS, pools, file, tmp_path) as response:
        assert (200, "short") == (response.status_code, response.headers["x-served-by"])
    ((_, received),) = pools.received(f"/{tmp_path.name}/")
    assert "x-other" not in received.headers


def test_what_a_stranger_can_do_where_it_is_trusted(pools: Pools, file: str, tmp_path: Path) -> None:
    """By Envoy's defaults a stranger responds to clients itself, and the pool gets any header that it adds."""
    trusts = BITTEN["stranger-trusted"]
    with _response(REFUSAL, pools, file, tmp_path, trusts) as response:
        assert 403 == response.status_code
    folder = tmp_path / f"{tmp_path.name}-changes"
    folder.mkdir()
    with _response(HEADER, pools, file, folder, trusts) as response:
        assert 200 == response.status_code
    ((_, received),) = pools.received(f"/{folder.name}/")
    assert "1" == received.headers["x-other"]
