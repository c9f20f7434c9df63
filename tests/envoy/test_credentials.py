"""What a client proves who it is with does not leave Envoy towards the router."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.envoy.harness.building import addresses
from tests.envoy.harness.gateway import Gateway
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
    """A processor that notes the first message of each stream, and closes it."""

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
        return iter(())


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    """Run one, until the test ends."""
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.stop()


def test_credentials_stay_in_envoy(eavesdropper: Eavesdropper, pools: Pools, mode: str, tmp_path: Path) -> None:
    """The router gets what it decides by, and no credential; the pool gets them all."""
    gateway = Gateway(mode, addresses(eavesdropper.address, pools), tmp_path)
    try:
        body = chat_body(MODEL, "Hello.", max_tokens=4)
        headers = SECRETS | {"x-tenant": "acme", "content-type": "application/json"}
        answer = httpx.post(f"{gateway.url}/{tmp_path.name}/v1/chat/completions", content=body, headers=headers)
        assert "long" == answer.headers["x-served-by"]
    finally:
        gateway.terminate()
    (message,) = eavesdropper.messages
    assert b"secret" not in message
    told = {h.key for h in ProcessingRequest.FromString(message).request_headers.headers.headers}
    assert {":method", ":path", "content-type", "x-tenant"} == told
    ((_, received),) = pools.received(f"/{tmp_path.name}/")
    assert set(SECRETS.values()) - {"secret-2"} <= set(received.headers.values())
