"""Servers that speak TCP by a handler of the test's own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from socketserver import BaseRequestHandler, ThreadingTCPServer

__all__ = ["requests_of", "serving"]


class _Server(ThreadingTCPServer):
    # Otherwise the end of the server waits for every connection, and Envoy may keep one on which it sends nothing:
    # one that it opened for a request that another connection then served, say.
    daemon_threads = True


@contextmanager
def serving(handler: type[BaseRequestHandler]) -> Iterator[int]:
    """Run a server with a thread per connection, in which `handler` serves it; yield its port on 127.0.0.1."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def requests_of(stream: BufferedIOBase) -> Iterator[None]:
    """Read HTTP/1.1 requests with chunked bodies or content-lengths; yield after each one of a connection."""
    while line := stream.readline():
        length = 0
        while line.strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
            line = stream.readline()
        if length:
            stream.read(length)
        else:
            while size := int(stream.readline(), 16):
                stream.read(size + 2)
            stream.readline()
        yield
