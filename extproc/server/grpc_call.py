"""One call of gRPC's C core: its messages in and out, in order.

The core's rules, which determine the shape of Call:

1. Operations are submitted in batches (by Core, see grpc_core.py). A batch is done when all of its operations are;
   its tag is then called.
2. A call may have at most one operation of each kind in progress. A message that was submitted together with a
   receive counts as in progress until something was received; a status may be sent at any time.
3. The last message, the status and the receipt of the close are submitted together: one batch ends a call.

Messages that are sent together are written to the socket together: all but the last are held back by the core. If
they went out one by one and the process hung in between, Envoy would wait without a timer: it stops
`message_timeout` at the first of several replies. The core holds back up to 64 KiB, which hardly anything but
bodies in full duplex exceeds: there Envoy has no timer. A message that is held back also holds back the initial
metadata in its batch, and then its batch is not done: so the metadata comes first, in a batch of its own.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from extproc.server.grpc_private import (
    MORE_FOLLOW,
    NO_FLAGS,
    Receive,
    ReceiveClose,
    Send,
    SendInitialMetadata,
    SendStatus,
)

__all__ = [
    "FAULT",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OK",
    "UNIMPLEMENTED",
    "Batch",
    "Call",
    "Handler",
]

# Status codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OK, INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 0, 3, 5, 12, 13
FAULT = b"an exception in the router; see its log"

Tag = Callable[[Any], None]
Batch = tuple["Call", Sequence[Any], Tag]
"""A call, operations, and what to call when they are done."""


class Handler(Protocol):
    """The object that serves a call."""

    def on_message(self, message: bytes) -> None:
        """Called with a message; the next one is received after the handler has called `send`."""

    def on_end(self) -> None:
        """Called when the client has sent its last message or disconnected. The handler must finish the call."""


class Call:
    """One call: its messages in and out, in order. `handler` must be set before anything is received.

    `core` is the library's call, `submit` takes batches for it. `on_over` is called with the call when its last
    operation is done, and then `then`, if it is set.

    Messages are received one at a time, each only after everything queued before it was sent: a client that does
    not read is not read from.
    """

    __slots__ = (
        *("_on_over", "_ending", "_greeted", "_outgoing", "_receiving", "_sending", "_statused"),
        *("_submit", "_watched", "core", "handler", "then"),
    )

    def __init__(
        self,
        core: Any,  # noqa: ANN401  (cygrpc has no types)
        submit: Callable[[Batch], None],
        on_over: Callable[["Call"], None],
    ) -> None:
        self._submit = submit
        self._on_over = on_over
        self.core = core
        self._outgoing: deque[bytes] = deque()
        self._ending: tuple[int, bytes] | None = None
        self.then: Callable[[], None] | None = None
        self._greeted = self._receiving = self._sending = self._statused = self._watched = False
        self.handler: Handler

    @property
    def finished(self) -> bool:
        """Whether `finish` was called; messages may still be on their way out."""
        return self._ending is not None

    def send(self, messages: Sequence[bytes] = ()) -> None:
        """Send messages, if any, then receive the next one."""
        if self._ending is not None:
            return
        if messages:
            self._outgoing.extend(messages)
        elif not (self._receiving or self._sending or self._outgoing):  # while a request arrives: nothing to send
            self._receiving = True
            self._submit((self, (Receive(NO_FLAGS),), self._on_received))
            return
        self._proceed()

    def finish(self, messages: Sequence[bytes] = (), code: int = OK, details: bytes = b"") -> None:
        """Send messages, if any, then the status; anything that the client still sends is not received."""
        if self._ending is None:
            self._outgoing.extend(messages)
            self._ending = code, details
            self._proceed()

    def cancel(self) -> None:
        """End it with an error at once, whatever it waits for: an event or a batch of it may be lost."""
        self.core.cancel(INTERNAL, FAULT)
        self._outgoing.clear()
        self._sending = False
        if self._statused:
            self._on_finished(None)
        elif self._ending is None:
            self.handler.on_end()
        else:
            self._proceed()

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` when the client disconnects, even if it has sent its last message before."""
        self._watched = True
        self._submit((self, (ReceiveClose(NO_FLAGS),), lambda _event: on_gone()))

    def mark(self, on_turn: Callable[[], None]) -> None:
        """Call `on_turn` when every event that is waiting now has been handled."""
        self._submit((self, (), lambda _event: on_turn()))

    def _proceed(self) -> None:
        """Submit the next batch, unless one with a message of ours is in progress."""
        tag: Tag
        outgoing = self._outgoing
        if self._statused or (self._sending and (outgoing or self._ending is None)):
            return
        operations: list[Any] = []
        several = len(outgoing) > 1
        if not self._greeted and (outgoing or self._ending is not None):
            self._greeted = True
            operations.append(SendInitialMetadata(None, NO_FLAGS))
            if several:
                self._sending = True
                self._submit((self, operations, self._on_sent))
                return
        if outgoing:
            self._sending = True
            operations.append(Send(outgoing.popleft(), MORE_FOLLOW if several else NO_FLAGS))
        if outgoing:
            tag = self._on_sent
        elif self._ending is not None:
            self._statused = True
            if not self._watched:
                operations.append(ReceiveClose(NO_FLAGS))
            operations.append(SendStatus(None, *self._ending, NO_FLAGS))
            tag = self._on_finished
        elif not self._receiving:
            self._receiving = True
            operations.append(Receive(NO_FLAGS))
            tag = self._on_sent_and_received if self._sending else self._on_received
        elif self._sending:
            tag = self._on_sent
        else:
            return
        self._submit((self, operations, tag))

    def _on_sent(self, event: Any) -> None:  # noqa: ANN401
        self._sending = False
        if not event.success:
            self._outgoing.clear()
            if self._ending is None:
                self.handler.on_end()
                return
        self._proceed()

    def _on_sent_and_received(self, event: Any) -> None:  # noqa: ANN401
        self._sending = False
        self._on_received(event)

    def _on_received(self, event: Any) -> None:  # noqa: ANN401
        self._receiving = False
        message = event.batch_operations[-1].message()
        if self._ending is not None:
            self._proceed()
            return
        try:
            if message is None:
                self.handler.on_end()
                if self._outgoing:  # a handler may go on sending after the client's last message
                    self._proceed()
            else:
                self.handler.on_message(message)
        except Exception:
            self.finish(code=INTERNAL, details=FAULT)
            raise

    def _on_finished(self, _event: Any) -> None:  # noqa: ANN401
        if hasattr(self, "handler"):  # a refused call has none
            del self.handler  # it refers to the call: without the cycle both are freed at once
        then, self.then = self.then, None
        self._on_over(self)
        if then is not None:
            then()
