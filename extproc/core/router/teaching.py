"""Turning the response of a kept stream into a lesson for the router: usage from a 2xx, overflow from a 400."""

from typing import Protocol

from extproc.core.errors import ResponseNotUnderstood
from extproc.core.exchange.events import ResponseHead
from extproc.core.listener import Skipped
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.reading.decoding import Decoder, decoder_for
from extproc.core.reading.response import UsageReader, read_overflow
from extproc.core.router.router import Router

__all__ = ["Lesson", "lesson_for"]

# A refusal is a few hundred bytes; a longer one is not read.
MAX_REFUSAL_BYTES = 16 * 1024


class Lesson(Protocol):
    """A response being read. Both methods raise ResponseNotUnderstood when nothing can be learned from it."""

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the response's body."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the response is whole although its body has not ended yet."""
        ...

    def finish(self) -> None:
        """Called when the response is complete, and teach."""
        ...


def lesson_for(router: Router, decision: Decision, head: ResponseHead) -> Lesson | None:
    """Return how to read a response with this head; None (reported) when it cannot teach."""
    served_by = router.served_by(decision, head.attempts)
    try:
        if head.status == 400:  # noqa: PLR2004
            return _Refusal(router, decision, served_by, decoder_for(head.content_encoding, MAX_REFUSAL_BYTES))
        if head.succeeded:
            limit = router.settings.max_response_bytes
            reader = UsageReader(decision.api, head.content_type, head.content_encoding, limit)
            return _Response(router, decision, served_by, reader)
    except ResponseNotUnderstood as error:
        router.listener.not_learned(error.fault)
        return None
    router.listener.not_learned(Skipped.STATUS)
    return None


class _Response:
    def __init__(self, router: Router, decision: Decision, served_by: Pool, reader: UsageReader) -> None:
        self._router, self._decision, self._served_by = router, decision, served_by
        self._reader = reader
        self.feed = reader.feed

    @property
    def complete(self) -> bool:
        return self._reader.complete

    def finish(self) -> None:
        self._router.learn(self._decision, self._reader.finish(), self._served_by)


class _Refusal:
    complete = False

    def __init__(self, router: Router, decision: Decision, served_by: Pool, decoder: Decoder) -> None:
        self._router, self._decision, self._served_by = router, decision, served_by
        self._decoder = decoder
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._body += self._decoder.feed(data)

    def finish(self) -> None:
        self._body += self._decoder.finish()
        overflow = read_overflow(bytes(self._body))
        if overflow is None:
            self._router.listener.not_learned(Skipped.STATUS)
        else:
            self._router.learn_overflow(self._decision, overflow, self._served_by)
