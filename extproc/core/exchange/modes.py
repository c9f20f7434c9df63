"""The modes in which a gateway sends headers and bodies, and their consequences for an exchange.

Sources: Envoy's `processing_mode.proto` and `external_processor.proto`.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from extproc.core.listener import Misconfiguration

__all__ = ["BodyMode", "Modes"]


class BodyMode(IntEnum):
    """How the gateway sends a body; the numbers of Envoy's ProcessingMode.BodySendMode."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    OTHER = 5


_BUFFERED = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)


@dataclass(frozen=True, slots=True)
class Modes:
    """The gateway's modes, from the protocol_config of the first message.

    `body_without_waiting` is send_body_without_waiting_for_header_response: in STREAMED, body chunks arrive while
    the reply to the headers is still held. `replies_ignored` is observability_mode: the gateway acts on no reply.
    The other fields are derived once, since every request needs them: whether bodies are sent back
    (`full_duplex`), whether the request's headers are held until it is placed (`holds_headers`), whether those of
    a response may be held until its body begins (`response_without_waiting`), whether responses
    (`response_readable`), and streamed ones too (`stream_readable`), can be read, and why requests cannot be
    routed (`fault`), or not reliably (`doubts`).
    """

    request_body: BodyMode = BodyMode.BUFFERED
    response_body: BodyMode = BodyMode.BUFFERED
    body_without_waiting: bool = False
    replies_ignored: bool = False
    full_duplex: bool = field(init=False, repr=False, compare=False)
    holds_headers: bool = field(init=False, repr=False, compare=False)
    response_without_waiting: bool = field(init=False, repr=False, compare=False)
    response_readable: bool = field(init=False, repr=False, compare=False)
    stream_readable: bool = field(init=False, repr=False, compare=False)
    fault: Misconfiguration | None = field(init=False, repr=False, compare=False)
    doubts: tuple[Misconfiguration, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        request, response = self.request_body, self.response_body
        buffered = response in _BUFFERED
        derived = {
            "full_duplex": BodyMode.FULL_DUPLEX_STREAMED in (request, response),
            "holds_headers": request not in _BUFFERED,
            "response_without_waiting": self.body_without_waiting and request is response is BodyMode.STREAMED,
            "response_readable": response is not BodyMode.NONE,
            "stream_readable": response is not BodyMode.NONE and not buffered,
            "fault": self._fault(),
            "doubts": (
                *((Misconfiguration.BUFFERED_PARTIAL,) if request is BodyMode.BUFFERED_PARTIAL else ()),
                *((Misconfiguration.RESPONSE_BUFFERED,) if buffered else ()),
            ),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _fault(self) -> Misconfiguration | None:
        if self.replies_ignored:
            return Misconfiguration.ONLY_OBSERVED
        if self.request_body in (BodyMode.NONE, BodyMode.OTHER):
            return Misconfiguration.NO_REQUEST_BODY
        if self.request_body is BodyMode.STREAMED and not self.body_without_waiting:
            return Misconfiguration.STREAMED_WITHOUT_FLAG
        return None
