"""Asking one server for its models and its load, within bounds of time and size."""

import asyncio
from dataclasses import dataclass
from typing import Final

import httpx

from extproc.core.errors import DualpoolError
from extproc.pools.reports import LoadReport, ModelReport, ReportNotUnderstood, parse_load, parse_models

__all__ = ["EndpointReport", "ScrapeFailed", "scrape"]

# vLLM's page of metrics is about 50 KB for each model and engine.
MAX_PAGE_BYTES: Final = 4 << 20
MAX_SAID: Final = 300


class ScrapeFailed(DualpoolError):
    """A server that could not be asked, or whose pages say nothing."""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """What one server said. A server without metrics (`load` is None) still says what it serves."""

    url: str
    models: tuple[ModelReport, ...]
    load: LoadReport | None


async def scrape(client: httpx.AsyncClient, url: str, timeout_s: float) -> EndpointReport:
    """Ask a server for both pages. Raises ScrapeFailed, and nothing else.

    A server that has no page of metrics (SGLang has none unless it is asked for) still says what it serves.
    """
    models, load = await asyncio.gather(
        _asked(client, f"{url}/v1/models", timeout_s), _asked(client, f"{url}/metrics", timeout_s)
    )
    if isinstance(models, ScrapeFailed):
        raise models
    try:
        return EndpointReport(url, parse_models(models), None if isinstance(load, ScrapeFailed) else _load(load))
    except ReportNotUnderstood as error:
        raise ScrapeFailed(f"{url}: {error}"[:MAX_SAID]) from error


def _load(page: bytes) -> LoadReport | None:
    try:
        return parse_load(page)
    except ReportNotUnderstood:
        return None


async def _asked(client: httpx.AsyncClient, url: str, timeout_s: float) -> bytes | ScrapeFailed:
    try:
        async with asyncio.timeout(timeout_s):
            return await _page(client, url)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, ReportNotUnderstood) as error:
        return ScrapeFailed(f"{url}: {type(error).__name__}: {error}"[:MAX_SAID])


async def _page(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        page = bytearray()
        async for piece in response.aiter_bytes():
            page += piece
            if len(page) > MAX_PAGE_BYTES:
                raise ReportNotUnderstood(f"{url} is longer than {MAX_PAGE_BYTES} bytes")
        return bytes(page)
