"""The job that keeps a router told of its pools."""

import asyncio
from random import Random

from extproc.config.schema import Configuration
from extproc.core.placing.fleet import Fleet
from extproc.core.router.router import Router
from extproc.pools.scraping import make_client
from extproc.pools.survey import Survey
from extproc.server.background import Job
from extproc.telemetry.metrics import Metrics

__all__ = ["watch_job"]


class _Audience:
    """The router and its metrics as the survey sees them, from its own thread."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self.watched = metrics.watched

    def placed(self, pool: str) -> tuple[int, int]:
        spillover = self._router.placer.spillover
        return (0, 0) if spillover is None else spillover.placed(pool)

    def found(self, fleet: Fleet) -> None:
        self._router.know(fleet)


def watch_job(configuration: Configuration, router: Router, metrics: Metrics) -> Job:
    """Return what asks the servers of all pools that have endpoints, until it is cancelled."""

    async def watch() -> None:
        survey = Survey(configuration.pools, configuration.spill, _Audience(router, metrics))
        watches = survey.watches(configuration.watch, Random())  # noqa: S311  (jitter)
        async with make_client() as client, asyncio.TaskGroup() as group:
            for each in watches:
                group.create_task(each.run(client))

    return watch
