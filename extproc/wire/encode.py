"""Replies to ProcessingResponse (bytes). What never varies is serialised once, when the module loads.

Values go into `raw_value`: Envoy leaves a header empty that is set through `value`. A changed header moves a
request only together with `clear_route_cache`.
"""

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from google.protobuf.struct_pb2 import Value

from extproc.core.exchange.events import (
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Phase,
    Reply,
)
from extproc.core.headers import HeaderNames
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode

__all__ = ["METADATA_NAMESPACE", "Encoder"]

METADATA_NAMESPACE = "dualpool"


class Encoder:
    """Encodes replies; holds the header names.

    Decisions differ in little but the estimate: one message for each (pool, reason, mode, source) is made once,
    and the estimate is written into it. All of them come from closed sets, so the messages are few.
    """

    def __init__(self, names: HeaderNames) -> None:
        self._names = names
        self._prepared: dict[tuple[object, ...], _Prepared] = {}

    def encode(self, reply: Reply) -> bytes:
        """Return the message of a reply; Close and Abort have none."""
        match reply:
            case ContinueHeaders(phase, None):
                return _HEADERS[phase]
            case ContinueBody(phase, None):
                return _BODY[phase]
            case ContinueHeaders(_, Decision() as decision):
                return self._decided(decision, in_body=False)
            case ContinueBody(_, Decision() as decision):
                return self._decided(decision, in_body=True)
            case EchoBody(phase, data, ended):
                return _echo(phase, data, ended)
            case ContinueTrailers(phase):
                return _TRAILERS[phase]
            case _:
                raise TypeError(f"{reply} has no message")

    def _decided(self, decision: Decision, *, in_body: bool) -> bytes:
        source = decision.estimate and decision.estimate.source
        key = (decision.pool.name, decision.reason, decision.mode, decision.routed, source, in_body)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = _Prepared(decision, self._names, in_body=in_body)
        return prepared.with_budget(decision.budget)


class _Prepared:
    """The message of one kind of decision: headers unless it is a shadow's, and dynamic metadata for access logs.

    A pool header that the client sent is removed where we set none: it only ever opts in to a smaller pool.
    """

    def __init__(self, decision: Decision, names: HeaderNames, *, in_body: bool) -> None:
        self._response = response = ProcessingResponse()
        part = response.request_body if in_body else response.request_headers
        part.response.SetInParent()
        fields = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
        fields["pool"].string_value = decision.pool.name
        fields["reason"].string_value = decision.reason.value
        fields["mode"].string_value = decision.mode.value
        self._header: HeaderValue | None = None
        self._fields: tuple[Value, Value] | None = None
        if decision.estimate is not None:
            fields["source"].string_value = decision.estimate.source.value
            self._fields = fields["estimate"], fields["prompt_tokens"]
        if decision.mode is Mode.ENFORCE:
            self._mutate(part.response, decision, names)

    def with_budget(self, budget: TokenBudget | None) -> bytes:
        """Return the message with this budget (None where there is none)."""
        if self._fields is not None and budget is not None:
            estimate, prompt_tokens = self._fields
            estimate.number_value = budget.bound
            prompt_tokens.number_value = budget.prompt_tokens
            if self._header is not None:
                self._header.raw_value = b"%d" % budget.bound
        return _bytes(self._response)

    def _mutate(self, common: CommonResponse, decision: Decision, names: HeaderNames) -> None:
        common.clear_route_cache = True
        mutation = common.header_mutation
        if decision.routed:
            _set(mutation.set_headers.add(), names.pool, decision.pool.name)
        else:
            mutation.remove_headers.append(names.pool)
        _set(mutation.set_headers.add(), names.reason, decision.reason.value)
        if decision.budget is not None:
            option = mutation.set_headers.add()
            _set(option, names.estimate, "")
            self._header = option.header


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
