"""The router as the traps see it: its configuration, and the headers that it reads and sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from extproc.config.schema import Configuration
from extproc.core.placing.pool import Pool

__all__ = ["BUFFERING", "DECIDING", "NAMESPACE", "Router", "pools_from", "share_a_model"]

NAMESPACE: Final = "dualpool"
"""Namespace of the dynamic metadata that the router sends."""
DECIDING: Final = 40
"""Requests at a process besides the responses that it reads to learn from: 20 ms of work at 2,000 a second."""
BUFFERING: Final = 1_024
"""Requests at the router in mode BUFFERED, where an upload occupies its place until it has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """The router that a gateway asks, with the default configuration if none is given; it equals no other."""

    configuration: Configuration = field(default_factory=Configuration)
    processes: int = 1
    """Number of its processes that listen, each at its own address."""

    @property
    def sets(self) -> tuple[str, ...]:
        """Headers that only the router may set, the pool header first."""
        names = self.configuration.headers
        return (names.pool, names.estimate, names.reason)

    @property
    def reads(self) -> tuple[str, ...]:
        """Headers that the router reads, in requests and responses."""
        of_all = (":method", ":path", ":status", "content-type", "content-encoding")
        traces = ("traceparent",) if self.configuration.traces else ()
        tenant = self.configuration.tenant_header
        return (*of_all, "x-envoy-attempt-count", "x-request-id", *traces, *((tenant,) if tenant else ()))


def pools_from(pools: Sequence[Pool], pool: Pool) -> tuple[Pool, ...]:
    """Return a pool and the later ones that may serve its models: what it refuses can be retried there."""
    later = pools[pools.index(pool) + 1 :]
    return (pool, *(each for each in later if share_a_model(pool, each)))


def share_a_model(one: Pool, other: Pool) -> bool:
    """Return whether both pools may serve a common model.

    A pool that names no models serves all, or those that its servers report.
    """
    if not one.models or not other.models:
        return True
    return any(fnmatchcase(a, b) or fnmatchcase(b, a) for a in one.models for b in other.models)
