"""Driving exchanges over grpc.aio streams: read a message, hand it to the exchange, write what it answers.

The calls of one stream are strictly one after the other but for the deadline's: it comes while the stream waits
for a message, so its writes are finished before the next message is handled.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from extproc.core.events import Action, Close, ContinueBody, ContinueHeaders, Deadline, Event
from extproc.core.exchange import Exchange
from extproc.core.router import Router
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
        self.deadline_s = router.settings.deadline_ms / 1000
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
    def __init__(self, streams: Streams, context: Context) -> None:
        self._streams = streams
        self._context = context
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_writes: asyncio.Task[bool] | None = None
        self._started_s = 0.0
        self._processing_s = 0.0
        self._released = False

    async def run(self) -> None:
        """Serve until the end. A cancellation by `release` ends it as cleanly as a return."""
        try:
            while (message := await self._context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
                if self._deadline_writes is not None:
                    await self._deadline_writes
                if await self._take(message):
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

    def end(self) -> None:
        """Clean up, and record the time spent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._exchange is not None:
            self._exchange.end()
        metrics = self._streams.metrics
        metrics.streams().inc()
        metrics.processing_seconds().observe(self._processing_s)

    async def _take(self, message: bytes) -> bool:
        """Handle one message; True when the stream is to be closed."""
        began_s = time.perf_counter()
        if self._exchange is None:
            self._started_s = began_s
            modes, event = self._streams.decoder.first(message)
            self._exchange = Exchange(self._streams.router, modes)
        else:
            event = self._streams.decoder.next(message)
        answers, closing = self._handle(event, began_s)
        for answer in answers:
            await self._context.write(answer)
        self._set_timer(self._exchange)
        return closing

    def _handle(self, event: Event, began_s: float) -> tuple[list[bytes], bool]:
        assert self._exchange is not None
        actions = self._exchange.handle(event, time.monotonic())
        answers = [self._streams.encoder.encode(action) for action in actions if type(action) is not Close]
        ended_s = time.perf_counter()
        self._processing_s += ended_s - began_s
        if any(map(_decides, actions)):
            self._streams.metrics.decision_seconds().observe(ended_s - self._started_s)
        return answers, len(answers) < len(actions)

    def _set_timer(self, exchange: Exchange) -> None:
        if exchange.holding and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._streams.deadline_s, self._on_deadline)
        elif self._timer is not None and not exchange.holding:
            self._timer.cancel()

    def _on_deadline(self) -> None:
        self._deadline_writes = asyncio.ensure_future(self._write_deadline())

    async def _write_deadline(self) -> bool:
        answers, closing = self._handle(Deadline(), time.perf_counter())
        for answer in answers:
            await self._context.write(answer)
        return closing


def _decides(action: Action) -> bool:
    return isinstance(action, ContinueHeaders | ContinueBody) and action.decision is not None
