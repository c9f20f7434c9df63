"""gRPC's C core on one thread: calls come in, messages go in and out. The only module that knows `cygrpc`.

A completion queue is polled by the thread that also does the work, so that a message costs no thread switch: a
poll returns what was done, the work is done, and the next operations are handed in before the next poll. Rejected:
grpc.aio, whose poller thread and event loop hand every event to each other (several times the CPU of the work
itself), and grpc's server with a pool of threads (twice that). `grpc._cython.cygrpc` is private to grpc, whose own
servers stand on it (grpc/_server.py); tests run against the oldest and the newest version that is allowed.

The core's rules, which give the shape of Call:

1. Operations are handed in as batches. A batch is over when all of its operations are, and poll() returns its tag.
2. Of each kind of operation a call has at most one under way. A message that was handed in together with a
   receive counts as under way until something was received; a status may be sent at any time.
3. Together with the status come the last message and the receipt of the close: one batch ends a call.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

# Sockets are read and written by the thread that polls, not by four more. Read when grpc is loaded; versions
# that know no such name ignore it.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

from grpc import ServerCredentials
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the stubs

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

# Status codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OK, INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 0, 3, 5, 12, 13
FAULT = b"an exception in the router; see its log"
# So many new calls are taken in with what a poll reads; what exceeds it waits inside the core, unseen.
ACCEPTED_AT_ONCE = 64
# A server whose calls have all ended closes its connections at once.
CLOSES_WITHIN_S = 5.0

Options = Sequence[tuple[str, int]]
OnCall = Callable[["Call", str], None]  # with the method's full name

_NO_FLAGS: Final = 0
_TIMEOUT: Final = cygrpc.CompletionType.queue_timeout
_Receive = cygrpc.ReceiveMessageOperation
_Send = cygrpc.SendMessageOperation
_SendInitialMetadata = cygrpc.SendInitialMetadataOperation
_SendStatus = cygrpc.SendStatusFromServerOperation
_ReceiveClose = cygrpc.ReceiveCloseOnServerOperation


class CannotListen(Exception):
    """An address cannot be bound, or credentials cannot be used; gRPC does not say which."""


class Handler(Protocol):
    """What a call is served by."""

    def on_message(self, message: bytes) -> None:
        """Called with a message; the next one comes after the handler has sent, or finished."""

    def on_end(self) -> None:
        """Called when no message comes any more: the client is done, or gone. The call has to be finished."""


class Call:
    """One call: its messages in and out, in order. `handler` is to be set before anything is received.

    Messages are taken in one at a time: the next is received when all that was to be sent is sent, so that a
    client that does not read is not read from.
    """

    __slots__ = (
        *("_call", "_core", "_ending", "_greeted", "_outgoing", "_receiving", "_sending", "_statused"),
        *("_watched", "handler"),
    )

    def __init__(self, core: "Core", call: Any) -> None:  # noqa: ANN401  (cygrpc has no types)
        self._core = core
        self._call = call
        self._outgoing: deque[bytes] = deque()
        self._ending: tuple[int, bytes] | None = None
        self._greeted = self._receiving = self._sending = self._statused = self._watched = False
        self.handler: Handler

    @property
    def finished(self) -> bool:
        """Whether the call was finished by us; messages may still be on their way out."""
        return self._ending is not None

    def send(self, messages: Sequence[bytes] = ()) -> None:
        """Send messages, if any, then receive the next one."""
        if self._ending is None:
            self._outgoing.extend(messages)
            self._proceed()

    def finish(self, messages: Sequence[bytes] = (), code: int = OK, details: bytes = b"") -> None:
        """Send messages, if any, then the status; what the client still sends is not received."""
        if self._ending is None:
            self._outgoing.extend(messages)
            self._ending = code, details
            self._proceed()

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call back when the client has gone, also where it had nothing to send any more."""
        self._watched = True
        self._call.start_server_batch((_ReceiveClose(_NO_FLAGS),), lambda _event: on_gone())

    def mark(self, on_turn: Callable[[], None]) -> None:
        """Call back when all that is waiting to be handled now has been."""
        self._call.start_server_batch((), lambda _event: on_turn())

    def _proceed(self) -> None:
        """Hand in the next batch, unless one with a message of ours is under way."""
        tag: Callable[[Any], None]
        outgoing = self._outgoing
        if self._statused or (self._sending and (outgoing or self._ending is None)):
            return
        operations: list[Any] = []
        if not self._greeted and (outgoing or self._ending is not None):
            self._greeted = True
            operations.append(_SendInitialMetadata(None, _NO_FLAGS))
        if outgoing:
            self._sending = True
            operations.append(_Send(outgoing.popleft(), _NO_FLAGS))
        if outgoing:
            tag = self._on_sent
        elif self._ending is not None:
            self._statused = True
            if not self._watched:
                operations.append(_ReceiveClose(_NO_FLAGS))
            operations.append(_SendStatus(None, *self._ending, _NO_FLAGS))
            tag = self._on_finished
        elif not self._receiving:
            self._receiving = True
            operations.append(_Receive(_NO_FLAGS))
            tag = self._on_sent_and_received if self._sending else self._on_received
        elif self._sending:
            tag = self._on_sent
        else:
            return
        self._call.start_server_batch(operations, tag)

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
                if self._outgoing:  # a handler may listen no more, and speak on
                    self._proceed()
            else:
                self.handler.on_message(message)
        except Exception:
            self.finish(code=INTERNAL, details=FAULT)
            raise

    def _on_finished(self, _event: Any) -> None:  # noqa: ANN401
        self._core.on_call_over()


