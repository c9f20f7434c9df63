"""Servers that speak TCP by a handler of the test's own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer

__all__ = ["serving"]


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
