"""A gateway whose kernel has little room, and which reads what the router sends only when it is told to.

It speaks HTTP/2 in frames: h2 takes a GOAWAY for the end of a connection, where gateways finish their streams.
"""

import socket
import struct

import hpack
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)

from tests.grpc.frames import HEAD, PREFACE, frame

__all__ = ["SlowReader"]

DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
ACK = 1
END_HEADERS, INITIAL_WINDOW_SIZE, FRAME_BYTES = 4, 4, 16_384
ROOM_BYTES, WINDOW_BYTES, WIDE_BYTES = 65_536, 65_535, 1 << 26
QUIET_S, WITHIN_S = 0.2, 10.0


class SlowReader:
    """One full-duplex stream over a connection of its own, in frames of HTTP/2; every wait has a timeout."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
        self._socket.connect((host, int(port)))
        self._unparsed, self._replies = bytearray(), bytearray()
        self._may_send, self._initial = {0: WINDOW_BYTES, 1: WINDOW_BYTES}, WINDOW_BYTES
        self._decoder = hpack.Decoder()
        self._goaways = 0
        self.grpc_status = b""
        self._socket.sendall(PREFACE)
        self._frame(SETTINGS, 0, 0, b"")
        self._frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE_BYTES))
        self._frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(HEAD))

    def ask(self, body: bytes) -> None:
        """Send a request with this body, and read what the window of 64 KiB lets through."""
        request = ProcessingRequest(request_headers=HttpHeaders())
        for key, value in ((":method", "POST"), (":path", "/v1/other"), ("content-type", "application/json")):
            request.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        request.protocol_config.CopyFrom(
            ProtocolConfiguration(
                request_body_mode=ProcessingMode.FULL_DUPLEX_STREAMED,
                response_body_mode=ProcessingMode.STREAMED,
            )
        )
        self._message(request)
        self._message(ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True)))
        while self._read(QUIET_S):
            pass

    def answer_goaways(self) -> None:
        """Answer the ping that comes with a GOAWAY, if there is one."""
        while self._goaways < 2 and self._read(QUIET_S):
            pass

    def open_window(self) -> None:
        """Let the rest of the stream come."""
        self._frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", WIDE_BYTES))

    def ping(self) -> None:
        """Say something, as gateways do at any time."""
        self._frame(PING, 0, 0, bytes(8))

    def rest(self) -> bytes:
        """Read until the stream ends; return the echo of the whole body. Raises ConnectionResetError."""
        while not self.grpc_status and self._read(WITHIN_S):
            pass
        echo, replies = b"", self._replies
        while len(replies) >= 5 and len(replies) >= 5 + (length := int.from_bytes(replies[1:5], "big")):
            echo += ProcessingResponse.FromString(
                bytes(replies[5 : 5 + length])
            ).request_body.response.body_mutation.streamed_response.body
            del replies[: 5 + length]
        return echo

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _message(self, message: ProcessingRequest) -> None:
        content = message.SerializeToString()
        content = b"\0" + len(content).to_bytes(4, "big") + content
        while content:
            size = min(FRAME_BYTES, len(content), *self._may_send.values())
            if size <= 0:
                self._read(WITHIN_S)
                continue
            self._frame(DATA, 0, 1, content[:size])
            content = content[size:]
            for stream in self._may_send:
                self._may_send[stream] -= size

    def _frame(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        self._socket.sendall(frame(kind, flags, stream, content))

    def _read(self, within_s: float) -> bool:
        """Take what has come; return False if nothing comes in time, or the router has closed."""
        self._socket.settimeout(within_s)
        try:
            data = self._socket.recv(ROOM_BYTES)
        except TimeoutError:
            return False
        self._unparsed += data
        while len(self._unparsed) >= 9 and len(self._unparsed) >= (size := 9 + self._length()):
            kind, flags = self._unparsed[3:5]
            stream, content = int.from_bytes(self._unparsed[5:9], "big"), bytes(self._unparsed[9:size])
            del self._unparsed[:size]
            self._take(kind, flags, stream, content)
        return bool(data)

    def _length(self) -> int:
        return int.from_bytes(self._unparsed[:3], "big")

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == DATA:
            self._replies += content
        elif kind == HEADERS:
            self.grpc_status = dict(self._decoder.decode(content, raw=True)).get(b"grpc-status", b"")
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", content):
                if name == INITIAL_WINDOW_SIZE:
                    self._may_send[1] += value - self._initial
                    self._initial = value
            self._frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._frame(PING, ACK, 0, content)
        elif kind == GOAWAY:
            self._goaways += 1
        elif kind == WINDOW_UPDATE:
            self._may_send[stream] += int.from_bytes(content, "big")
