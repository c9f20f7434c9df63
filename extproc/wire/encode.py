"""Encoding of replies to ProcessingResponse. Constant messages are serialised once, when the module loads.

Header values go into `raw_value`: Envoy sets the header to an empty value if `value` is used. A changed header
affects routing only together with `clear_route_cache`.
"""

import struct
from collections.abc import Callable
from typing import Final

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

from extproc.core.exchange.events import (
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Phase,
    Reply,
)
from extproc.core.headers import HeaderNames
from extproc.core.placing.decision import Decision, Mode

__all__ = ["EVIDENCE_KEY", "METADATA_NAMESPACE", "Encoder"]

METADATA_NAMESPACE = "dualpool"
EVIDENCE_KEY = "evidence"
# Evidence is padded to a multiple of this length, so that few different lengths occur.
EVIDENCE_STEP = 20


class Encoder:
    """Encodes replies; holds the header names. `evidence` returns text for the access log to send with a decision.

    Decisions differ in little but the estimate. So one message per (pool, reason, mode, source), number of digits
    and length of evidence is serialised once, and the numbers and the evidence are filled in. All of these come
    from small sets, so the messages are few.
    """

    def __init__(self, names: HeaderNames, evidence: Callable[[Decision], str | None] | None = None) -> None:
        self._names = names
        self._evidence = evidence
        self._prepared: dict[tuple[object, ...], _Prepared] = {}

    def encode(self, reply: Reply) -> bytes:
        """Return the message of a reply; Close and Abort have none."""
        if isinstance(reply, ContinueBody):
            return _BODY[reply.phase] if reply.decision is None else self._decided(reply.decision, in_body=True)
        if isinstance(reply, ContinueHeaders):
            return (
                _HEADERS[reply.phase] if reply.decision is None else self._decided(reply.decision, in_body=False)
            )
        if isinstance(reply, EchoBody):
            return _echo(reply.phase, reply.data, reply.end_of_stream)
        if isinstance(reply, ContinueTrailers):
            return _TRAILERS[reply.phase]
        raise TypeError(f"{reply} has no message")

    def _decided(self, decision: Decision, *, in_body: bool) -> bytes:
        estimate, budget = decision.estimate, decision.budget
        bound, prompt_tokens = (0, 0) if budget is None else (budget.bound, budget.prompt_tokens)
        digits = b"" if budget is None else b"%d" % bound
        source = None if estimate is None else estimate.source
        evidence = b""
        if self._evidence is not None and estimate is not None:
            said = self._evidence(decision) or ""
            evidence = said.ljust(-(-len(said) // EVIDENCE_STEP) * EVIDENCE_STEP).encode()
        key = (
            *(decision.pool.name, decision.reason, decision.mode, decision.routed, source, in_body),
            *(len(digits), len(evidence)),
        )
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepared[key] = _Prepared(
                decision, self._names, digits, len(evidence), in_body=in_body
            )
        return prepared.filled_in(bound, prompt_tokens, digits, evidence) if digits else prepared.message


class _Prepared:
    """The message for one kind of decision: headers (in mode enforce), and dynamic metadata for access logs.

    If we set no pool header, one that the client sent is removed: the header may only opt in to a smaller pool.
    `digits` belong to any estimate with this number of digits. The offsets of the numbers in the message, and of
    evidence of `evidence_bytes`, are determined once.
    """

    def __init__(
        self, decision: Decision, names: HeaderNames, digits: bytes, evidence_bytes: int, *, in_body: bool
    ) -> None:
        response = ProcessingResponse()
        part = response.request_body if in_body else response.request_headers
        part.response.SetInParent()
        fields = response.dynamic_metadata.fields[METADATA_NAMESPACE].struct_value.fields
        fields["pool"].string_value = decision.pool.name
        fields["reason"].string_value = decision.reason.value
        fields["mode"].string_value = decision.mode.value
        if decision.estimate is not None:
            fields["source"].string_value = decision.estimate.source.value
        if digits:
            fields["estimate"].number_value, fields["prompt_tokens"].number_value = _BOUND, _PROMPT
        if evidence_bytes:
            fields[EVIDENCE_KEY].string_value = _EVIDENCE * evidence_bytes
        if decision.mode is Mode.ENFORCE:
            _mutate(part.response, decision, names, digits)
        self.message = _bytes(response)
        if digits:
            self._bound_at = self.message.index(_NUMBER.pack(_BOUND))
            self._prompt_at = self.message.index(_NUMBER.pack(_PROMPT))
            header = names.estimate.encode() + b"\x1a%c" % len(digits)  # the name, raw_value's tag and its length
            found_at = self.message.find(header)
            self._digits = slice(found_at + len(header), found_at + len(header) + len(digits))
            self._in_header = found_at >= 0
        if evidence_bytes:
            found_at = self.message.index(_EVIDENCE.encode() * evidence_bytes)
            self._evidence = slice(found_at, found_at + evidence_bytes)

    def filled_in(self, bound: int, prompt_tokens: int, digits: bytes, evidence: bytes) -> bytes:
        """Return the message with a bound, whose decimal form is `digits`, prompt tokens, and evidence, if any."""
        message = bytearray(self.message)
        if evidence:
            message[self._evidence] = evidence
        _NUMBER.pack_into(message, self._bound_at, bound)
        _NUMBER.pack_into(message, self._prompt_at, prompt_tokens)
        if self._in_header:
            message[self._digits] = digits
        return bytes(message)


_NUMBER: Final = struct.Struct("<d")  # google.protobuf.Value's number_value on the wire
# Placeholders until the numbers are filled in: bytes that occur in no text.
(_BOUND,), (_PROMPT,) = _NUMBER.unpack(b"\xfeBOUND\xfe\x40"), _NUMBER.unpack(b"\xfePROMP\xfe\x40")
# The placeholder for evidence, repeated; evidence itself never contains it.
_EVIDENCE: Final = "?"


def _mutate(common: CommonResponse, decision: Decision, names: HeaderNames, digits: bytes) -> None:
    common.clear_route_cache = True
    mutation = common.header_mutation
    if decision.routed:
        _set(mutation.set_headers.add(), names.pool, decision.pool.name)
    else:
        mutation.remove_headers.append(names.pool)
    _set(mutation.set_headers.add(), names.reason, decision.reason.value)
    if digits:
        _set(mutation.set_headers.add(), names.estimate, digits.decode())


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
