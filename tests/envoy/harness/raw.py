"""A client that sends arbitrary bytes at chosen moments: hand-written HTTP/1.1 over a socket."""

import json
import socket
from http.client import HTTPResponse
from types import TracebackType
from typing import Self

__all__ = ["RawClient", "chat_body"]

TIMEOUT_S = 20


def chat_body(model: str, text: str, **fields: object) -> bytes:
    """Return the JSON body of a chat completion request."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]} | fields).encode()


class RawClient:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._socket.close()

    def head(self, path: str, method: str = "POST", **headers: str) -> None:
        """Send the request's head; underscores in header names become dashes."""
        fields = {"host": "pools", "content-type": "application/json"} | headers
        lines = [f"{method} {path} HTTP/1.1", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self._socket.sendall(data)

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_chunks(self, **trailers: str) -> None:
        """End a chunked body, with trailers if any are given."""
        fields = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in trailers.items())
        self.send(f"0\r\n{fields}\r\n".encode())

    def response(self) -> HTTPResponse:
        """Wait for the head of the response; read the body from the returned object."""
        response = HTTPResponse(self._socket)
        response.begin()
        return response

    def receive(self, size: int) -> bytes:
        """Read `size` bytes from the socket, or fewer if the other side closes it first."""
        data = b""
        while len(data) < size and (more := self._socket.recv(size - len(data))):
            data += more
        return data

    def vanish(self) -> None:
        """Reset the connection, so that the other side sees an error instead of an orderly close."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._socket.close()
