"""gRPC health (grpc.health.v1), Check and Watch, and readiness: one state for all clients.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import Callable
from typing import Final

from extproc.server.grpc_core import INVALID_ARGUMENT, NOT_FOUND, Call
from extproc.wire.decode import UnknownMessage
from extproc.wire.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, asked_service

__all__ = ["EXT_PROC_SERVICE", "NAMES", "Health"]

EXT_PROC_SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
_SERVICE: Final = "/grpc.health.v1.Health/"
_LIVENESS: Final = "liveness"
# The names that endpoint pickers use, so that a gateway's probes need no change; "" is the server itself.
NAMES: Final = ("", _LIVENESS, "readiness", EXT_PROC_SERVICE)


class Health:
    """The health of this router. Liveness stays SERVING when readiness does not: a draining router must live."""

    def __init__(self) -> None:
        self.ready = False
        self._watchers: set[_Watch] = set()
        self._ended = False

    def set_ready(self, *, ready: bool) -> None:
        """Set the readiness, and notify the watchers."""
        self.ready = ready
        for watcher in list(self._watchers):
            watcher.notify()

    def serve(self, call: Call, method: str) -> bool:
        """Serve a call of the health service; return False for any other."""
        serves = {f"{_SERVICE}Check": self._check, f"{_SERVICE}Watch": self._watch}.get(method)
        if serves is None:
            return False
        serves(call)
        return True

    def end(self) -> None:
        """End all watches, also those that still come; there will be no more changes."""
        self._ended = True
        for watcher in list(self._watchers):
            watcher.on_gone()

    def status(self, name: str) -> bytes | None:
        """Return the message for a service's name, or None if the service is unknown."""
        if name not in NAMES:
            return None
        return SERVING if self.ready or name == _LIVENESS else NOT_SERVING

    def _check(self, call: Call) -> None:
        def respond(name: str) -> None:
            status = self.status(name)
            if status is None:
                call.finish(code=NOT_FOUND, details=b"unknown service")
            else:
                call.finish([status])

        call.handler = _Request(call, respond)
        call.send()

    def _watch(self, call: Call) -> None:
        def respond(name: str) -> None:
            watch = call.handler = _Watch(
                call, lambda: self.status(name) or SERVICE_UNKNOWN, self._watchers.discard
            )
            self._watchers.add(watch)
            call.watch(watch.on_gone)
            watch.notify()
            if self._ended:
                watch.on_gone()

        call.handler = _Request(call, respond)
        call.send()


class _Request:
    """Waits for the only message of a request."""

    def __init__(self, call: Call, respond: Callable[[str], None]) -> None:
        self._call = call
        self._respond = respond

    def on_message(self, message: bytes) -> None:
        try:
            name = asked_service(message)
        except UnknownMessage:
            self._call.finish(code=INVALID_ARGUMENT, details=b"not a HealthCheckRequest")
        else:
            self._respond(name)

    def on_end(self) -> None:
        self._call.finish()


class _Watch:
    """Notifies a watcher of each change until it disconnects."""

    def __init__(self, call: Call, status: Callable[[], bytes], forget: Callable[["_Watch"], None]) -> None:
        self._call = call
        self._status = status
        self._forget = forget
        self._last_sent = b""

    def notify(self) -> None:
        status = self._status()
        if status != self._last_sent:
            self._last_sent = status
            self._call.send([status])

    def on_message(self, message: bytes) -> None:
        """Ignore it: a request has only one message."""

    def on_end(self) -> None:
        """Ignore it: the client has sent its request and goes on listening."""

    def on_gone(self) -> None:
        self._forget(self)
        self._call.finish()
