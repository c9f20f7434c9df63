"""Fixtures that run a router on free ports, and an ext_proc client that speaks as Envoy does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)

from extproc.config.loading import parse
from tests.grpc.served import App

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
WITHIN_S = 10.0


@asynccontextmanager
async def running(settings: str = "", address: str = "127.0.0.1:0") -> AsyncIterator[App]:
    """Run a router with these additional settings (YAML)."""
    app = App(
        parse(f"listen: {{address: '{address}'}}\nadmin: {{address: '127.0.0.1:0'}}\ndrain_s: 0\n{settings}")
    )
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


class Call:
    """One ext_proc stream, from Envoy's side; every wait has a timeout."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stream: Any = channel.stream_stream(
            METHOD,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )
        self.stub = stream()

    async def headers(
        self,
        path: str = "/v1/chat/completions",
        mode: str = "STREAMED",
        more: Iterable[tuple[str, str]] = (),
        **fields: Any,
    ) -> None:
        """Send the request headers with protocol_config, as the first message of the stream."""
        message = ProcessingRequest(request_headers=HttpHeaders(**fields))
        for key, value in ((":method", "POST"), (":path", path), ("content-type", "application/json"), *more):
            message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        message.protocol_config.CopyFrom(
            ProtocolConfiguration(
                request_body_mode=ProcessingMode.BodySendMode.Value(mode),
                response_body_mode=ProcessingMode.STREAMED,
                send_body_without_waiting_for_header_response=mode == "STREAMED",
            )
        )
        await self.stub.write(message)

    async def body(self, data: bytes, *, end: bool = True) -> None:
        """Send a chunk of the request body."""
        await self.stub.write(ProcessingRequest(request_body=HttpBody(body=data, end_of_stream=end)))

    async def response_headers(self, status: str = "200", content_type: str = "application/json") -> None:
        """Send the response headers."""
        message = ProcessingRequest(response_headers=HttpHeaders())
        for key, value in ((":status", status), ("content-type", content_type)):
            message.response_headers.headers.headers.add(key=key, raw_value=value.encode())
        await self.stub.write(message)

    async def response_body(self, data: bytes, *, end: bool = True) -> None:
        """Send a chunk of the response body."""
        await self.stub.write(ProcessingRequest(response_body=HttpBody(body=data, end_of_stream=end)))

    async def read(self) -> ProcessingResponse | None:
        """Return the next reply, or None at the end of the stream."""
        message = await asyncio.wait_for(self.stub.read(), WITHIN_S)
        return message if isinstance(message, ProcessingResponse) else None

    async def code(self) -> grpc.StatusCode:
        """Return the status code that the stream ended with."""
        return await asyncio.wait_for(self.stub.code(), WITHIN_S)


@pytest.fixture
def router() -> Callable[..., AbstractAsyncContextManager[App]]:
    """Return the context manager that runs a router."""
    return running


@pytest.fixture
def call() -> type[Call]:
    """Return the class of an ext_proc stream."""
    return Call


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Return a function that waits for a condition to become true, with a timeout."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110  (another thread or the server makes it true)
                await asyncio.sleep(0.005)

    return wait
