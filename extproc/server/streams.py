"""Driving exchanges over grpc.aio streams: read a message, hand it to the exchange, write what it answers.

The calls of one stream are strictly one after the other but for the deadline's: it comes while the stream waits
for a message, so its writes are finished before the next message is handled.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from extproc.core.events import MAY_DECIDE, Action, Close, Deadline, Event
from extproc.core.exchange import Exchange
from extproc.core.router import Router
from extproc.server.deadlines import Deadlines
from extproc.telemetry.metrics import Metrics
from extproc.wire.decode import Decoder, UnknownMessage
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
        """Return cleanly from every stream that waits, but those that would lose bytes (at the end of a drain)."""
        for stream in self._open:
            stream.release()


class _Stream:
    __slots__ = (
        "_began_s",
        "_context",
        "_deadline_writes",
        "_exchange",
        "_processing_s",
        "_released",
        "_streams",
        "_task",
    )

    def __init__(self, streams: Streams, context: Context) -> None:
        self._streams = streams
        self._context = context
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._exchange: Exchange | None = None
        self._deadline_writes: asyncio.Task[None] | None = None
        self._began_s = 0.0
        self._processing_s = 0.0
        self._released = False

    async def run(self) -> None:
        """Serve until the end. A cancellation by `release` ends it as cleanly as a return."""
        context = self._context
        try:
            while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # not in stubs
                if self._deadline_writes is not None:
                    await self._deadline_writes
                answers, closing = self._take(message)
                for answer in answers:
                    await context.write(answer)
                if closing:
                    return
        except UnknownMessage as error:
            self._streams.router.listener.failed(error)
        except asyncio.CancelledError:
            if not self._released:
                raise

    def release(self) -> None:
        """Leave a stream that waits for its next message."""
        if self._task is not None and self._exchange is not None and self._exchange.may_leave:
            self._released = True
            self._task.cancel()

    def on_deadline(self) -> None:
        """Answer what is still held."""
        if self._exchange is not None and self._exchange.holding:
            self._deadline_writes = asyncio.ensure_future(self._write_deadline())

    def end(self) -> None:
        """Record the time spent, and tell the exchange."""
        if self._exchange is not None:
            self._exchange.end()
        metrics = self._streams.metrics
        metrics.streams().inc()
        metrics.processing_seconds().observe(self._processing_s)

    def _take(self, message: bytes) -> tuple[list[bytes], bool]:
        """Handle one message: what to write, and whether the stream is to be closed after it."""
        now_s = time.monotonic()
        if self._exchange is None:
            modes, event = self._streams.decoder.first(message)
            self._exchange = Exchange(self._streams.router, modes)
            self._began_s = now_s
            taken = self._handle(self._exchange, event, now_s)
            if self._exchange.holding:
                self._streams.deadlines.add(self, now_s)
            return taken
        return self._handle(self._exchange, self._streams.decoder.next(message), now_s)

    def _handle(self, exchange: Exchange, event: Event, now_s: float) -> tuple[list[bytes], bool]:
        streams = self._streams
        actions = exchange.handle(event, now_s)
        answers = [streams.encoder.encode(action) for action in actions if type(action) is not Close]
        ended_s = time.monotonic()
        self._processing_s += ended_s - now_s
        if any(map(_decides, actions)):
            streams.metrics.decision_seconds().observe(ended_s - self._began_s)
        return answers, len(answers) < len(actions)

    async def _write_deadline(self) -> None:
        if self._exchange is not None:
            answers, _ = self._handle(self._exchange, Deadline(), time.monotonic())
            for answer in answers:
                await self._context.write(answer)


def _decides(action: Action) -> bool:
    return isinstance(action, MAY_DECIDE) and action.decision is not None
