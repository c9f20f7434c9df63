"""Readers for responses: one protocol for all encodings, framings and formats of usage."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from extproc.core.errors import ResponseNotUnderstood
from extproc.core.reading.decoding import Decoder
from extproc.core.reading.sse import SseEvent, SseParser
from extproc.core.usage import Overflow, Usage

__all__ = ["EventReader", "JsonReader", "UsageReader"]


class UsageReader(Protocol):
    """Reads one response. Both methods raise ResponseNotUnderstood; after that the reader must not be used.

    `expects_one_piece` says that the body usually comes whole, right after the headers.
    """

    expects_one_piece: bool

    @property
    def complete(self) -> bool:
        """Whether the response is complete before the body's end: clients disconnect at a stream's last event."""
        ...

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the body, as received."""
        ...

    def finish(self) -> Usage | Overflow:
        """Return the result; called when the response is complete or its body has ended."""
        ...


class JsonReader:
    """Reads a response that is one JSON document, with `read`.

    The document is complete when `read` accepts it: the end of an HTTP/1.1 server's body comes in a message of its
    own, which then need not be waited for. Only bytes that end in a brace are tried, and each time at least twice
    as many, so that all attempts together cost at most twice as much as the last. What follows the document, if
    anything does, is not judged.
    """

    expects_one_piece = True

    def __init__(self, decoder: Decoder, read: Callable[[bytearray], Usage | Overflow]) -> None:
        self._decoder = decoder
        self._read = read
        self._body = bytearray()
        self._next_try_bytes = 0
        self._result: Usage | Overflow | None = None

    @property
    def complete(self) -> bool:
        """Whether the document is complete."""
        return self._result is not None

    def feed(self, data: bytes) -> None:
        """Collect the next bytes. Raises ResponseNotUnderstood."""
        body = self._body
        body += self._decoder.feed(data)
        if not self._decoder.may_end:
            return
        if len(body) >= self._next_try_bytes and body[-3:].rstrip().endswith(b"}"):
            self._next_try_bytes = 2 * len(body)
            try:
                self._result = self._read(body)
            except ResponseNotUnderstood:
                return  # more may follow; if not, `finish` raises it

    def finish(self) -> Usage | Overflow:
        """Return the result. Raises ResponseNotUnderstood."""
        if self._result is not None:
            return self._result
        self._body += self._decoder.finish()
        return self._read(self._body)


class EventReader(ABC):
    """Reads a response of server-sent events; each family's reader picks the events that count.

    A stream is complete when its last event has arrived, or when it ended cleanly after everything needed: TGI,
    llama.cpp and SGLang sometimes omit the last event, or its terminating empty line.

    `max_event_bytes` bounds each event. A subclass sets `complete` at the stream's last event.
    """

    complete = False
    expects_one_piece = False

    def __init__(self, decoder: Decoder, max_event_bytes: int) -> None:
        self._decoder = decoder
        self._parser = SseParser(max_event_bytes)

    def feed(self, data: bytes) -> None:
        """Process the events that the next bytes complete. Raises ResponseNotUnderstood."""
        events = self._parser.feed(self._decoder.feed(data))
        if events:
            self.see(events)

    def finish(self) -> Usage | Overflow:
        """Return the usage, or a refusal. Raises ResponseNotUnderstood."""
        if not self.complete:
            self.see(self._parser.feed(self._decoder.finish()))
        if not self.complete:
            self.see(self._parser.finish())
        return self.usage()

    @abstractmethod
    def see(self, events: list[SseEvent]) -> None:
        """Process the next events. Raises ResponseNotUnderstood if one of them is an error."""

    @abstractmethod
    def usage(self) -> Usage | Overflow:
        """Return the usage, or a refusal; called after all events. Raises ResponseNotUnderstood."""
