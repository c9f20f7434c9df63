"""A server of gRPC's C core: one address, and the calls that clients begin there."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from extproc.server.grpc_private import CoreServer, ServerCredentials

__all__ = ["ACCEPTED_AT_ONCE", "CannotListen", "Options", "Server"]

# How many new calls the core can give us at once; more of them wait inside the core, where we do not see them.
ACCEPTED_AT_ONCE = 64

Options = Sequence[tuple[str, int]]


class CannotListen(Exception):
    """An address cannot be bound or credentials cannot be used; gRPC does not say which."""


class Server:
    """A gRPC server for one address."""

    def __init__(self, queue: Any, options: Options, accept: Callable[[Any], None]) -> None:  # noqa: ANN401
        self._queue = queue
        self._accept = accept
        self._server = CoreServer(options, False)  # noqa: FBT003  (xds; positional there)
        self._server.register_completion_queue(queue)
        self._started = False
        self.is_down = True

    def bind(self, address: str, credentials: ServerCredentials | None) -> int:
        """Bind an address; return the port (1 for a Unix socket). Raises CannotListen."""
        # cygrpc takes the object inside, as grpc's own servers pass it.
        more = () if credentials is None else (vars(credentials)["_credentials"],)
        try:
            port: int = self._server.add_http2_port(address.encode(), *more)
        except RuntimeError as error:
            raise CannotListen(str(error)) from error
        if port == 0:
            raise CannotListen(_reason(address))
        return port

    def start(self) -> None:
        """Start accepting calls."""
        self._server.start()
        self.is_down = False
        self._started = True
        for _ in range(ACCEPTED_AT_ONCE):
            self._request()

    def shut_down(self) -> None:
        """Refuse new calls; `is_down` is set when all calls and connections have ended."""
        if self._started:
            self._started = False
            self._server.shutdown(self._queue, self._on_down)

    def accept_one_more(self) -> None:
        """Accept one more new call at once than before."""
        if self._started:
            self._request()

    def cancel_calls(self) -> None:
        """Cancel the calls that are left after `shut_down`."""
        if not self.is_down:
            self._server.cancel_all_calls()

    def destroy(self) -> None:
        """Free everything; called last. A server that is not down yet is left to the end of the process."""
        # gRPC would wait until it is down, on the thread that has to poll for that: for ever.
        if self.is_down:
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


def _reason(address: str) -> str:
    """Return why an address that gRPC could not bind cannot be bound, by trying it."""
    kind, _, path = address.partition("unix:")
    try:
        if path and not kind:
            path = path.removeprefix("//")
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(path)
            os.unlink(path)  # noqa: PTH108  (as it was bound)
        else:
            host, _, port = address.rpartition(":")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            both = host == "[::]" and socket.has_dualstack_ipv6()  # as gRPC
            socket.create_server((host.strip("[]"), int(port)), family=family, dualstack_ipv6=both).close()
    except (OSError, ValueError, OverflowError) as error:
        return str(error)
    return "gRPC gives no reason; with GRPC_VERBOSITY=error in the environment it may log one"
