"""The part of a request that is held until the request is placed."""

from extproc.core.exchange.events import RequestBody
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.early import EarlyRule

__all__ = ["Held"]


class Held:
    """The request's head and the chunks of its body so far, `size_bytes` in all."""

    __slots__ = ("_joined", "api", "head", "next_look_bytes", "pieces", "size_bytes")

    def __init__(self, api: Api, head: RequestHead, early: EarlyRule) -> None:
        self.api = api
        self.head = head
        self.pieces: list[RequestBody] = []
        self.size_bytes = 0
        self.next_look_bytes = early.first_look(api)
        self._joined = b""

    def body(self) -> bytes:
        """Return the body received so far; the result is cached until more arrives."""
        if len(self._joined) < self.size_bytes:
            pieces = self.pieces
            self._joined = pieces[0].data if len(pieces) == 1 else b"".join([piece.data for piece in pieces])
        return self._joined

    def is_enough(self, early: EarlyRule) -> bool:
        """Return whether to stop waiting for the body; called when `next_look_bytes` have arrived."""
        if self.size_bytes >= early.max_held_bytes:  # without even joining the chunks
            return True
        self.next_look_bytes = early.next_look(self.api, self.body())
        return self.next_look_bytes == 0
