"""Parsing of server-sent events from arbitrary chunks (WHATWG HTML, 9.2.6: interpreting an event stream).

Line ends are normalised to LF first, so that an event ends at an empty line, which is LF LF in the bytes. Only the
bytes after the last such end are kept for the next chunk. A chunk without an end is appended and only its own
bytes are searched, so the cost is linear in the bytes, however they are chunked. `id` and `retry` are ignored. As
in the standard, bytes after the last empty line are not an event; `finish` returns them as one.

A line takes up to a microsecond, however short it is, and a few compressed bytes can be millions of empty ones. So
the lines of a chunk, and those of an event, are bounded: lines of a real stream are far longer. So are the objects
of a chunk (usages.py), since it may hold many events that have to be decoded.
"""

from typing import Final

import msgspec

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.usages import check_objects

__all__ = ["MAX_LINES", "SseEvent", "SseParser"]

MAX_LINES: Final = 16_384


# As integers: searching bytes for an integer costs a fifth of searching for a string of one byte.
_CR: Final = ord("\r")
_LF: Final = ord("\n")


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its type (b"" if not given) and its data.

    It is a msgspec struct, since one is created per token and a frozen dataclass costs several times as much.
    """

    event: bytes
    data: bytes


class SseParser:
    """Parses the bytes of one stream into events; `max_event_bytes` bounds each of them, complete or not."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` completes. Raises ResponseNotUnderstood (TOO_LARGE)."""
        if len(data) > MAX_LINES:  # otherwise it cannot have more lines
            _check_lines(data)
            check_objects(data)
        if data and (_CR in data or self._after_cr):
            data = self._with_lf_only(data)
        # The fast path for vLLM's streams: one event per chunk, in one line.
        if (
            data.startswith(b"data: ")
            and not self._pending
            and data.find(b"\n\n") == len(data) - 2 == data.find(b"\n")
        ):
            self._at_start = False
            if len(data) - 2 > self._max_event_bytes:
                self._check_size(data)
            return [SseEvent(b"", data[6:-2])]
        finished = self._finished(data)
        if finished is None:
            return []
        if self._at_start:
            self._at_start = False
            finished = finished.removeprefix(b"\xef\xbb\xbf")
        if len(finished) > self._max_event_bytes:
            for raw in finished.split(b"\n\n"):
                self._check_size(raw)
        return [event for raw in finished.split(b"\n\n") if (event := _event(raw)) is not None]

    def finish(self) -> list[SseEvent]:
        """Return the event at the stream's clean end whose empty line is missing, as some servers omit it."""
        last = _event(bytes(self._pending.strip(b"\n")))
        self._pending.clear()
        return [] if last is None else [last]

    def _with_lf_only(self, data: bytes) -> bytes:
        if self._after_cr:
            data = data.removeprefix(b"\n")  # the second half of a CRLF that was split
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _finished(self, data: bytes) -> bytes | None:
        """Return the bytes of all complete events, without the end of the last one, and keep the rest."""
        pending = self._pending
        if not pending:
            end = data.rfind(b"\n\n")
            finished = data[:end]
            pending += data[end + 2 :] if end >= 0 else data
        else:
            unsearched = len(pending) - 1
            pending += data
            end = pending.rfind(b"\n\n", unsearched)
            if end >= 0:
                finished = bytes(pending[:end])
                del pending[: end + 2]
        if len(pending) > self._max_event_bytes:
            self._check_size(pending)
        return finished if end >= 0 else None

    def _check_size(self, raw: bytes | bytearray) -> None:
        if len(raw.strip(b"\n")) > self._max_event_bytes:
            raise ResponseNotUnderstood(
                ResponseFault.TOO_LARGE, f"an event of more than {self._max_event_bytes} bytes"
            )


def _event(raw: bytes) -> SseEvent | None:
    """Parse the lines of one event; return None if they have no data."""
    if raw.startswith(b"data: ") and _LF not in raw:
        return SseEvent(b"", raw[6:])
    if len(raw) > MAX_LINES:
        _check_lines(raw)
    name = b""
    data = []
    for line in raw.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return SseEvent(name, b"\n".join(data)) if data else None


def _check_lines(data: bytes) -> None:
    if data.count(b"\n") + data.count(b"\r") > MAX_LINES:
        raise ResponseNotUnderstood(
            ResponseFault.TOO_LARGE, f"more than {MAX_LINES} lines in {len(data)} bytes of events"
        )
