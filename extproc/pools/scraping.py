"""Fetching one server's models and load, with limits on time and size."""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from extproc.core.errors import DualpoolError
from extproc.pools.reports import (
    MAX_MODELS,
    LoadReport,
    ModelReport,
    ReportNotUnderstood,
    load_lines,
    parse_load,
    parse_models,
)

__all__ = ["EndpointReport", "ScrapeFailed", "make_client", "scrape"]

MAX_PAGE_BYTES: Final = 1 << 20
# vLLM's page of metrics has about 40 KB per engine, few of which are read. A server may have dozens of engines
# (data parallelism), so the lines that are not read are dropped as they come, block by block.
MAX_METRICS_BYTES: Final = 8 << 20
BLOCK_BYTES: Final = 1 << 17
MODELS: Final = "/v1/models"
LOAD: Final = "/metrics"
MAX_MESSAGE_CHARS: Final = 300
MAX_AT_ONCE: Final = 32
MAX_SERVERS: Final = 2_048  # servers whose connections are kept open


class ScrapeFailed(DualpoolError):
    """A server could not be reached, or neither of its pages is usable."""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One server's reports; None for a page that is missing or not usable.

    The list of models may require a key, and SGLang serves metrics only with `--enable-metrics`. `fault` says why
    some or all of the server's models are unknown, "" if none are; `load_fault` says why its load is.
    """

    url: str
    models: tuple[ModelReport, ...] | None
    load: LoadReport | None
    fault: str = ""
    load_fault: str = ""


def make_client(context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Return a client for the pools' servers: no proxy, no compression (a response could be a decompression bomb),
    no cookies (a server could set more and more of them, all to be sent back), no timeout but that of each scrape.

    `context` is for https://; without it, certificates are verified against the usual public authorities.
    """
    headers, transport = {"accept-encoding": "identity"}, _ByServer(context)
    none = CookieJar(DefaultCookiePolicy(allowed_domains=()))
    return httpx.AsyncClient(trust_env=False, transport=transport, headers=headers, cookies=none, timeout=None)  # noqa: S113


class _ByServer(httpx.AsyncBaseTransport):
    """A separate connection pool per server.

    A single httpx pool scans all connections for every request: with hundreds of servers that takes seconds.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._transports: OrderedDict[str, httpx.AsyncHTTPTransport] = OrderedDict()
        # Never used for http://, but cheap: without a context httpx would load the CA bundle.
        self._contexts = {"http": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
        if context is not None:
            self._contexts["https"] = context

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the connections to its server."""
        scheme, server = request.url.scheme, f"{request.url.scheme}://{request.url.netloc.decode()}"
        if server not in self._transports:
            if scheme not in self._contexts:
                self._contexts[scheme] = httpx.create_ssl_context(trust_env=False)
            limits = httpx.Limits(max_connections=2)
            self._transports[server] = httpx.AsyncHTTPTransport(verify=self._contexts[scheme], limits=limits)
        self._transports.move_to_end(server)
        response = await self._transports[server].handle_async_request(request)
        if len(self._transports) > MAX_SERVERS:
            _, oldest = self._transports.popitem(last=False)
            await oldest.aclose()
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()


async def scrape(
    client: httpx.AsyncClient, url: str, timeout_s: float, key: str = "", server_name: str = ""
) -> EndpointReport:
    """Fetch both pages of a server; `server_name` is the name that its certificate must have.

    Raises ScrapeFailed if neither page is usable, and no other exception.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    name = {"sni_hostname": server_name} if server_name else {}
    models_page, load_page = await asyncio.gather(
        _fetch(client, f"{url}{MODELS}", timeout_s, headers, name, read=_page),
        _fetch(client, f"{url}{LOAD}", timeout_s, headers, name, read=_load_page),
    )
    models, fault = _models(models_page, url)
    load, load_fault = _load(load_page, url)
    if models is None and load is None:
        raise ScrapeFailed(fault)
    return EndpointReport(url, models, load, fault, load_fault)


def _models(page: bytes | ScrapeFailed, url: str) -> tuple[tuple[ModelReport, ...] | None, str]:
    """Return the models on a page (None if it is not usable), and what is wrong with the page ("" if nothing)."""
    if isinstance(page, ScrapeFailed):
        return None, str(page)
    try:
        found = parse_models(page)
    except ReportNotUnderstood as error:
        return None, f"{url}{MODELS}: {error}"[:MAX_MESSAGE_CHARS]
    if found.listed > MAX_MODELS:
        return found.models, f"{url}{MODELS}: {found.listed} models; the first {MAX_MODELS} are read"
    return found.models, ""


def _load(page: bytes | ScrapeFailed, url: str) -> tuple[LoadReport | None, str]:
    """Return the load on a page, or None and what is wrong with the page."""
    if isinstance(page, ScrapeFailed):
        return None, str(page)
    try:
        return parse_load(page), ""
    except ReportNotUnderstood as error:
        return None, f"{url}{LOAD}: {error}"[:MAX_MESSAGE_CHARS]


async def _fetch(
    client: httpx.AsyncClient,
    url: str,
    timeout_s: float,
    headers: dict[str, str],
    name: dict[str, str],
    *,
    read: Callable[[httpx.Response], Awaitable[bytes]],
) -> bytes | ScrapeFailed:
    try:
        request = client.build_request("GET", url, headers=headers, extensions=name)
        async with asyncio.timeout(timeout_s):
            response = await client.send(request, stream=True)
            try:
                response.raise_for_status()
                return await read(response)
            finally:
                await response.aclose()
    except TimeoutError:
        return ScrapeFailed(f"{url}: no answer in {timeout_s:g} s")
    except Exception as error:  # noqa: BLE001  (an address or a page can make the client raise anything)
        return ScrapeFailed(f"{url}: {type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS])


async def _page(response: httpx.Response) -> bytes:
    page = bytearray()
    async for piece in response.aiter_raw():
        page += piece
        if len(page) > MAX_PAGE_BYTES:
            raise ReportNotUnderstood(f"longer than {MAX_PAGE_BYTES} bytes")
    return bytes(page)


async def _load_page(response: httpx.Response) -> bytes:
    """Return the lines of a page of metrics that are read."""
    lines, block, size = bytearray(), bytearray(), 0
    async for piece in response.aiter_raw():
        size += len(piece)
        block += piece
        if len(block) >= BLOCK_BYTES:
            end = block.rfind(b"\n") + 1
            lines += load_lines(block[:end])
            del block[:end]
        if size > MAX_METRICS_BYTES or len(lines) + len(block) > MAX_PAGE_BYTES:
            raise ReportNotUnderstood(f"longer than {MAX_METRICS_BYTES} bytes, or {MAX_PAGE_BYTES} to be read")
    return bytes(lines + load_lines(block))
