"""Driving exchanges over grpc.aio streams: read a message, hand it to the exchange, write what it replies.

What an exchange may do when is its own to know; here is only the order of reads and writes. Messages of a stream
are handled one after the other. A deadline or a drain comes in between: its replies are written before the next
message is handled.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from extproc.core.exchange.events import Abort, Broken, Close, Deadline, Drain, Event, Reply
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

    def __init__(
        self, router: Router, decoder: Decoder, encoder: Encoder, metrics: Metrics, deadline_ms: int
    ) -> None:
        self.router = router
        self.decoder = decoder
        self.encoder = encoder
        self.metrics = metrics
        self.deadlines = Deadlines(deadline_ms / 1000)
        self.draining = False
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

    def drain(self) -> None:
        """Let every exchange end as soon as that is harmless, at the end of a drain."""
        self.draining = True
        for stream in self._open:
            stream.drain()


class _Stream:
    __slots__ = (
        "_aborted",
        "_began_s",
        "_busy",
        "_closed",
        "_context",
        "_deadline_writes",
        "_exchange",
        "_processing_s",
        "_streams",
        "_task",
    )

    def __init__(self, streams: Streams, context: Context) -> None:
        self._streams = streams
        self._context = context
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._exchange: Exchange | None = None
        self._deadline_writes: asyncio.Task[None] | None = None
        self._busy = False
        self._closed = False
        self._aborted = False
        self._began_s = 0.0
        self._processing_s = 0.0

    async def run(self) -> None:
        """Serve until the end. A cancellation of our own ends it as cleanly as a return."""
        try:
            await self._serve()
        except asyncio.CancelledError:
            if not self._closed:
                raise
        if self._aborted:
            await self._context.abort(grpc.StatusCode.INTERNAL, "an exception in the router; see its log")

    def drain(self) -> None:
        """Tell the exchange; a stream that it closes ends now, or when what is being written is out."""
        if self._exchange is not None:
            self._handle(Drain(), self._exchange)
            if self._closed and not self._busy:
                self._interrupt()

    @property
    def waits(self) -> bool:
        """Whether a request is held."""
        return self._exchange is not None and self._exchange.holding

    def on_deadline(self) -> None:
        """Reply to what is held."""
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
        while not self._closed:
            message = await context.read()
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in stubs
                return
            self._busy = True
            if self._deadline_writes is not None:
                await self._deadline_writes
            if not self._closed:
                for reply in self._take(message):
                    await context.write(reply)
            self._busy = False

    async def _write_deadline(self) -> None:
        assert self._exchange is not None
        for reply in self._handle(Deadline(), self._exchange):
            await self._context.write(reply)
        if self._closed and not self._busy:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _take(self, message: bytes) -> list[bytes]:
        """Handle a message; return what to write."""
        decoder, exchange = self._streams.decoder, self._exchange
        try:
            if exchange is not None:
                return self._handle(decoder.next(message), exchange)
            modes, event = decoder.first(message)
        except Exception as error:  # noqa: BLE001  (whatever it is, the request goes on)
            return self._break(Broken(error))
        self._exchange = exchange = Exchange(self._streams.router, modes)
        if self._streams.draining:
            exchange.handle(Drain(), 0.0)
        replies = self._handle(event, exchange)
        if exchange.holding:
            self._streams.deadlines.add(self, self._began_s)
        return replies

    def _break(self, event: Broken) -> list[bytes]:
        if self._exchange is None:
            self._streams.router.listener.failed(event.error)
            self._closed = True
            return []
        return self._handle(event, self._exchange)

    def _handle(self, event: Event, exchange: Exchange) -> list[bytes]:
        """Hand an event to the exchange; return what to write. Notes whether the stream is over after that."""
        streams, now_s = self._streams, time.monotonic()
        self._began_s = self._began_s or now_s
        replies = exchange.handle(event, now_s)
        try:
            messages = [streams.encoder.encode(reply) for reply in replies if type(reply) not in _ENDS]
        except Exception as error:  # noqa: BLE001  (as above)
            return self._break(Broken(error, unsent=True))
        if len(messages) < len(replies):
            self._closed, self._aborted = True, type(replies[-1]) is Abort
        ended_s = time.monotonic()
        self._processing_s += ended_s - now_s
        if any(map(_decides, replies)):
            streams.metrics.decision_seconds().observe(ended_s - self._began_s)
        return messages


_ENDS = (Close, Abort)


def _decides(reply: Reply) -> bool:
    return getattr(reply, "decision", None) is not None
