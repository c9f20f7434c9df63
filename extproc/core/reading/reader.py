"""How a response is read: one protocol over its encoding, its framing and the family's own words for usage."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from extproc.core.reading.decoding import Decoder
from extproc.core.reading.sse import SseEvent, SseParser
from extproc.core.usage import Overflow, Usage

__all__ = ["EventReader", "JsonReader", "UsageReader"]


class UsageReader(Protocol):
    """Reads one response. Both methods raise ResponseNotUnderstood; after that the reader is spent."""

    @property
    def complete(self) -> bool:
        """Whether all was seen before the body's end: clients hang up at a stream's last event."""
        ...

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body, as they came over the wire."""
        ...

    def finish(self) -> Usage | Overflow:
        """Return what the response said, once it is complete or its body has ended."""
        ...


class JsonReader:
    """A response in one piece of JSON, decoded at its end by `read`."""

    complete = False  # known at the body's end only

    def __init__(self, decoder: Decoder, read: Callable[[bytearray], Usage | Overflow]) -> None:
        self._decoder = decoder
        self._read = read
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Collect the next bytes. Raises ResponseNotUnderstood."""
        self._body += self._decoder.feed(data)

    def finish(self) -> Usage | Overflow:
        """Decode what was collected. Raises ResponseNotUnderstood."""
        self._body += self._decoder.finish()
        return self._read(self._body)


class EventReader(ABC):
    """A response in server-sent events; each family's reader says which of them count.

    A stream is read whole when its last event came, or when it ended cleanly after all that it had to say: TGI,
    llama.cpp and SGLang leave out the last event, or its end, at times.

    `max_event_bytes` bounds each event. A subclass sets `complete` at the stream's last event.
    """

    complete = False

    def __init__(self, decoder: Decoder, max_event_bytes: int) -> None:
        self._decoder = decoder
        self._parser = SseParser(max_event_bytes)

    def feed(self, data: bytes) -> None:
        """Look at the events that the next bytes complete. Raises ResponseNotUnderstood."""
        events = self._parser.feed(self._decoder.feed(data))
        if events:
            self.see(events)

    def finish(self) -> Usage:
        """Return the usage. Raises ResponseNotUnderstood."""
        if not self.complete:
            self.see(self._parser.feed(self._decoder.finish()))
        if not self.complete:
            self.see(self._parser.finish())
        return self.usage()

    @abstractmethod
    def see(self, events: list[SseEvent]) -> None:
        """Look at the next events. Raises ResponseNotUnderstood when one of them is an error."""

    @abstractmethod
    def usage(self) -> Usage:
        """Return the usage once all events were seen. Raises ResponseNotUnderstood."""
