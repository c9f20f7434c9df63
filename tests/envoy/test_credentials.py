"""What clients and pools prove who they are with does not leave Envoy towards the router."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import HeadersResponse, ProcessingRequest, ProcessingResponse
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.envoy.harness.building import addresses
from tests.envoy.harness.gateway import Document, Gateway, virtual_host
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import chat_body

SECRETS = {
    "Authorization": "Bearer secret-1",
    "Proxy-Authorization": "secret-2",
    "api-key": "secret-3",
    "x-api-key": "secret-4",
    "Cookie": "session=secret-5",
}


class Eavesdropper:
    """A processor that notes what it is told.

    A stream is closed at its first message; but a request without a body is let go, and its response's head heard.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        handlers = {"Process": grpc.stream_stream_rpc_method_handler(self._process)}
        service = "envoy.service.ext_proc.v3.ExternalProcessor"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        healths = health.HealthServicer()
        healths.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healths, self._server)
        self._server.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop(None).wait()

    def _process(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        self.messages.append(next(requests))
        if ProcessingRequest.FromString(self.messages[-1]).request_headers.end_of_stream:
            yield ProcessingResponse(request_headers=HeadersResponse()).SerializeToString()
            self.messages.append(next(requests))


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    """Run one, until the test ends."""
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.stop()


def told(message: bytes) -> set[str]:
    """Return the names of the headers in a message."""
    request = ProcessingRequest.FromString(message)
    phase = request.request_headers if request.HasField("request_headers") else request.response_headers
    return {header.key for header in phase.headers.headers}


def test_credentials_stay_in_envoy(eavesdropper: Eavesdropper, pools: Pools, mode: str, tmp_path: Path) -> None:
    """The router gets what it decides by, and no credential; the pool gets them all."""
    gateway = Gateway(mode, addresses(eavesdropper.address, pools), tmp_path)
    try:
        body = chat_body(MODEL, "Hello.", max_tokens=4)
        headers = SECRETS | {"x-tenant": "acme", "content-type": "application/json"}
        response = httpx.post(f"{gateway.url}/{tmp_path.name}/v1/chat/completions", content=body, headers=headers)
        assert "long" == response.headers["x-served-by"]
    finally:
        gateway.terminate()
    (message,) = eavesdropper.messages
    assert b"secret" not in message
    assert {":method", ":path", "content-type", "x-tenant"} == told(message)
    ((_, received),) = pools.received(f"/{tmp_path.name}/")
    assert set(SECRETS.values()) - {"secret-2"} <= set(received.headers.values())


def pools_set_cookies(document: Document) -> None:
    """Add to every response what pools and their gateways put there."""
    added = {"set-cookie": "session=secret-6", "x-pool-token": "secret-7"}
    virtual_host(document)["response_headers_to_add"] = [
        {"header": {"key": key, "value": value}} for key, value in added.items()
    ]


def test_cookies_of_responses_stay_in_envoy(
    eavesdropper: Eavesdropper, pools: Pools, mode: str, tmp_path: Path
) -> None:
    """Of a response the router gets what it learns by, and no cookie; the client gets them all."""
    gateway = Gateway(mode, addresses(eavesdropper.address, pools), tmp_path, pools_set_cookies)
    try:
        response = httpx.get(f"{gateway.url}/v1/models")
    finally:
        gateway.terminate()
    assert ("session=secret-6", "secret-7") == (response.headers["set-cookie"], response.headers["x-pool-token"])
    _, message = eavesdropper.messages
    assert b"secret" not in message
    assert {":status", "content-type", "x-envoy-attempt-count"} == told(message)
