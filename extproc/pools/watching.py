"""Periodic polling of one pool's servers; each round's results are published as one frozen value."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final

import httpx

from extproc.core.errors import without_password
from extproc.core.placing.pool import Endpoints
from extproc.pools.addresses import MAX_ENDPOINTS, AddressesUnknown, endpoints
from extproc.pools.credentials import KeyUnknown, Trust, key_of
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.scraping import MAX_AT_ONCE, EndpointReport, ScrapeFailed, make_client, scrape
from extproc.pools.settings import WatchSettings

__all__ = ["Known", "PoolReport", "PoolWatch"]

LOAD_GOOD_FOR_ROUNDS: Final = 3
# Servers are well again when none has failed for so long.
CALM_S: Final = 60.0

log = logging.getLogger("dualpool")


@dataclass(frozen=True, slots=True)
class PoolReport:
    """The latest reports of one pool's servers: `asked` of them were asked in this round, `answered` responded,
    and reported their load if that is needed.

    `models` has the models that each server lists, `loads` the load of each. Servers that did not respond in this
    round are included with their previous reports until these are too old. `load_reported`: at least one server
    reported its load in this round.
    """

    models: tuple[tuple[ModelReport, ...], ...] = ()
    loads: tuple[LoadReport, ...] = ()
    asked: int = 0
    answered: int = 0
    load_reported: bool = False


@dataclass(slots=True)
class _Latest:
    """The latest reports of a server, and when they came."""

    models: tuple[ModelReport, ...] | None = None
    models_at_s: float = -inf
    load: LoadReport | None = None
    load_at_s: float = -inf


@dataclass(slots=True)
class Known:
    """The latest reports of a pool's servers by URL; `failed_at_s`: when one failed last, None after a calm."""

    latest: dict[str, _Latest] = field(default_factory=dict)
    failed_at_s: float | None = None


@dataclass
class PoolWatch:
    """Watches one pool; `known` is what was known of it before.

    If `needs_load`, a server that does not report its load counts as silent.

    `begin` is called before each round and `publish` after it, on the loop that runs the watch.
    """

    pool: str
    where: Endpoints
    settings: WatchSettings
    begin: Callable[[], None]
    publish: Callable[[PoolReport], None]
    clock: Callable[[], float]
    random: Random
    known: Known = field(default_factory=Known)
    needs_load: bool = False

    async def run(self) -> None:
        """Poll forever, with a jitter of 10 %, so that several routers do not poll in lockstep."""
        while True:
            trust = await asyncio.to_thread(Trust.of, self.where.tls)
            async with make_client(trust.context) as client:
                await self._next_round(client, trust.fault)
                while trust.holds:
                    await self._next_round(client)

    async def _next_round(self, client: httpx.AsyncClient, fault: str = "") -> None:
        await self.round(client, fault)
        await asyncio.sleep(self.settings.every_s * self.random.uniform(0.9, 1.1))

    async def round(self, client: httpx.AsyncClient, fault: str = "") -> PoolReport:
        """Ask every server once, at most MAX_AT_ONCE at a time; publish and return what is known afterwards.

        `fault` is a failure that is already known, of the TLS files.
        """
        self.begin()
        urls, failures = await self._urls()
        key, key_faults = await self._key()
        failures = [*([fault] if fault else []), *key_faults, *failures]
        few = asyncio.Semaphore(MAX_AT_ONCE)
        said = await asyncio.gather(*(self._ask(client, url, few, key) for url in urls))
        now_s = self.clock()
        answered = [each for each in said if isinstance(each, EndpointReport)]
        failures += [str(each) for each in said if isinstance(each, ScrapeFailed)]
        failures += [each.fault for each in answered if each.fault]
        if self.needs_load:
            failures += [each.load_fault for each in answered if each.load_fault]
        for report in answered:
            self._store(report, now_s)
        self._forget(urls, now_s)
        self._log(failures, now_s)
        result = self._report(len(urls), answered)
        self.publish(result)
        return result

    def lose(self) -> None:
        """Publish a round in which no server responded; called when a round could not be finished."""
        urls = tuple(self.known.latest)
        self._forget(urls, self.clock())
        self.publish(self._report(len(urls), []))

    async def _urls(self) -> tuple[tuple[str, ...], list[str]]:
        try:
            return await endpoints(self.where, self.settings.timeout_s), []
        except AddressesUnknown as error:
            # Ask the servers that have reported before, and those that are known in spite of the failure.
            return tuple(dict.fromkeys([*self.known.latest, *error.known]))[:MAX_ENDPOINTS], [str(error)]

    async def _key(self) -> tuple[str, list[str]]:
        if not (self.where.api_key_file or self.where.api_key_variable):
            return "", []
        try:
            return await asyncio.to_thread(key_of, self.where), []
        except KeyUnknown as error:
            return "", [str(error)]

    async def _ask(
        self, client: httpx.AsyncClient, url: str, few: asyncio.Semaphore, key: str
    ) -> EndpointReport | ScrapeFailed:
        server_name = "" if self.where.tls is None else self.where.tls.server_name
        async with few:
            try:
                return await scrape(client, url, self.settings.timeout_s, key, server_name)
            except ScrapeFailed as error:
                return error

    def _store(self, report: EndpointReport, now_s: float) -> None:
        """Store a server's report; a page that is missing this time keeps its previous content."""
        latest = self.known.latest.setdefault(report.url, _Latest())
        if report.models is not None:
            latest.models, latest.models_at_s = report.models, now_s
        if report.load is not None:
            latest.load, latest.load_at_s = report.load, now_s

    def _forget(self, urls: tuple[str, ...], now_s: float) -> None:
        """Drop servers that are no longer listed, and reports that are too old.

        A clock that is set back makes no report older.
        """
        self.known.latest = {url: latest for url, latest in self.known.latest.items() if url in urls}
        settings = self.settings
        good_for_s = LOAD_GOOD_FOR_ROUNDS * (settings.every_s + settings.timeout_s)
        for latest in self.known.latest.values():
            if latest.models_at_s < now_s - settings.forget_after_s:
                latest.models = None
            if latest.load_at_s < now_s - good_for_s:
                latest.load = None

    def _report(self, asked: int, answered: list[EndpointReport]) -> PoolReport:
        latest = [each for _, each in sorted(self.known.latest.items())]
        models = tuple(each.models for each in latest if each.models is not None)
        loads = tuple(each.load for each in latest if each.load is not None)
        with_load = sum(report.load is not None for report in answered)
        return PoolReport(models, loads, asked, with_load if self.needs_load else len(answered), with_load > 0)

    def _log(self, failures: list[str], now_s: float) -> None:
        """Log once when servers begin to fail, and once when all have responded for CALM_S.

        Of a hundred servers one is late in every other round, and lines for each such round would fill the log.
        """
        failed_at_s = self.known.failed_at_s
        if failures:
            self.known.failed_at_s = now_s
            if failed_at_s is None:
                fields = {"pool": self.pool, "failed": len(failures), "first": without_password(failures[0])}
                log.warning("servers of a pool do not report what they serve", extra={"fields": fields})
        elif failed_at_s is not None and now_s - failed_at_s >= CALM_S:
            self.known.failed_at_s = None
            log.info("all servers of a pool report what they serve", extra={"fields": {"pool": self.pool}})
