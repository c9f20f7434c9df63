"""Actions to ProcessingResponse (bytes). What never varies is serialised once, when the module loads.

Values go into `raw_value`: Envoy leaves a header empty that is set through `value`. A changed header moves a
request only together with `clear_route_cache`.
"""

from dataclasses import dataclass

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)

from extproc.core.decision import Decision, Mode
from extproc.core.events import (
    Action,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Phase,
)

__all__ = ["METADATA_NAMESPACE", "Encoder", "HeaderNames"]

METADATA_NAMESPACE = "dualpool"


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """Names of the headers that a decision sets on the request (lower-case)."""

    pool: str = "x-token-budget-pool"
    estimate: str = "x-token-budget-estimate"
    reason: str = "x-token-budget-reason"


class Encoder:
    """Encodes actions; holds the header names."""

    def __init__(self, names: HeaderNames) -> None:
        self._names = names

    def encode(self, action: Action) -> bytes:
        """Return the message of an action; Close has none."""
        match action:
            case ContinueHeaders(phase, None):
                return _HEADERS[phase]
            case ContinueBody(phase, None):
                return _BODY[phase]
            case ContinueHeaders(_, Decision() as decision):
                response = ProcessingResponse()
                self._write(decision, response.request_headers.response, response)
                return _bytes(response)
            case ContinueBody(_, Decision() as decision):
                response = ProcessingResponse()
                self._write(decision, response.request_body.response, response)
                return _bytes(response)
            case EchoBody(phase, data, ended):
                return _echo(phase, data, ended)
            case ContinueTrailers(phase):
                return _TRAILERS[phase]
            case _:
                raise TypeError(f"{action} has no message")

    def _write(self, decision: Decision, common: CommonResponse, response: ProcessingResponse) -> None:
        """Write a decision: headers unless it is a shadow's, and dynamic metadata for access logs always.

        A pool header that the client sent is removed where we set none: it only ever opts in to a smaller pool.
        """
        names, budget = self._names, decision.budget
        fields = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
        fields["pool"].string_value = decision.pool.name
        fields["reason"].string_value = decision.reason.value
        fields["mode"].string_value = decision.mode.value
        if budget is not None:
            fields["estimate"].number_value = budget.bound
        if decision.mode is not Mode.ENFORCE:
            return
        common.clear_route_cache = True
        mutation = common.header_mutation
        if decision.routed:
            _set(mutation.set_headers.add(), names.pool, decision.pool.name)
        else:
            mutation.remove_headers.append(names.pool)
        if budget is not None:
            _set(mutation.set_headers.add(), names.estimate, str(budget.bound))
        _set(mutation.set_headers.add(), names.reason, decision.reason.value)


def _bytes(response: ProcessingResponse) -> bytes:
    message: bytes = response.SerializeToString()
    return message


def _set(option: HeaderValueOption, key: str, value: str) -> None:
    option.header.key = key
    option.header.raw_value = value.encode("ascii", "replace")
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _echo(phase: Phase, data: bytes, ended: bool) -> bytes:  # noqa: FBT001
    piece = StreamedBodyResponse(body=data, end_of_stream=ended)
    body = BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=piece)))
    if phase is Phase.REQUEST:
        return _bytes(ProcessingResponse(request_body=body))
    return _bytes(ProcessingResponse(response_body=body))


_HEADERS = {
    Phase.REQUEST: _bytes(ProcessingResponse(request_headers=HeadersResponse())),
    Phase.RESPONSE: _bytes(ProcessingResponse(response_headers=HeadersResponse())),
}
_BODY = {
    Phase.REQUEST: _bytes(ProcessingResponse(request_body=BodyResponse())),
    Phase.RESPONSE: _bytes(ProcessingResponse(response_body=BodyResponse())),
}
_TRAILERS = {
    Phase.REQUEST: _bytes(ProcessingResponse(request_trailers=TrailersResponse())),
    Phase.RESPONSE: _bytes(ProcessingResponse(response_trailers=TrailersResponse())),
}
