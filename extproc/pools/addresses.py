"""Where the servers of a pool are: stated, in a file, or behind a DNS name with many addresses."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from extproc.core.errors import DualpoolError

__all__ = ["AddressesUnknown", "EndpointSettings", "Resolve", "endpoints", "resolve"]

# A pool of more servers is scraped in part: what is behind one name is alike.
MAX_ENDPOINTS: Final = 256


class AddressesUnknown(DualpoolError):
    """The servers of a pool cannot be listed now: a name that does not resolve, a file that cannot be read."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """The servers of one pool: `urls` as they stand, `file` with one URL in each line, `dns` a URL.

    The host of `dns` is looked up before each scrape, and each of its addresses is a server: a headless Service in
    Kubernetes.
    """

    urls: tuple[str, ...] = ()
    file: str = ""
    dns: str = ""


Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def endpoints(settings: EndpointSettings, resolve: Resolve = resolve) -> tuple[str, ...]:
    """Return the base URLs of a pool's servers, each once, in a stable order.

    Raises AddressesUnknown.
    """
    urls = list(settings.urls)
    if settings.file:
        urls += await asyncio.to_thread(_read, settings.file)
    if settings.dns:
        urls += await _look_up(settings.dns, resolve)
    return tuple(sorted({url.rstrip("/") for url in urls})[:MAX_ENDPOINTS])


def _read(name: str) -> list[str]:
    try:
        lines = Path(name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressesUnknown(f"{name}: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


async def _look_up(url: str, resolve: Resolve) -> list[str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = await resolve(parts.hostname or "", port)
    except OSError as error:
        raise AddressesUnknown(f"{url}: {error}") from error
    return [f"{parts.scheme}://{f'[{a}]' if ':' in a else a}:{port}{parts.path}" for a in addresses]
