"""The interface by which metrics, logs and traces are told what happened; each call carries one frozen object."""

from enum import StrEnum

import msgspec

from extproc.core.errors import ResponseFault
from extproc.core.estimator.protocol import Learning
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow, Usage

__all__ = ["Listener", "Misconfiguration", "Observation"]


class Misconfiguration(StrEnum):
    """A gateway configuration with which requests cannot be routed, or not reliably; traffic passes untouched."""

    NO_REQUEST_HEADERS = "no_request_headers"  # request_header_mode: SKIP
    STREAMED_WITHOUT_FLAG = "streamed_without_flag"  # no send_body_without_waiting_for_header_response
    NO_REQUEST_BODY = "no_request_body"  # request_body_mode: NONE, or one we do not know
    # Still decided. Envoy lets the headers go on when they are replied to before the body's first byte is there: a
    # request whose head and body come in two writes goes to the default pool whatever we say.
    BUFFERED_PARTIAL = "buffered_partial"
    # Still decided, and streams are not kept: Envoy would hold a response back until its end, or fail it with 500.
    RESPONSE_BUFFERED = "response_buffered"


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One response that was read whole, the pool that gave it, and what it taught.

    `stands_for` is how many requests of its stratum came since the one observed before it: what is true of this
    one counts for so many of all.
    """

    decision: Decision
    served_by: Pool
    usage: Usage
    learning: Learning
    stands_for: int = 1


class Listener:
    """Called with everything that an exchange does; a subclass overrides what it needs.

    Implementations must not raise and must be quick.
    """

    def decided(self, decision: Decision) -> None:
        """Called when a request was placed."""

    def passed(self) -> None:
        """Called when a request was none of ours."""

    def kept(self, decision: Decision) -> None:
        """Called when a stream stays open for its response."""

    def released(self, decision: Decision) -> None:
        """Called when a stream is over with its decision."""

    def succeeded(self, decision: Decision) -> None:
        """Called when a pool serves a kept request: the head of its response is a 2xx."""

    def observed(self, observation: Observation) -> None:
        """Called when a response was read, with the error before it was learned from."""

    def not_learned(self, why: ResponseFault) -> None:
        """Called when a kept response taught nothing."""

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:
        """Called when a pool refused a request for its length."""

    def retried(self, decision: Decision) -> None:
        """Called when what was sent to a smaller pool was served by a later attempt of the gateway.

        The response does not say by which pool: with `previous_priorities` it is the next larger one, without them
        it may be the same again. Envoy's own statistics tell, by cluster.
        """

    def misconfigured(self, what: Misconfiguration) -> None:
        """Called when the gateway is configured so that nothing can be routed."""

    def failed(self, error: Exception) -> None:
        """Called with an exception in the router's own code; the request goes on unchanged."""
