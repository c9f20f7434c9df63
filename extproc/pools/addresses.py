"""The addresses of a pool's servers: configured, listed in a file, or behind a DNS name with many addresses."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from extproc.core.errors import DualpoolError
from extproc.core.placing.pool import Endpoints
from extproc.files import read_followed

__all__ = ["MAX_ENDPOINTS", "AddressesUnknown", "Resolve", "endpoints", "resolve"]

# At most this many servers of a pool are scraped: the servers of one pool are alike.
MAX_ENDPOINTS: Final = 256
MAX_FILE_BYTES: Final = 1 << 20


class AddressesUnknown(DualpoolError):
    """Not all servers of a pool can be listed now: a name does not resolve, or a file cannot be read.

    `known` holds those that can be listed.
    """

    def __init__(self, why: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(why)
        self.known = known


Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def endpoints(where: Endpoints, timeout_s: float, resolve: Resolve = resolve) -> tuple[str, ...]:
    """Return the base URLs of a pool's servers, each once, in a stable order.

    Raises AddressesUnknown.
    """
    urls, unknown = list(where.urls), None
    sources: list[tuple[str, Callable[[], Awaitable[list[str]]]]] = [
        (where.file, lambda: asyncio.to_thread(_read, where.file)),
        (where.dns, lambda: _look_up(where.dns, resolve)),
    ]
    for name, listed in sources:
        if not name:
            continue
        try:
            async with asyncio.timeout(timeout_s):
                urls += await listed()
        except TimeoutError:
            unknown = AddressesUnknown(f"{name}: no result in {timeout_s:g} s")
        except AddressesUnknown as error:
            unknown = error
    known = tuple(sorted({url.rstrip("/") for url in urls})[:MAX_ENDPOINTS])
    if unknown is not None:
        raise AddressesUnknown(str(unknown), known) from unknown
    return known


def _read(name: str) -> list[str]:
    try:
        lines = read_followed(name, MAX_FILE_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressesUnknown(f"{name}: {error}") from error
    urls = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not urls:  # the file may be in the middle of a rewrite
        raise AddressesUnknown(f"{name}: contains no URL")
    return urls


async def _look_up(url: str, resolve: Resolve) -> list[str]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = await resolve(parts.hostname or "", port)
    except (OSError, ValueError) as error:  # an invalid host name raises UnicodeError, a ValueError
        raise AddressesUnknown(f"{url}: {type(error).__name__}: {error}") from error
    return [f"{parts.scheme}://{f'[{a}]' if ':' in a else a}:{port}" for a in _of_servers(addresses)]


def _of_servers(addresses: Sequence[str]) -> set[str]:
    """Return one address per server: if there are as many IPv4 as IPv6 addresses, each server has one of each."""
    of_ipv6 = {address for address in addresses if ":" in address}
    of_ipv4 = set(addresses) - of_ipv6
    return of_ipv4 if len(of_ipv4) == len(of_ipv6) else of_ipv4 | of_ipv6
