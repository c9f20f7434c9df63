"""The HTTP server of the admin pages: Starlette on uvicorn, on its own thread and asyncio loop.

The thread that makes decisions never waits for a client of these pages, nor vice versa: pages are made in worker
threads, and streams run on this loop. uvicorn speaks HTTP; this module adds the limits that it lacks: the number
of connections, how long one may be silent or leave bytes unread, and the host names that a loopback address
serves. Rejected: aiohttp, which needs eight packages; these two need only click besides those of an HTTP client.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from extproc.config.schema import AdminSettings
from extproc.core.errors import ConfigurationError
from extproc.server.access import OwnNamesOnly, TokenRequired
from extproc.server.admin import PAGES, PROBES, Pages
from extproc.server.changes import Changes
from extproc.server.live import Live

__all__ = ["Admin", "addresses_of", "admin_servers", "listening"]

CONNECTIONS = 32
# asyncio accepts so many before the bound above is looked at. With uvicorn's 2048 a flood of connections takes all
# file descriptors, and the gateway cannot connect.
ACCEPTED_AT_ONCE: Final = 32
# How often a connection is checked. It is closed if no request came since the last check, or bytes stay unread.
LOOKS_EVERY_S = 30.0
KEEPS_ALIVE_S: Final = 30
STOPS_WITHIN_S: Final = 1
MAX_HEAD_BYTES: Final = 16_384
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

log = logging.getLogger("dualpool")


def admin_servers(settings: AdminSettings, pages: Pages, live: Live, changes: Changes) -> list["Admin"]:
    """Return the configured servers; the one with all pages comes first. Raises ConfigurationError."""
    more = [*live.routes(), *changes.routes(allowed=bool(settings.token_file))]
    servers = [Admin("admin.address", settings.address, pages, more=more, token_file=settings.token_file)]
    if settings.probes_address:
        servers.append(Admin("admin.probes_address", settings.probes_address, pages, PROBES))
    return servers


def addresses_of(servers: Sequence["Admin"]) -> dict[str, str]:
    """Return where these servers listen, for the log: `admin`, and `probes` if there is such a port."""
    return {name: server.address for name, server in zip(("admin", "probes"), servers, strict=False)}


class Admin:
    """A listening server for some of the pages and the routes in `more`; `address` has the real port.

    Raises ConfigurationError, which names the setting, if it cannot listen or the token cannot be read.
    """

    def __init__(
        self,
        setting: str,
        address: str,
        pages: Pages,
        paths: Collection[str] = PAGES,
        *,
        more: Sequence[Route] = (),
        token_file: str = "",
    ) -> None:
        app: ASGIApp = _app(pages, paths, more)
        if token_file:
            app = TokenRequired(app, token_file)
        host, _, port = address.rpartition(":")
        try:
            self._socket = listening(host.strip("[]"), int(port))
        except (OSError, UnicodeError) as error:  # UnicodeError: not a host name
            raise ConfigurationError(f"{setting}: {address!r} cannot be bound: {error}") from error
        bound_to, bound_port = self._socket.getsockname()[:2]
        self.address = f"{host}:{bound_port}"
        if ipaddress.ip_address(bound_to).is_loopback:
            app = OwnNamesOnly(app, host.lower())
        self._server = _Server(app)
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        if self._thread.is_alive():
            self._server.end()
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._socket]))


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket. `::` means every address, or every IPv4 address if the host has no IPv6: as with
    gRPC, and unlike create_server's default, which is IPv6 alone.

    A name is bound to the first of its addresses that this machine has, IPv4 first. Raises OSError, also if that
    one's port is in use: on another one, clients that use the first would reach the other program.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104  (what the operator asked for)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in sorted(found, key=lambda each: each[0] is not socket.AF_INET):
        try:
            return socket.create_server(address, family=family, dualstack_ipv6=host == "::")
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            missing = error
    raise missing


class _Server(Server):
    """uvicorn's server, stopped by a call instead of a flag that it polls ten times a second."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                # Below ERROR uvicorn logs what clients send, so anybody could fill the log.
                log_level=logging.ERROR,
                access_log=False,
                server_header=False,
                date_header=False,
                backlog=ACCEPTED_AT_ONCE,
                timeout_keep_alive=KEEPS_ALIVE_S,
                timeout_graceful_shutdown=2 * STOPS_WITHIN_S,  # `shutdown` cuts before
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self._ending = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Ask the server to stop; for other threads."""
        self._ending.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        """Serve until asked to stop."""
        self._loop = asyncio.get_running_loop()
        if not self._ending.is_set():
            await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and cut connections whose requests have not ended in time; a viewer's never does.

        uvicorn would cancel these requests, and log a traceback for each.
        """

        def cut() -> None:
            for each in list(self.server_state.connections):
                each.transport.abort()

        cutting = asyncio.get_running_loop().call_later(STOPS_WITHIN_S, cut)
        await super().shutdown(sockets)
        cutting.cancel()


class _Connection(H11Protocol):
    """One connection, closed if it is idle, or if there are too many.

    When there are too many, the oldest one that waits for a request is closed, otherwise the oldest whose client
    does not read, or has had an answer: whoever holds all of them open, or sends requests without waiting for the
    answers, does not lock out a probe.
    """

    made_s = 0.0
    has_answered = False
    _answered: object = None
    _was_unread = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base class
        super().connection_made(transport)
        self.made_s = self.loop.time()
        self.loop.call_later(LOOKS_EVERY_S, self._look)
        others = [each for each in self.connections if isinstance(each, _Connection) and each is not self]
        others = [each for each in others if not each.transport.is_closing()]
        if len(others) >= CONNECTIONS:
            dispensable = (
                [each for each in others if not each.answering]
                or [each for each in others if each.unread]
                or [each for each in others if each.has_answered]
            )
            min(dispensable, key=lambda each: each.made_s, default=self).transport.abort()

    def on_response_complete(self) -> None:
        self.has_answered = True
        super().on_response_complete()

    @property
    def answering(self) -> bool:
        """Whether a request is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def unread(self) -> bool:
        """Whether bytes wait for the client to read."""
        return self.transport.get_write_buffer_size() > 0

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        unread = self.unread
        if (unread and self._was_unread) or (not self.answering and self.cycle is self._answered):
            self.transport.abort()
            return
        self._was_unread, self._answered = unread, self.cycle
        self.loop.call_later(LOOKS_EVERY_S, self._look)


def _app(pages: Pages, paths: Collection[str], more: Sequence[Route]) -> Starlette:
    def answer(request: Request) -> Response:
        try:
            status, content_type, body = pages.page(request.scope["path"])
        except Exception:  # the client gets a 500, whatever it is
            log.exception("exception in the admin server")
            return PlainTextResponse("an exception in the router; see its log\n", 500)
        return Response(body, status, media_type=content_type)

    def not_found(_request: Request, _error: Any) -> Response:  # noqa: ANN401  (Starlette's type is too wide)
        return PlainTextResponse(f"paths: {' '.join(route.path for route in routes)}\n", 404)

    routes = [*(Route(path, answer) for path in paths), *more]
    return Starlette(routes=routes, exception_handlers={404: not_found})
