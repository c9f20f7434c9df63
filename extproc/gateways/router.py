"""What the traps have to know of the router: its configuration, and what it reads and sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from extproc.config.schema import Configuration
from extproc.core.placing.pool import Pool

__all__ = ["NAMESPACE", "Router", "pools_from"]

NAMESPACE = "dualpool"
"""The dynamic metadata that the router sends."""


@dataclass(frozen=True, slots=True)
class Router:
    """The router that a gateway asks; its defaults where no configuration is given."""

    configuration: Configuration = field(default_factory=Configuration)
    processes: int = 1
    """How many of it listen, each at an address of its own."""

    @property
    def sets(self) -> tuple[str, ...]:
        """Headers that are the router's word, the pool's first."""
        names = self.configuration.headers
        return (names.pool, names.estimate, names.reason)

    @property
    def reads(self) -> tuple[str, ...]:
        """Headers that the router looks for, in requests and responses."""
        of_all = (":method", ":path", ":status", "content-type", "content-encoding")
        traces = ("traceparent",) if self.configuration.traces else ()
        tenant = self.configuration.tenant_header
        return (*of_all, "x-envoy-attempt-count", "x-request-id", *traces, *((tenant,) if tenant else ()))


def pools_from(pools: Sequence[Pool], pool: Pool) -> tuple[Pool, ...]:
    """Return a pool, and those after it that may serve what it serves: where its refusals can be tried again."""
    later = pools[pools.index(pool) + 1 :]
    return (pool, *(each for each in later if _share_a_model(pool, each)))


def _share_a_model(one: Pool, other: Pool) -> bool:
    """Whether a model may be served by both; a pool that names none serves all, or what its servers say."""
    if not one.models or not other.models:
        return True
    return any(fnmatchcase(a, b) or fnmatchcase(b, a) for a in one.models for b in other.models)
