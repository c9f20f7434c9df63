"""A client with full control over one HTTP/2 connection: hand-written frames over a socket."""

import socket
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

__all__ = ["Http2Client"]

TIMEOUT_S = 20.0
STUCK_S = 0.5


class Http2Client:
    """One connection; `status` and `ended` tell what has arrived, by stream."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._connection = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._connection.initiate_connection()
        self.status: dict[int, int] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.body: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._socket.close()

    def begin(self, path: str, **headers: str) -> int:
        """Send the head of a POST and return its stream; underscores in header names become dashes."""
        stream = self._connection.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "pools")]
        fields = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self._connection.send_headers(stream, [*pseudo, *fields.items()])
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True, within_s: float = STUCK_S) -> int:
        """Send data; return how many bytes, fewer than all if the other side allows none for `within_s`."""
        sent = 0
        while sent < len(data):
            allowed = self._connection.local_flow_control_window(stream)
            size = min(allowed, self._connection.max_outbound_frame_size, len(data) - sent)
            if size <= 0:
                if not self._receive(within_s):
                    break
                continue
            last = end and sent + size == len(data)
            self._connection.send_data(stream, data[sent : sent + size], end_stream=last)
            self._flush()
            sent += size
        return sent

    def trailers(self, stream: int, **trailers: str) -> None:
        """End a body with trailers."""
        self._connection.send_headers(stream, list(trailers.items()), end_stream=True)
        self._flush()

    def response(self, stream: int) -> int:
        """Wait for the end of a response; return its status. Raises TimeoutError."""
        while stream not in self.ended:
            if not self._receive(TIMEOUT_S):
                raise TimeoutError
        return self.status[stream]

    def _receive(self, within_s: float) -> bool:
        """Process what arrives; return whether anything did."""
        self._socket.settimeout(within_s)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return False
        if not data:
            raise ConnectionError("the other side has closed the connection")
        for event in self._connection.receive_data(data):
            self._note(event)
        self._flush()
        return True

    def _note(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id=int(stream), headers=list(headers)):
                self.headers[stream] = {str(name): str(value) for name, value in headers}
                self.status[stream] = int(self.headers[stream][":status"])
            case DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(length)):
                self.body[stream] = self.body.get(stream, b"") + data
                self._connection.acknowledge_received_data(length, stream)
            case StreamEnded(stream_id=int(stream)):
                self.ended.add(stream)
            case StreamReset(stream_id=int(stream)):
                self.status.setdefault(stream, 0)
                self.ended.add(stream)
            case _:
                pass

    def _flush(self) -> None:
        self._socket.settimeout(TIMEOUT_S)
        self._socket.sendall(self._connection.data_to_send())
