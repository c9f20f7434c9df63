"""Access control for the admin pages: with `admin.token_file`, all pages but those for probes require the token; a
loopback address serves no other host's names.

A program sends the token as in RFC 6750 (`Authorization: Bearer`). A browser prompts its user for a password,
which is the token, and then sends it with every request, also with the one for the live page's stream (RFC 7617):
so the page needs no form, no cookie, and no token in a URL. Rejected: client certificates, which would have to be
installed in every browser and phone that views the page; a proxy in front can require them.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from extproc.core.errors import ConfigurationError
from extproc.files import read_followed, token_in
from extproc.server.admin import PROBES

__all__ = ["OwnNamesOnly", "TokenRequired", "read_token"]

MAX_TOKEN_FILE_BYTES = 64 << 10
READING = ("GET", "HEAD")
# One header per scheme: a browser picks the scheme that it supports.
CHALLENGES = ('Bearer realm="dualpool"', 'Basic realm="dualpool", charset="UTF-8"')


def read_token(path: str) -> str:
    """Return the first line of a token file. Raises ConfigurationError if it cannot be read or is not a token."""
    try:
        return token_in(read_followed(path, MAX_TOKEN_FILE_BYTES))
    except OSError as error:
        raise ConfigurationError(f"admin.token_file: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"admin.token_file: {path}: {error}") from error


class TokenRequired:
    """ASGI middleware that responds 401 to requests without the token.

    The file is read for each request, so that the token can be changed without a restart. While it cannot be read,
    all requests get 503. The constructor raises ConfigurationError if it cannot be read.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        read_token(path)
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        app = self._app
        if scope["path"] not in PROBES:
            try:
                token = read_token(self._path)
            except ConfigurationError:
                app = PlainTextResponse("admin.token_file cannot be read or does not contain a token\n", 503)
            else:
                # Any web page can make a browser send a password that it remembers: Basic allows no changes.
                reads = scope["method"] in READING
                shown = _credential(Headers(scope=scope).get("authorization", ""), basic=reads)
                right = hmac.compare_digest(shown.encode(), token.encode())
                app = app if right else _refusal(CHALLENGES if reads else CHALLENGES[:1])
        await app(scope, receive, send)


class OwnNamesOnly:
    """Refuses requests for a host name that is neither this machine's nor `configured`, in lower case.

    Otherwise a web page whose name resolves to this machine (DNS rebinding) could read what only this machine may.
    """

    def __init__(self, app: ASGIApp, configured: str) -> None:
        self._app = app
        self._names = {"", "localhost", configured}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        app = self._app
        if not self._has(host.lower()):
            app = PlainTextResponse("use the IP address or localhost in the URL\n", 421)
        await app(scope, receive, send)

    def _has(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _credential(authorization: str, *, basic: bool) -> str:
    """Return the token in an Authorization header, or ""; Basic, which browsers send, counts only if `basic`."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic" if basic:
            try:
                return base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return ""
        case _:
            return ""


def _refusal(challenges: Sequence[str]) -> PlainTextResponse:
    refusal = PlainTextResponse("this page requires the token in admin.token_file\n", 401)
    for challenge in challenges:
        refusal.headers.append("www-authenticate", challenge)
    return refusal
