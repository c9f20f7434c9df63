"""The job that keeps a router informed about its pools: what they serve and how loaded they are."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from extproc.config.schema import Configuration
from extproc.core.placing.fleet import Fleet
from extproc.server.background import Job
from extproc.server.routing import Routing
from extproc.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from extproc.pools.survey import Survey
    from extproc.pools.watching import PoolWatch

__all__ = ["watch_job"]

# How often the configuration in force is checked for changes.
LOOKS_EVERY_S: Final = 0.5
AGAIN_AFTER_S: Final = 1.0


class _Audience:
    """The router and its metrics, as the survey of one configuration's pools uses them from its own thread."""

    def __init__(self, configuration: Configuration, routing: Callable[[], Routing], metrics: Metrics) -> None:
        self._configuration = configuration
        self._routing = routing
        self.watched = metrics.watched

    def placed(self, pool: str) -> tuple[int, int]:
        spillover = self._routing().router.placer.spillover
        return (0, 0) if spillover is None else spillover.placed(pool)

    def publish(self, fleet: Fleet) -> None:
        routing = self._routing()
        if _same(routing.configuration, self._configuration):  # otherwise it is about former pools
            routing.router.know(fleet)


def watch_job(routing: Callable[[], Routing], metrics: Metrics, failed: Callable[[Exception], None]) -> Job:
    """Return the job that polls the servers of all pools with endpoints, until it is cancelled.

    `routing` returns the one in force; if its pools, `watch` or `spill` change, the job continues with the new
    ones. `failed` is called with an exception in our own code.
    """

    async def watch() -> None:
        survey: Survey | None = None
        while True:
            configuration = routing().configuration
            metrics.watching({pool.name for pool in configuration.pools if pool.endpoints})
            survey = _surveyed(configuration, routing, metrics, survey)
            asking = asyncio.create_task(_ask(survey, configuration, failed))
            try:
                while _same(routing().configuration, configuration) and not asking.done():
                    await asyncio.wait({asking}, timeout=LOOKS_EVERY_S)
            finally:
                asking.cancel()
                await asyncio.wait({asking})
            if not asking.cancelled():
                asking.result()

    return watch


def _surveyed(
    configuration: Configuration, routing: Callable[[], Routing], metrics: Metrics, before: "Survey | None"
) -> "Survey | None":
    """Return the survey of a configuration's pools; None if no pool has endpoints."""
    if not any(pool.endpoints for pool in configuration.pools):
        return None
    from extproc.pools.survey import Survey  # noqa: PLC0415  (it imports an HTTP client)

    audience = _Audience(configuration, routing, metrics)
    return Survey(configuration.pools, configuration.spill, audience, before=before)


async def _ask(survey: "Survey | None", configuration: Configuration, failed: Callable[[Exception], None]) -> None:
    """Poll until cancelled."""
    if survey is None:
        await asyncio.Event().wait()
        return
    async with asyncio.TaskGroup() as group:
        for each in survey.watches(configuration.watch, Random()):  # noqa: S311  (jitter)
            group.create_task(_poll(each, failed))


async def _poll(watch: "PoolWatch", failed: Callable[[Exception], None]) -> None:
    """Poll one pool until cancelled; after an exception its servers count as silent, and are polled again."""
    while True:
        try:
            await watch.run()
        except Exception as error:  # noqa: BLE001  (whatever it is, the next round may succeed)
            failed(error)
            watch.lose()
        await asyncio.sleep(AGAIN_AFTER_S)


def _same(one: Configuration, other: Configuration) -> bool:
    return (one.pools, one.watch, one.spill) == (other.pools, other.watch, other.spill)
