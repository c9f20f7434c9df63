"""The server of Envoy's gRPC access log (ALS), which never delays a decision for long.

A message is processed in slices of about half a millisecond. Between slices all pending events are handled, and
all slices together, and the decoding before them, are limited to a share of the time. Streams that have used it
up wait for their turn, and only the first of them costs anything: there may be thousands. A stream with
unprocessed entries is not read: gRPC's flow control then holds back the gateway, whose own buffers are bounded,
and which drops and counts what does not fit. So a flood costs no more than its share, and at most one message per
stream is held.

Source: envoy/service/accesslog/v3/als.proto.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.access_log.entry import LogEntry
from extproc.access_log.payload import Payloads
from extproc.access_log.seal import Keys, Seal
from extproc.access_log.teacher import Outcome, Teacher, pools_by_cluster
from extproc.config.schema import Configuration
from extproc.core.listener import Listener
from extproc.core.placing.decision import Decision
from extproc.core.router.router import Router
from extproc.core.time_share import TimeShare
from extproc.server.grpc_core import FAULT, INTERNAL, INVALID_ARGUMENT, UNIMPLEMENTED, Call
from extproc.telemetry.metrics import Metrics
from extproc.wire.access_log import decode_log
from extproc.wire.decode import UnknownMessage

__all__ = ["STREAM_ACCESS_LOGS", "AccessLogs", "Teaching", "teaching_of"]

STREAM_ACCESS_LOGS: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
# Envoy flushes when its buffer reaches 16 KiB (`buffer_size_bytes`), so a message exceeds that by one entry at
# most. Larger messages, and those with more entries, are not read: a thousand entries take 5 ms to decode.
MAX_MESSAGE_BYTES: Final = 256 << 10
MAX_ENTRIES: Final = 1_000
SLICE_S: Final = 0.0005
# How many entries are learned from at once: with more, decisions wait longer, and hardly any time is saved.
BLOCK_ENTRIES: Final = 8
# A stream is ended with the first message after this time. Envoy opens one stream per thread, keeps it as long as
# it can, and balances only new ones: without this, one of several routers could learn from all requests, and
# another from none. At the end Envoy may lose a message that it is sending.
STREAM_S: Final = 10.0
# The unused part of the share accumulates up to this much.
BURST_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Teaching:
    """How one configuration uses entries: what seals decisions, what learns, and its maximum share of CPU time."""

    seal: Seal
    teacher: Teacher
    max_cpu_share: float
    listener: Listener

    def evidence(self, decision: Decision) -> str | None:
        """Return the sealed decision, which Envoy copies to the log entry; None if there is none.

        Evidence that does not fit is reported to the listener. So is an exception, which costs only the evidence,
        not the decision.
        """
        try:
            sealed = self.seal.seal(decision, time.time())
        except Exception as error:  # noqa: BLE001  (whatever it is, the decision goes out)
            self.listener.failed(error)
            return None
        if sealed is not None:
            self.listener.sealed(decision)
        elif decision.estimate is not None:
            self.listener.left_out(decision)
        return sealed


def teaching_of(configuration: Configuration, router: Router, key: bytes, before: Teaching | None) -> Teaching:
    """Return how a router with this configuration learns from the log, with this key.

    If the key is not that of `before`, entries in flight were sealed with the former one, so that one is accepted,
    too, until they have expired.
    """
    settings = configuration.learning.access_log
    keys = Keys(key) if before is None else before.seal.keys.followed_by(key, time.time() + settings.max_age_s)
    seal = Seal(keys, Payloads(configuration.pools, configuration.estimator.kind), settings.max_age_s)
    teacher = Teacher(router.learner, seal, pools_by_cluster(configuration.pools))
    return Teaching(seal, teacher, settings.max_cpu_share, router.listener)


class AccessLogs:
    """All streams of log entries, and the timer (`next_s`, `expire`) that resumes them when CPU time is left: one
    at a time, in the order in which they began to wait.

    `teaching` returns the current Teaching, or None.
    """

    def __init__(self, teaching: Callable[[], Teaching | None], metrics: Metrics) -> None:
        self.teaching = teaching
        self.metrics = metrics
        self.share = TimeShare(BURST_S)
        self.open: set[_LogStream] = set()
        self.next_s = float("inf")
        self._waiting: deque[_LogStream] = deque()
        self._drained = False

    def serve(self, call: Call) -> None:
        """Serve one stream until the gateway or a drain ends it; refuse it if nothing is learned from the log."""
        if self.teaching() is None:
            call.finish(code=UNIMPLEMENTED, details=b"learning.source is not access_log")
            return
        if self._drained:
            call.finish()
            return
        stream = call.handler = _LogStream(self, call)
        call.then = lambda: self.open.discard(stream)
        self.open.add(stream)
        call.send()

    @property
    def busy(self) -> bool:
        """Whether streams are waiting: others have to wait behind them."""
        return bool(self._waiting)

    def wait(self, stream: "_LogStream", until_s: float = float("inf")) -> None:
        """Resume a stream after those that already wait; at `until_s` there may be time for the first of them."""
        self._waiting.append(stream)
        self.next_s = min(self.next_s, until_s)

    def expire(self, now_s: float) -> None:
        """Resume the first of the waiting streams if there is time for it; if it fails, the others are next."""
        teaching, self.next_s = self.teaching(), float("inf")
        if not self._waiting:
            return
        # Without a teaching the streams end, which takes no time.
        if teaching is not None and self.share.left_s(now_s, teaching.max_cpu_share) <= 0:
            self.next_s = now_s + self.share.wait_s(teaching.max_cpu_share, SLICE_S)
            return
        stream = self._waiting.popleft()
        if self._waiting:
            self.resume()
        stream.work(now_s)

    def resume(self) -> None:
        """Look soon whether a waiting stream can go on; also called when another configuration may allow more, or
        nothing at all.
        """
        self.next_s = 0.0

    def drain(self) -> None:
        """End all streams, also those that still come; the gateway opens new ones elsewhere."""
        self._drained = True
        for stream in list(self.open):
            stream.on_end()


class _LogStream:
    __slots__ = ("_call", "_ends_s", "_entries", "_logs", "_message")

    def __init__(self, logs: AccessLogs, call: Call) -> None:
        self._logs = logs
        self._call = call
        self._message: bytes | None = None  # not yet decoded
        self._entries: deque[LogEntry] = deque()
        self._ends_s = time.monotonic() + STREAM_S

    def on_message(self, message: bytes) -> None:
        """Called with each message from the gateway."""
        if len(message) > MAX_MESSAGE_BYTES:  # not held while it waits: gRPC passes on a thousand times as much
            self._logs.metrics.access_log_entries[Outcome.TOO_LARGE,] += 1
        else:
            self._message = message
        if self._logs.busy:
            self._logs.wait(self)
        else:
            self.work(time.monotonic())

    def on_end(self) -> None:
        """Called when the gateway ends the stream or disconnects."""
        self._call.finish([b""])  # an empty StreamAccessLogsResponse

    def work(self, now_s: float) -> None:
        """Process entries for a slice of time, or until none is left.

        An exception, as for lack of memory, ends the stream: the gateway would fill one that is never read again.
        """
        if self._call.finished:
            return
        try:
            self._work(now_s)
        except Exception:
            self._call.finish(code=INTERNAL, details=FAULT)
            raise

    def _work(self, now_s: float) -> None:
        logs, entries = self._logs, self._entries
        teaching = logs.teaching()
        if teaching is None:
            self.on_end()
            return
        if logs.share.left_s(now_s, teaching.max_cpu_share) <= 0:
            logs.wait(self, now_s + logs.share.wait_s(teaching.max_cpu_share, SLICE_S))
            return
        wall_s, began_s = time.time(), now_s
        if self._message is not None:
            try:
                self._decode(self._message)
            except UnknownMessage:
                self._call.finish(code=INVALID_ARGUMENT, details=b"not a StreamAccessLogsMessage")
            now_s = time.monotonic()
        ends_s = now_s + SLICE_S
        while entries and now_s < ends_s:
            block = [entries.popleft() for _ in range(min(BLOCK_ENTRIES, len(entries)))]
            for outcome in teaching.teacher.take(block, wall_s):
                logs.metrics.access_log_entries[outcome,] += 1
            now_s = time.monotonic()
        logs.share.spend(now_s - began_s)
        if self._call.finished:
            return
        if entries:
            self._call.mark(lambda: self.work(time.monotonic()))
        elif now_s >= self._ends_s:
            self.on_end()
        else:
            self._call.send()

    def _decode(self, message: bytes) -> None:
        """Take a message's entries, or count it as too large if there are too many. Raises UnknownMessage."""
        self._message = None
        entries = decode_log(message, MAX_ENTRIES)
        if entries is None:
            self._logs.metrics.access_log_entries[Outcome.TOO_LARGE,] += 1
        else:
            self._entries.extend(entries)
