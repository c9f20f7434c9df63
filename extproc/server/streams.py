"""Exchanges over calls: receive a message, pass it to the exchange, send its replies.

The exchange knows what is allowed in which state, and the call in which order messages go out. This module
connects them: it decodes bytes to events, encodes replies to bytes, and handles the deadline, the drain and the
metrics.
"""

import time
from collections.abc import Sequence

from extproc.core.exchange.events import Abort, Broken, Close, Deadline, Drain, Event, Reply, ResponseHeaders, Shed
from extproc.core.exchange.machine import Exchange
from extproc.server.grpc_core import FAULT, INTERNAL, OK, Call
from extproc.server.overload import TARGET_S, Overload
from extproc.server.routing import Routing
from extproc.telemetry.labels import Undecided
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.tallies import PLAIN

__all__ = ["Streams"]


class Streams:
    """All open streams of one server; new streams use `routing`."""

    def __init__(self, routing: Routing, metrics: Metrics) -> None:
        self.routing = routing
        self.metrics = metrics
        self.overload = Overload()
        self.draining = False
        self.open: set[_Stream] = set()
        metrics.open_streams.set_function(self.open.__len__)

    def serve(self, call: Call) -> None:
        """Serve one stream until its exchange or the gateway closes it."""
        stream = call.handler = _Stream(self, call)
        call.then = stream.over
        self.open.add(stream)
        if self.overload.wants_mark(stream.last_message_s):
            call.mark(self._on_turn)
        call.send()

    def close_idle(self, before_s: float) -> None:
        """Close the streams on which the gateway has sent nothing since `before_s`."""
        for stream in [each for each in self.open if each.last_message_s < before_s]:
            stream.close_idle()

    def drain(self) -> frozenset["_Stream"]:
        """End every exchange as soon as that is harmless, also new ones; called after the drain time.

        Return the streams that were open: they leave `open` one by one.
        """
        self.draining = True
        ending = frozenset(self.open)
        for stream in ending:
            stream.drain()
        return ending

    def _on_turn(self) -> None:
        self.metrics.queue_seconds.observe(self.overload.on_turn(time.monotonic()))


class _Stream:
    __slots__ = ("_began_s", "_call", "_exchange", "_processing_s", "_routing", "_streams", "last_message_s")

    def __init__(self, streams: Streams, call: Call) -> None:
        self._streams = streams
        self._call = call
        self._routing = streams.routing
        self._exchange: Exchange | None = None
        self._began_s = 0.0
        self._processing_s = 0.0
        self.last_message_s = time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether headers are held."""
        return self._exchange is not None and self._exchange.holding and not self._call.finished

    def on_message(self, message: bytes) -> None:
        """Called with each message from the gateway."""
        streams, exchange = self._streams, self._exchange
        self.last_message_s = now_s = time.monotonic()
        try:
            if exchange is not None:
                event = self._routing.decoder.next(message)
            else:
                # Not earlier: a routing that was swapped out is no longer checked for deadlines when it has none.
                self._routing = streams.routing
                modes, event = self._routing.decoder.first(message)
        except Exception as error:  # noqa: BLE001  (whatever it is, the request goes on)
            self._break(Broken(error))
            return
        if exchange is not None:
            self._handle(event, exchange)
            if type(event) is ResponseHeaders and exchange.holding:
                # Those of the routing in force, for the same reason; and the message waited for its turn.
                streams.routing.deadlines.add(self, now_s - streams.overload.lag_s)
            return
        self._exchange = exchange = Exchange(self._routing.router, modes)
        if streams.draining:
            exchange.handle(Drain(), 0.0)
        # The call waited for its turn, and then so did its message.
        self._began_s = now_s - 2 * streams.overload.lag_s
        self._handle(event, exchange)
        if exchange.undecided and not self._call.finished and streams.overload.sheds(now_s):
            self._shed(exchange)
        elif exchange.holding:
            self._routing.deadlines.add(self, self._began_s)

    def on_end(self) -> None:
        """Called when the gateway ends the stream or disconnects."""
        self._finish((), OK, cause=Undecided.GATEWAY_LEFT)

    def on_deadline(self) -> None:
        """Called at the deadline: reply to the headers that are still held."""
        overload, exchange = self._streams.overload, self._exchange
        if exchange is None:
            return
        if exchange.undecided and overload.lag_s >= TARGET_S:
            overload.count(in_time=False, now_s=time.monotonic())
        self._handle(Deadline(), exchange)

    def drain(self) -> None:
        """Drain the exchange; if it has not begun, `on_message` drains it when it does."""
        if self._exchange is not None:
            self._handle(Drain(), self._exchange)

    def close_idle(self) -> None:
        """End as soon as that is harmless; at once if no message has ever come."""
        if self._exchange is not None:
            self._handle(Drain(), self._exchange)
        else:
            self._finish((), OK, cause=Undecided.IDLE)

    def over(self) -> None:
        """Called when the last reply is on its way: only then learn, which takes as long as a decision."""
        streams, began_s = self._streams, time.monotonic()
        streams.open.discard(self)
        streams.metrics.streams[PLAIN] += 1
        try:
            if self._exchange is not None:
                self._exchange.end()
        finally:
            self._processing_s += time.monotonic() - began_s
            streams.metrics.processing_seconds.observe(self._processing_s)

    def _shed(self, exchange: Exchange) -> None:
        self._streams.metrics.shed_requests[PLAIN] += 1
        self._streams.overload.count(in_time=False, now_s=self.last_message_s)
        self._handle(Shed(), exchange)

    def _break(self, event: Broken) -> None:
        if self._exchange is not None:
            self._handle(event, self._exchange)
        else:
            self._routing.router.listener.failed(event.error)
            self._finish((), OK, cause=Undecided.NOT_UNDERSTOOD)

    def _handle(self, event: Event, exchange: Exchange) -> None:
        """Pass an event to the exchange, and send its replies."""
        streams, now_s = self._streams, time.monotonic()
        if self._call.finished:
            return
        replies = exchange.handle(event, now_s)
        if not replies:  # more is to come before anything can be said
            self._processing_s += time.monotonic() - now_s
            self._call.send()
            return
        encode, messages, end = self._routing.encoder.encode, [], None
        try:
            for reply in replies:
                if type(reply) in _ENDS:
                    end = type(reply)
                else:
                    messages.append(encode(reply))
        except Exception as error:  # noqa: BLE001  (as above)
            self._break(Broken(error, unsent=True))
            return
        ended_s = time.monotonic()
        self._processing_s += ended_s - now_s
        if _decides(replies[0]):  # a decision is always the first reply
            streams.metrics.decision_seconds.observe(ended_s - self._began_s)
            if type(event) not in _GIVEN_UP:
                streams.overload.count(in_time=True, now_s=ended_s)
        if end is None:
            self._call.send(messages)
        elif end is Close:
            self._finish(messages, OK)
        else:
            self._finish(messages, INTERNAL, FAULT)

    def _finish(
        self, messages: Sequence[bytes], code: int, details: bytes = b"", cause: Undecided = Undecided.ENDED_BY_US
    ) -> None:
        """End the stream; `cause` is counted if nothing was decided."""
        if self._call.finished:
            return
        if self._exchange is None or self._exchange.undecided:
            self._streams.metrics.undecided[cause,] += 1
        self._call.finish(messages, code, details)


_ENDS = (Close, Abort)
_GIVEN_UP = (Deadline, Shed)


def _decides(reply: Reply) -> bool:
    return getattr(reply, "decision", None) is not None
