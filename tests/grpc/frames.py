"""Frames of HTTP/2, for peers that do what no library would."""

from typing import Final

from tests.grpc.conftest import METHOD

__all__ = ["HEAD", "PREFACE", "frame"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The headers with which a gateway opens a stream.
HEAD: Final[dict[bytes | str, bytes | str]] = {
    ":method": "POST",
    ":scheme": "http",
    ":path": METHOD,
    ":authority": "router",
    "content-type": "application/grpc",
    "te": "trailers",
}


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content
