"""Dispatch of calls, by method, to the parts of the server."""

from typing import Final

from extproc.server.access_logs import STREAM_ACCESS_LOGS, AccessLogs
from extproc.server.grpc_core import UNIMPLEMENTED, Call
from extproc.server.health import EXT_PROC_SERVICE, Health
from extproc.server.streams import Streams

__all__ = ["Methods"]

PROCESS: Final = f"/{EXT_PROC_SERVICE}/Process"


class Methods:
    """The methods on the gateway's port, and those on the port for probes, which are only those of health."""

    def __init__(self, streams: Streams, access_logs: AccessLogs, health: Health) -> None:
        self._streams = streams
        self._access_logs = access_logs
        self._health = health

    def on_call(self, call: Call, method: str) -> None:
        """Serve a call on the gateway's port."""
        if method == PROCESS:
            self._streams.serve(call)
        elif method == STREAM_ACCESS_LOGS:
            self._access_logs.serve(call)
        else:
            self.on_probe(call, method)

    def on_probe(self, call: Call, method: str) -> None:
        """Serve a call on the port for probes."""
        if not self._health.serve(call, method):
            call.finish(code=UNIMPLEMENTED, details=b"no such method")
