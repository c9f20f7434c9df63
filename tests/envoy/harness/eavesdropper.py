"""An external processor that decides nothing and records the messages it receives."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from envoy.service.ext_proc.v3.external_processor_pb2 import HeadersResponse, ProcessingRequest, ProcessingResponse
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

__all__ = ["Eavesdropper", "header_names"]


class Eavesdropper:
    """An external processor that records the messages it receives.

    It closes a stream after the first message, and after its `reply`, if it has one. But it lets a request without
    a body continue, to record the response's headers, too.
    """

    def __init__(self, reply: ProcessingResponse | None = None) -> None:
        self.messages: list[bytes] = []
        self._reply = reply
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
        if self._reply is not None:
            yield self._reply.SerializeToString()
        elif ProcessingRequest.FromString(self.messages[-1]).request_headers.end_of_stream:
            yield ProcessingResponse(request_headers=HeadersResponse()).SerializeToString()
            self.messages.append(next(requests))


def header_names(message: bytes) -> set[str]:
    """Return the names of the headers in a message."""
    request = ProcessingRequest.FromString(message)
    phase = request.request_headers if request.HasField("request_headers") else request.response_headers
    return {header.key for header in phase.headers.headers}
