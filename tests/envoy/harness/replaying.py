"""A pool that replies with given bytes, and keeps the bytes of the bodies that it received."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["ReplayingPool"]


class ReplayingPool:
    """Replies to each request with the headers and pieces in `reply`; `bodies` has what arrived, unframed."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.reply: tuple[dict[str, str], list[bytes]] = ({}, [])
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="replaying pool")
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pool = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                pool.bodies.append(self._body())
                headers, pieces = pool.reply
                self.send_response(200)
                for name, value in {**headers, "transfer-encoding": "chunked"}.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            def _body(self) -> bytes:
                if (length := self.headers["content-length"]) is not None:
                    return self.rfile.read(int(length))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        return Handler