class Core:
    """A completion queue and its servers; all of it belongs to the thread that polls."""

    def __init__(self) -> None:
        self._queue = cygrpc.CompletionQueue()
        self._servers: list[_Server] = []
        self._calls = 0
        self._open = True

    def listen(
        self, address: str, options: Options, credentials: ServerCredentials | None, on_call: OnCall
    ) -> int:
        """Bind an address, with a server of its own; return its port (1 for a Unix socket).

        Raises CannotListen.
        """
        server = _Server(self._queue, options, self._accepter(on_call))
        port = server.bind(address, credentials)
        self._servers.append(server)
        return port

    def start(self) -> None:
        """Begin to accept calls."""
        for server in self._servers:
            server.start()

    def poll(self, wait_s: float) -> bool:
        """Wait so long for something to happen, and handle it; return whether something did.

        What a handler raises ends its call, and is raised.
        """
        event = self._queue.poll(time.time() + wait_s)
        if event.completion_type == _TIMEOUT:
            return False
        event.tag(event)
        return True

    def stop_accepting(self) -> None:
        """Refuse new calls, and tell clients to go elsewhere; the open ones go on."""
        for server in self._servers:
            server.shut_down()

    @property
    def done(self) -> bool:
        """Whether, after `stop_accepting`, all calls and connections have ended."""
        return self._calls == 0 and all(server.is_down for server in self._servers)

    def close(self) -> None:
        """Cancel the calls that are left after `stop_accepting`, and free everything; once."""
        if not self._open:
            return
        self._open = False
        for server in self._servers:
            server.cancel_calls()
        ends_s = time.monotonic() + CLOSES_WITHIN_S
        while not self.done and time.monotonic() < ends_s:
            self.poll(0.05)
        self._queue.shutdown()
        for server in self._servers:
            server.destroy()

    def on_call_over(self) -> None:
        """Called when the last operation of a call is done."""
        self._calls -= 1

    def _accepter(self, on_call: OnCall) -> Callable[[Any], None]:
        def accept(event: Any) -> None:  # noqa: ANN401
            self._calls += 1
            call = Call(self, event.call)
            try:
                on_call(call, event.call_details.method.decode("latin-1"))
            except Exception:
                call.finish(code=INTERNAL, details=FAULT)
                raise

        return accept


class _Server:
    """One of gRPC's servers, for one address."""

    def __init__(self, queue: Any, options: Options, accept: Callable[[Any], None]) -> None:  # noqa: ANN401
        self._queue = queue
        self._accept = accept
        self._server = cygrpc.Server(options, False)  # noqa: FBT003  (xds; positional there)
        self._server.register_completion_queue(queue)
        self._started = False
        self.is_down = True

    def bind(self, address: str, credentials: ServerCredentials | None) -> int:
        # What cygrpc takes is inside, as grpc's own servers know.
        more = () if credentials is None else (vars(credentials)["_credentials"],)
        try:
            port: int = self._server.add_http2_port(address.encode(), *more)
        except RuntimeError as error:
            raise CannotListen(str(error)) from error
        if port == 0:
            raise CannotListen("gRPC says no more than that; its log may")
        return port

    def start(self) -> None:
        self._server.start()
        self.is_down = False
        self._started = True
        for _ in range(ACCEPTED_AT_ONCE):
            self._request()

    def shut_down(self) -> None:
        if self._started:
            self._started = False
            self._server.shutdown(self._queue, self._on_down)

    def cancel_calls(self) -> None:
        if not self.is_down:
            self._server.cancel_all_calls()

    def destroy(self) -> None:
        self._server.destroy()

    def _request(self) -> None:
        self._server.request_call(self._queue, self._queue, self._on_call)

    def _on_call(self, event: Any) -> None:  # noqa: ANN401
        if event.success:
            if self._started:
                self._request()
            self._accept(event)

    def _on_down(self, _event: Any) -> None:  # noqa: ANN401
        self.is_down = True
