"""The servers that tests put in the place of a pool."""

import socket
from socketserver import StreamRequestHandler
from threading import Event

import pytest

from tests.envoy.harness.tcp import serving

READS = Event()


class Reading(StreamRequestHandler):
    """Reads until the connection ends."""

    def handle(self) -> None:
        """Serve one connection."""
        READS.set()
        self.rfile.read()


@pytest.mark.timeout(30)
def test_a_silent_connection_does_not_keep_a_server() -> None:
    """A server ends while a connection is open on which nothing comes; a gateway may keep one for hours."""
    with socket.socket() as client, serving(Reading) as port:
        client.connect(("127.0.0.1", port))
        assert READS.wait(10)
