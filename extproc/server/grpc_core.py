"""gRPC's C core on one thread: it accepts calls, and receives and sends messages.

The thread that does the work also polls the completion queue, so that a message costs no thread switch: poll
returns completed batches, their events are handled, and the next operations are submitted before the next poll.

Events that are waiting are taken together, and what their handlers send is submitted when all of them have run. So
our code runs several times in a row, and then the library's: after a system call, the processor has lost most of
what it needs to run either of them fast. Handled one at a time, each followed by its system calls, the same events
take 1.4 times as much CPU under load (`python -m bench --only bars`, and again with TAKEN_AT_ONCE = 1). A run is
limited in events and in time, so that replies do not wait for a large body behind them.

Rejected: grpc.aio, whose poller thread and event loop pass every event to each other (several times the CPU of the
work itself), and grpc's server with a thread pool (twice that).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from extproc.server.grpc_call import (
    FAULT,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    UNIMPLEMENTED,
    Batch,
    Call,
    Handler,
)
from extproc.server.grpc_private import TIMEOUT, CompletionQueue, Receive, ServerCredentials
from extproc.server.grpc_server import CannotListen, Options, Server

__all__ = [
    "FAULT",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OK",
    "UNIMPLEMENTED",
    "Call",
    "CannotListen",
    "Core",
    "Handler",
    "OnCall",
    "Options",
]

# How many events are taken together; a message of more than LARGE_BYTES is the last, which bounds their memory.
TAKEN_AT_ONCE = 64
LARGE_BYTES = 16 << 10
# How long handlers run before what they have sent is submitted.
RUN_S = 0.002
# While events come singly, every so many of them a look shows whether there are more: it is a system call.
LOOK_AFTER = 4

OnCall = Callable[["Call", str], None]  # with the method's full name


class Core:
    """A completion queue and its servers; to be used only on the thread that polls."""

    def __init__(self) -> None:
        self._queue = CompletionQueue()
        self._servers: list[Server] = []
        self._events: deque[Any] = deque()  # taken from the queue, not yet handled
        self._single = 0  # events in a row that came singly
        self._batches: deque[Batch] = deque()  # not yet submitted
        self._calls: set[Call] = set()

    def listen(
        self, address: str, options: Options, credentials: ServerCredentials | None, on_call: OnCall
    ) -> int:
        """Bind an address to a new server; return the port (1 for a Unix socket).

        Raises CannotListen.
        """
        server = Server(self._queue, options, self._accepter(on_call))
        port = server.bind(address, credentials)
        self._servers.append(server)
        return port

    def start(self) -> None:
        """Start accepting calls."""
        for server in self._servers:
            server.start()

    def poll(self, wait_s: float) -> bool:
        """Wait up to `wait_s` seconds for events and handle them; return whether there were any.

        An exception in a handler ends its call and is raised; other events are left to the next call.
        """
        self._submit()
        events = self._events
        if not (events or self._take(wait_s)):
            return False
        ends_s = time.monotonic() + RUN_S
        try:
            while events:
                event = events.popleft()
                event.tag(event)
                if time.monotonic() >= ends_s:
                    break
        finally:
            self._submit()
        return True

    def stop_accepting(self) -> None:
        """Refuse new calls and send clients elsewhere; open calls continue."""
        for server in self._servers:
            server.shut_down()

    @property
    def done(self) -> bool:
        """Whether, after `stop_accepting`, all calls and connections have ended."""
        return not self._calls and all(server.is_down for server in self._servers)

    def cancel_calls(self) -> None:
        """Cancel the calls that are left after `stop_accepting`."""
        for server in self._servers:
            server.cancel_calls()

    def close(self) -> None:
        """Free everything; nothing may be called afterwards."""
        self._queue.shutdown()
        for server in self._servers:
            server.destroy()

    def _take(self, wait_s: float) -> bool:
        """Wait for an event, and take those that are waiting with it; return whether there was one.

        If there is no memory for an event's message, the event is lost, and nobody knows which call waits for it.
        So all calls are cancelled, which the gateway takes for a failure of ours. Otherwise, in full duplex mode,
        it would wait without end.
        """
        poll, events = self._queue.poll, self._events
        try:
            event = poll(time.time() + wait_s)
            if event.completion_type == TIMEOUT:
                return False
            events.append(event)
            self._single += 1
            if self._single >= LOOK_AFTER:
                while (
                    len(events) < TAKEN_AT_ONCE
                    and not _brings_large(event)
                    and (event := poll(0)).completion_type != TIMEOUT
                ):
                    events.append(event)
                # After several, look again at once.
                self._single = 0 if len(events) == 1 else LOOK_AFTER
        except Exception:
            for call in list(self._calls):
                call.cancel()
            for server in self._servers:
                server.accept_one_more()  # in case the lost event was a new call
            raise
        return True

    def _submit(self) -> None:
        """Submit what handlers and timers have sent; a call whose batch cannot be submitted is cancelled."""
        batches = self._batches
        while batches:
            call, operations, tag = batches.popleft()
            try:
                refused = call.core.start_server_batch(operations, tag)
            except Exception:
                call.cancel()
                raise
            if refused:
                call.cancel()
                raise RuntimeError(f"gRPC refused a batch: call error {refused}")

    def _accepter(self, on_call: OnCall) -> Callable[[Any], None]:
        def accept(event: Any) -> None:  # noqa: ANN401
            call = Call(event.call, self._batches.append, self._calls.discard)
            self._calls.add(call)
            try:
                on_call(call, event.call_details.method.decode("latin-1"))
            except Exception:
                call.finish(code=INTERNAL, details=FAULT)
                raise

        return accept


def _brings_large(event: Any) -> bool:  # noqa: ANN401
    """Return whether an event brings a message of more than LARGE_BYTES."""
    operations = getattr(event, "batch_operations", None)
    if not operations or type(operations[-1]) is not Receive:
        return False
    message: bytes | None = operations[-1].message()
    return message is not None and len(message) > LARGE_BYTES
