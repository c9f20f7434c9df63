"""Asking the servers of every pool again and again, and telling what they said as one frozen value."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Annotated

import httpx
from msgspec import Meta

from extproc.pools.addresses import AddressesUnknown, EndpointSettings, endpoints
from extproc.pools.scraping import EndpointReport, ScrapeFailed, scrape

__all__ = ["PoolReport", "PoolWatch", "WatchSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]

log = logging.getLogger("dualpool")


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How often servers are asked, how long each may take, and after how long without a word a pool is unknown."""

    every_s: Seconds = 1.0
    timeout_s: Seconds = 1.0
    forget_after_s: Seconds = 30.0


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What the servers of one pool said last; `asked` of them were asked in the last round.

    Servers that did not respond in this round are here with what they said before, until that is too old.
    """

    endpoints: tuple[EndpointReport, ...] = ()
    asked: int = 0
    answered: int = 0

    @property
    def known(self) -> bool:
        """Whether anything is known of the pool."""
        return bool(self.endpoints)


@dataclass(slots=True)
class _Remembered:
    report: EndpointReport
    at_s: float


@dataclass
class PoolWatch:
    """Watches one pool; `publish` is called after each round, on the loop that runs it."""

    pool: str
    where: EndpointSettings
    settings: WatchSettings
    publish: Callable[[str, PoolReport], None]
    clock: Callable[[], float]
    random: Random
    _remembered: dict[str, _Remembered] = field(default_factory=dict)
    _said: str = ""

    async def run(self, client: httpx.AsyncClient) -> None:
        """Ask for ever, with a jitter of a tenth, so that many routers do not ask in step."""
        while True:
            await self.round(client)
            await asyncio.sleep(self.settings.every_s * self.random.uniform(0.9, 1.1))

    async def round(self, client: httpx.AsyncClient) -> PoolReport:
        """Ask every server once, all at a time; publish and return what is known after that."""
        urls, failures = await self._urls()
        answers = await asyncio.gather(*(self._ask(client, url) for url in urls))
        now_s = self.clock()
        for answer in answers:
            if isinstance(answer, ScrapeFailed):
                failures.append(str(answer))
            else:
                self._remembered[answer.url] = _Remembered(answer, now_s)
        self._forget(urls, now_s)
        self._tell(failures)
        reports = tuple(each.report for _, each in sorted(self._remembered.items()))
        answered = sum(not isinstance(answer, ScrapeFailed) for answer in answers)
        report = PoolReport(reports, len(urls), answered)
        self.publish(self.pool, report)
        return report

    async def _urls(self) -> tuple[tuple[str, ...], list[str]]:
        try:
            return await endpoints(self.where), []
        except AddressesUnknown as error:
            return tuple(self._remembered), [str(error)]

    async def _ask(self, client: httpx.AsyncClient, url: str) -> EndpointReport | ScrapeFailed:
        try:
            return await scrape(client, url, self.settings.timeout_s)
        except ScrapeFailed as error:
            return error

    def _forget(self, urls: tuple[str, ...], now_s: float) -> None:
        """Drop servers that are gone, and what is too old. A clock that went back makes nothing older."""
        oldest_s = now_s - self.settings.forget_after_s
        self._remembered = {
            url: each for url, each in self._remembered.items() if url in urls and each.at_s >= oldest_s
        }

    def _tell(self, failures: list[str]) -> None:
        """Log once when it begins to fail, and once when all respond again."""
        said = failures[0] if failures else ""
        if bool(said) != bool(self._said):
            fields = {"pool": self.pool, "failed": len(failures), "first": said}
            (log.warning if said else log.info)(
                "servers do not say what they serve" if said else "all servers say what they serve",
                extra={"fields": fields},
            )
        self._said = said
