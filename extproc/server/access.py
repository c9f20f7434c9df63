"""Who may see the admin pages: with `admin.token_file`, those who show what it holds, but for what probes need.

A program shows the token as RFC 6750 says (`Authorization: Bearer`). A browser asks its user for a password, which
is the token, and shows it by itself from then on, for the live page's stream as well (RFC 7617): so the page needs
no form, no cookie, and no token in an address. Rejected: client certificates, which every browser and phone that
looks at the page would have to be given; a proxy in front can ask for them.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from extproc.core.errors import ConfigurationError
from extproc.files import read_file
from extproc.server.admin import PROBES

__all__ = ["TokenAsked", "read_token"]

MAX_TOKEN_FILE_BYTES = 64 << 10
READING = ("GET", "HEAD")
# Both ways, each in a header of its own: a browser takes the one that it knows.
CHALLENGES = ('Bearer realm="dualpool"', 'Basic realm="dualpool", charset="UTF-8"')


def read_token(path: str) -> str:
    """Return what a token file holds. Raises ConfigurationError for a file that cannot be read or holds none."""
    try:
        token = read_file(path, MAX_TOKEN_FILE_BYTES).decode().partition("\n")[0].strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"admin.token_file: {error}") from error
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ConfigurationError(
            f"admin.token_file: {path}: its first line is no token: printable ASCII, no spaces"
        )
    return token


class TokenAsked:
    """Answers 401 to whoever does not show the token.

    The file is read each time, so that the token can be changed without a restart. While it cannot be read, nobody
    has it. Raises ConfigurationError when it cannot be read at first.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        read_token(path)
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""
        app = self._app
        if scope["path"] not in PROBES:
            try:
                token = read_token(self._path)
            except ConfigurationError:
                app = PlainTextResponse("admin.token_file cannot be read, or holds no token\n", 503)
            else:
                # A browser that knows the password shows it at any page's bidding: so it changes nothing.
                reads = scope["method"] in READING
                shown = _credential(Headers(scope=scope).get("authorization", ""), basic=reads)
                right = hmac.compare_digest(shown.encode(), token.encode())
                app = app if right else _refusal(CHALLENGES if reads else CHALLENGES[:1])
        await app(scope, receive, send)


def _credential(authorization: str, *, basic: bool) -> str:
    """Return the token that a header shows, or nothing; as a browser does it only where `basic`."""
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
    refusal = PlainTextResponse("this page asks for the token in admin.token_file\n", 401)
    for challenge in challenges:
        refusal.headers.append("www-authenticate", challenge)
    return refusal
