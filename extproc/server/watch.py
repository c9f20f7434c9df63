"""The job that keeps a router informed about its pools: what they serve, and how loaded they are."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from extproc.config.schema import Configuration
from extproc.core.placing.fleet import Fleet
from extproc.server.background import Job
from extproc.server.streams import Routing
from extproc.telemetry.metrics import Metrics

__all__ = ["watch_job"]

# How soon another configuration is noticed.
LOOKS_EVERY_S: Final = 0.5


class _Audience:
    """The router and its metrics as the survey of one configuration's pools sees them, from its own thread."""

    def __init__(self, configuration: Configuration, routing: Callable[[], Routing], metrics: Metrics) -> None:
        self._configuration = configuration
        self._routing = routing
        self.watched = metrics.watched

    def placed(self, pool: str) -> tuple[int, int]:
        spillover = self._routing().router.placer.spillover
        return (0, 0) if spillover is None else spillover.placed(pool)

    def found(self, fleet: Fleet) -> None:
        routing = self._routing()
        if _same(routing.configuration, self._configuration):  # else it is of pools that are no more
            routing.router.know(fleet)


def watch_job(routing: Callable[[], Routing], metrics: Metrics) -> Job:
    """Return what asks the servers of all pools that have endpoints, until it is cancelled.

    `routing` is what is in force; where pools, `watch` or `spill` of it change, it begins anew.
    """

    async def watch() -> None:
        while True:
            configuration = routing().configuration
            surveying = asyncio.create_task(_survey(configuration, routing, metrics))
            try:
                while _same(routing().configuration, configuration) and not surveying.done():
                    await asyncio.wait({surveying}, timeout=LOOKS_EVERY_S)
            finally:
                surveying.cancel()
                await asyncio.wait({surveying})
            if not surveying.cancelled():
                surveying.result()

    return watch


async def _survey(configuration: Configuration, routing: Callable[[], Routing], metrics: Metrics) -> None:
    """Ask until cancelled."""
    if not any(pool.endpoints for pool in configuration.pools):
        await asyncio.Event().wait()
    from extproc.pools.scraping import make_client  # noqa: PLC0415  (an HTTP client that others do not need)
    from extproc.pools.survey import Survey  # noqa: PLC0415

    survey = Survey(configuration.pools, configuration.spill, _Audience(configuration, routing, metrics))
    watches = survey.watches(configuration.watch, Random())  # noqa: S311  (jitter)
    async with make_client() as client, asyncio.TaskGroup() as group:
        for each in watches:
            group.create_task(each.run(client))


def _same(one: Configuration, other: Configuration) -> bool:
    return (one.pools, one.watch, one.spill) == (other.pools, other.watch, other.spill)
