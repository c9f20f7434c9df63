"""Opening of the addresses of admin ports, with the proxies of the environment only for other machines.

Where HTTP_PROXY is set, as in many clusters, urllib asks the proxy even for 127.0.0.1, unless NO_PROXY lists it.
To the proxy that is its own 127.0.0.1, and it would be sent the router's token.
"""

import ipaddress
from contextlib import suppress
from http import HTTPStatus
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected, UnknownProtocol
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["RequestRefused", "about_token", "fetched", "reason_of"]

MAX_MESSAGE_BYTES = 64 << 10


class RequestRefused(OSError):
    """The response has a status other than 2xx: the status, its reason, and the text that came with it."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(f"HTTP status {status}" + (f" ({reason})" if reason else ""))
        self.status = status
        self.reason = reason
        self.text = text


def fetched(request: Request | str, timeout_s: float) -> Any:  # noqa: ANN401  (as urlopen)
    """Return the response of an http:// or https:// address, as urlopen does and with its exceptions, but
    RequestRefused instead of HTTPError, which holds a connection; this machine is asked without a proxy.
    """
    try:
        return build_opener(_ForOthers()).open(request, timeout=timeout_s)
    except HTTPError as error:
        data = b""
        with error, suppress(OSError, HTTPException):  # the status says enough if the text does not come
            data = error.read(MAX_MESSAGE_BYTES)
        raise RequestRefused(error.code, str(error.reason), data.decode(errors="replace").strip()) from None


def reason_of(error: Exception) -> str:
    """Return in words why an address, or a file, did not give its content.

    What a server sent instead of HTTP is left out: it may be binary, as that of a gRPC port is.
    """
    cause = error.reason if isinstance(error, URLError) else error
    match cause:
        case RemoteDisconnected():  # which is a BadStatusLine, too
            return "the connection was closed without a response"
        case BadStatusLine() | UnknownProtocol():
            return "no HTTP server"
        case IncompleteRead():
            return "the response ends too early"
        case UnicodeDecodeError():
            return "not UTF-8 text"
        case UnicodeError():
            return "no valid address"
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


def about_token(error: Exception, token: str) -> str:
    """Return what to say of a router that wants its token, or another one than was sent; "" of any other error."""
    if not isinstance(error, RequestRefused) or error.status != HTTPStatus.UNAUTHORIZED:
        return ""
    if token:
        return "the router has another token than the file of --token-file"
    return "the router requires its token: give it with --token-file"


class _ForOthers(ProxyHandler):
    """The proxies that the environment names, for other machines than this one."""

    def proxy_open(self, req: Request, proxy: str, type: str) -> Any:  # noqa: A002, ANN401  (urllib's names)
        if _is_this_machine(urlsplit(f"//{req.host}").hostname or ""):
            return None  # the next handler connects directly
        return super().proxy_open(req, proxy, type)


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
