"""Decoding of ProcessingRequest to events. Source: envoy/service/ext_proc/v3/external_processor.proto.

Header names arrive in lower case, values in `raw_value` (`value` from older gateways). Only the few headers that
are needed are read; the others, which include credentials, never leave this module.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from envoy.config.core.v3.base_pb2 import HeaderMap
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from extproc.core.exchange.events import (
    BodyMode,
    Event,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from extproc.core.facts import RequestHead, ResponseHead

__all__ = ["Decoder", "UnknownMessage"]

MAX_DIGITS = 9

_MODES = {mode.value: mode for mode in BodyMode}


class UnknownMessage(ValueError):
    """A message of a kind that is unknown to this version, or that is not valid protobuf."""


class Decoder:
    """Decodes messages. `tenant_header` is the header for keying categories, in lower case, or "".

    With a clock, in ns, request heads carry what traces need: `traceparent` and the time of arrival.
    """

    def __init__(self, tenant_header: str = "", clock_ns: Callable[[], int] | None = None) -> None:
        self._clock_ns = clock_ns
        self._request_fields = {
            ":method": "method",
            ":path": "path",
            "content-encoding": "content_encoding",
            "x-request-id": "request_id",
        }
        if clock_ns is not None:
            self._request_fields["traceparent"] = "traceparent"
        if tenant_header:
            self._request_fields[tenant_header] = "tenant"

    def first(self, message: bytes) -> tuple[Modes, Event]:
        """Decode a stream's first message to the gateway's modes and the first event.

        Without protocol_config (older gateways) BUFFERED is assumed: it is the only mode in which a response never
        arrives before the end of the request. Raises UnknownMessage.
        """
        try:
            request = ProcessingRequest.FromString(message)
        except DecodeError as error:
            raise _not_a_request(message, error) from error
        event = self._event(request, request.WhichOneof("request"))
        if not request.HasField("protocol_config"):
            return Modes(replies_ignored=request.observability_mode), event
        config = request.protocol_config
        modes = _modes(
            config.request_body_mode,
            config.response_body_mode,
            config.send_body_without_waiting_for_header_response,
            request.observability_mode,
        )
        return modes, event

    def next(self, message: bytes) -> Event:
        """Decode a later message of a stream. Raises UnknownMessage."""
        try:
            request = ProcessingRequest.FromString(message)
        except DecodeError as error:
            raise _not_a_request(message, error) from error
        match request.WhichOneof("request"):
            # A stream may have many of these two, and only one of every other kind.
            case "response_body":
                part = request.response_body
                return ResponseBody(part.body, part.end_of_stream)
            case "request_body":
                part = request.request_body
                return RequestBody(part.body, part.end_of_stream)
            case kind:
                return self._event(request, kind)

    def _event(self, request: ProcessingRequest, kind: str | None) -> Event:
        match kind:
            case "request_headers":
                headers = request.request_headers
                picked = _pick(headers.headers, self._request_fields)
                arrived_ns = self._clock_ns() if self._clock_ns is not None else 0
                return RequestHeaders(RequestHead(**picked, arrived_ns=arrived_ns), headers.end_of_stream)
            case "request_body":
                return RequestBody(request.request_body.body, request.request_body.end_of_stream)
            case "response_headers":
                return _response_headers(request)
            case "response_body":
                return ResponseBody(request.response_body.body, request.response_body.end_of_stream)
            case "request_trailers":
                return RequestTrailers()
            case "response_trailers":
                return ResponseTrailers()
            case other:
                raise UnknownMessage(f"ProcessingRequest of kind {other}")


# All streams of a gateway have the same modes, so there are only a few.
@lru_cache(maxsize=64)
def _modes(request_body: int, response_body: int, without_waiting: bool, ignored: bool) -> Modes:  # noqa: FBT001
    request, response = _MODES.get(request_body, BodyMode.OTHER), _MODES.get(response_body, BodyMode.OTHER)
    return Modes(request, response, without_waiting, ignored)


_RESPONSE_FIELDS = {
    ":status": "status",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "x-envoy-attempt-count": "attempts",
}


def _response_headers(request: ProcessingRequest) -> ResponseHeaders:
    headers = request.response_headers
    picked = _pick(headers.headers, _RESPONSE_FIELDS)
    head = ResponseHead(
        status=_number(picked.get("status", ""), 0),
        content_type=picked.get("content_type", ""),
        content_encoding=picked.get("content_encoding", ""),
        attempts=_number(picked.get("attempts", ""), 1),
    )
    return ResponseHeaders(head, headers.end_of_stream)


def _pick(headers: HeaderMap, fields: Mapping[str, str]) -> dict[str, str]:
    picked = {}
    for header in headers.headers[:]:  # a list: such a container's own iteration ends with an IndexError
        field = fields.get(header.key)
        if field is not None:
            picked[field] = header.raw_value.decode("latin-1") if header.raw_value else header.value
    return picked


def _number(text: str, otherwise: int) -> int:
    """Return the number, or `otherwise` if it is not one. int() would raise for thousands of digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else otherwise


def _not_a_request(message: bytes, error: DecodeError) -> UnknownMessage:
    return UnknownMessage(f"{len(message)} bytes that are not a ProcessingRequest: {error}")
