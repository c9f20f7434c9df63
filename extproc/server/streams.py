"""Driving exchanges over grpc.aio streams: read a message, hand it to the exchange, write what it answers.

The calls of one stream are strictly one after the other but for the deadline's: it comes while the stream waits
for a message, so its writes are finished before the next message is handled.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from extproc.core.exchange.events import MAY_DECIDE, Action, BodyMode, Close, Deadline, Event, Modes
from extproc.core.exchange.machine import Exchange
from extproc.core.router.router import Router
from extproc.server.deadlines import Deadlines
from extproc.telemetry.metrics import Metrics
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

__all__ = ["Streams"]

Context = grpc.aio.ServicerContext[bytes, bytes]


class Streams:
    """All open streams of one server; `process` is the ext_proc method's handler (raw bytes in and out)."""

    def __init__(self, router: Router, decoder: Decoder, encoder: Encoder, metrics: Metrics) -> None:
        self.router = router
        self.decoder = decoder
        self.encoder = encoder
        self.metrics = metrics
        self.deadlines = Deadlines(router.settings.deadline_ms / 1000)
        self.releasing = False
        self._open: set[_Stream] = set()
        metrics.open_streams.set_function(self._open.__len__)

    async def process(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """Serve one stream until its exchange closes it or the gateway does."""
        stream = _Stream(self, context)
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            self._open.discard(stream)
            stream.end()

    def release(self) -> None:
        """Return cleanly from every stream that waits, at the end of a drain.

        Those that would lose bytes are returned from as soon as they would not any more.
        """
        self.releasing = True
        for stream in self._open:
            stream.release()


class _Stream:
    __slots__ = (
        "_began_s",
        "_busy",
        "_context",
        "_deadline_writes",
        "_exchange",
        "_leaving",
        "_loses_bytes",
        "_modes",
        "_processing_s",
        "_streams",
        "_task",
    )

    def __init__(self, streams: Streams, context: Context) -> None:
        self._streams = streams
        self._context = context
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._modes = Modes()
        self._exchange: Exchange | None = None
        self._deadline_writes: asyncio.Task[None] | None = None
        self._busy = False
        self._began_s = 0.0
        self._processing_s = 0.0
        self._leaving = False
        self._loses_bytes = False

    async def run(self) -> None:
        """Serve until the end. A cancellation of our own ends it as cleanly as a return."""
        try:
            await self._serve()
        except asyncio.CancelledError:
            if not self._leaving:
                raise
        if self._loses_bytes:
            await self._context.abort(grpc.StatusCode.INTERNAL, "an exception in the router; see its log")

    def release(self) -> None:
        """Leave a stream that waits for its next message; one that writes returns by itself after that."""
        if not self._busy and self._exchange is not None and self._exchange.may_leave:
            self._leave()

    @property
    def waits(self) -> bool:
        """Whether a request is held."""
        return self._exchange is not None and self._exchange.holding

    def on_deadline(self) -> None:
        """Answer what is held."""
        self._deadline_writes = asyncio.ensure_future(self._write_deadline())

    def end(self) -> None:
        """Record the time spent, and tell the exchange."""
        if self._exchange is not None:
            self._exchange.end()
        metrics = self._streams.metrics
        metrics.streams().inc()
        metrics.processing_seconds().observe(self._processing_s)

    async def _serve(self) -> None:
        context = self._context
        while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # not in stubs
            self._busy = True
            if self._deadline_writes is not None:
                await self._deadline_writes
            replies, closing = self._take(message)
            for reply in replies:
                await context.write(reply)
            if closing or self._released():
                return
            self._busy = False

    def _released(self) -> bool:
        exchange = self._exchange
        return self._streams.releasing and exchange is not None and exchange.may_leave and not exchange.holding

    async def _write_deadline(self) -> None:
        replies, closing = self._take(None)
        for reply in replies:
            await self._context.write(reply)
        if closing:
            self._leave()

    def _leave(self) -> None:
        if self._task is not None:
            self._leaving = True
            self._task.cancel()

    def _take(self, message: bytes | None) -> tuple[list[bytes], bool]:
        """Handle a message, or the deadline (None): what to write, and whether to close the stream after it.

        A failure of ours fails no request: it closes the stream, which answers everything. Only where that would
        lose a part of a body unnoticed, the gateway is told.
        """
        closable = self._closable()
        try:
            return self._handle(message)
        except Exception as error:  # noqa: BLE001  (whatever it is, the request goes on)
            self._streams.router.listener.failed(error)
            self._loses_bytes = not (closable and self._closable())
            return [], True

    def _closable(self) -> bool:
        """Whether a close loses nothing, even if the next message is the first of a response."""
        duplex_response = self._modes.response_body is BodyMode.FULL_DUPLEX_STREAMED
        return self._exchange is None or (self._exchange.may_leave and not duplex_response)

    def _handle(self, message: bytes | None) -> tuple[list[bytes], bool]:
        now_s = time.monotonic()
        if message is None:
            assert self._exchange is not None
            return self._reply(self._exchange, Deadline(), now_s)
        if self._exchange is not None:
            return self._reply(self._exchange, self._streams.decoder.next(message), now_s)
        self._modes, event = self._streams.decoder.first(message)
        self._exchange = Exchange(self._streams.router, self._modes)
        self._began_s = now_s
        taken = self._reply(self._exchange, event, now_s)
        if self._exchange.holding:
            self._streams.deadlines.add(self, now_s)
        return taken

    def _reply(self, exchange: Exchange, event: Event, now_s: float) -> tuple[list[bytes], bool]:
        streams = self._streams
        actions = exchange.handle(event, now_s)
        replies = [streams.encoder.encode(action) for action in actions if type(action) is not Close]
        ended_s = time.monotonic()
        self._processing_s += ended_s - now_s
        if any(map(_decides, actions)):
            streams.metrics.decision_seconds().observe(ended_s - self._began_s)
        return replies, len(replies) < len(actions)


def _decides(action: Action) -> bool:
    return isinstance(action, MAY_DECIDE) and action.decision is not None
