"""The interface that notifies metrics, logs and traces of what happened; each call carries one frozen object."""

from enum import StrEnum

import msgspec

from extproc.core.errors import ResponseFault
from extproc.core.estimator.protocol import Learning
from extproc.core.facts import ResponseHead
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow, Usage

__all__ = ["Listener", "Misconfiguration", "Observation"]


class Misconfiguration(StrEnum):
    """A gateway configuration that prevents routing or learning, or makes routing unreliable; traffic passes."""

    NO_REQUEST_HEADERS = "no_request_headers"  # request_header_mode: SKIP
    STREAMED_WITHOUT_FLAG = "streamed_without_flag"  # no send_body_without_waiting_for_header_response
    NO_REQUEST_BODY = "no_request_body"  # request_body_mode: NONE, or an unknown one
    ONLY_OBSERVED = "only_observed"  # observability_mode: Envoy ignores every reply
    # Requests are still decided. But Envoy forwards the headers if they are replied to before the first byte of
    # the body arrives, so a request whose head and body come in two writes goes to the default pool whatever we
    # decide.
    BUFFERED_PARTIAL = "buffered_partial"
    # Requests are still decided, but streamed responses are not read: Envoy would hold one back until its end, or
    # fail it with 500.
    RESPONSE_BUFFERED = "response_buffered"
    # response_header_mode: SKIP. Requests are routed, but without its status no response is read.
    NO_RESPONSE_HEADERS = "no_response_headers"


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One response that was read to its end, the pool that sent it, and what was learned from it.

    `stands_for` is the sampling weight: the number of requests of its stratum since the previous observed one, 0
    if this one says nothing about the quality of the estimates.
    """

    decision: Decision
    served_by: Pool
    usage: Usage
    learning: Learning
    stands_for: int = 1


class Listener:
    """Called for everything that an exchange does; a subclass overrides what it needs.

    Implementations must be fast and must not raise.
    """

    def decided(self, decision: Decision) -> None:
        """Called when a request was placed."""

    def passed(self) -> None:
        """Called when a request is not for an API that we route."""

    def kept(self, decision: Decision) -> None:
        """Called when a stream stays open for its response."""

    def released(self, decision: Decision) -> None:
        """Called when a decision's stream is not kept open for the response."""

    def no_slot(self, decision: Decision) -> None:
        """Called when a stream is not kept open because too many already are (`learning.max_streams`)."""

    def sealed(self, decision: Decision) -> None:
        """Called when a decision goes out with evidence for the gateway's access log, which should come back."""

    def left_out(self, decision: Decision) -> None:
        """Called when a decision does not fit into the gateway's access log; its response then teaches nothing."""

    def responded(self, decision: Decision, head: ResponseHead, served_by: Pool) -> None:
        """Called when the head of a response is read: from a kept stream, or from the gateway's access log."""

    def observed(self, observation: Observation) -> None:
        """Called when a response was read, with the estimate's error before learning from it."""

    def not_learned(self, why: ResponseFault) -> None:
        """Called when nothing could be learned from a response."""

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:
        """Called when a pool refused a request because of its length."""

    def retried(self, decision: Decision) -> None:
        """Called when a request sent to a smaller pool was served by a later attempt of the gateway.

        The response does not say by which pool: with `previous_priorities` it is the next larger one; without, it
        may be the same one again. Envoy's per-cluster statistics show which.
        """

    def misconfigured(self, what: Misconfiguration) -> None:
        """Called when the gateway's configuration prevents routing or makes it unreliable."""

    def failed(self, error: Exception) -> None:
        """Called with an exception in the router's own code; the request continues unchanged."""
