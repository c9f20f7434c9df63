"""The numbers of a gateway's configuration that are computed from the router's."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from extproc.config.schema import Configuration
from extproc.config.worker_addresses import check_room, listen_settings_of
from extproc.core.errors import ConfigurationError
from extproc.core.placing.pool import Pool
from extproc.gateways.router import BUFFERING, DECIDING, Router, pools_from

__all__ = ["Mode", "Numbers"]

MIB: Final = 1 << 20
# How long after the router's own deadline Envoy gives up waiting for it: slack for a router that is busy.
BUSY_MS: Final = 350
# Bytes per token of the second-largest pool's budget: a longer body is for the default pool whatever is in it.
CERTAINLY_LONG: Final = 512
# Assumed for bodies that are routed by their length alone. Half of the budget is for the prompt, half for output.
BYTES_PER_TOKEN: Final = 4
LARGEST_BUFFERED: Final = 32 * MIB
# In full duplex a request without a place fails.
NEVER_REACHED: Final = 16_384


class Mode(StrEnum):
    """How Envoy sends the request body to the router."""

    STREAMED = "streamed"
    BUFFERED = "buffered"
    FULL_DUPLEX = "full-duplex"


@dataclass(frozen=True)
class Numbers:
    """The numbers for the gateway in front of a router with this configuration."""

    configuration: Configuration
    mode: Mode = Mode.STREAMED
    workers: int = 1
    """Number of the router's processes that listen, each at its own address."""

    @property
    def smaller_pools(self) -> tuple[Pool, ...]:
        """All pools but the default one, which is the last and largest."""
        return self.configuration.pools[:-1]

    @property
    def default_pool(self) -> Pool:
        """The pool for all requests that the router is unsure about."""
        return self.configuration.pools[-1]

    def next_pools(self, pool: Pool) -> tuple[Pool, ...]:
        """Return a pool, followed by the pools in which its refusals are retried, in that order."""
        return pools_from(self.configuration.pools, pool)

    def is_repaired(self, pool: Pool) -> bool:
        """Return whether a later pool may serve what this one refuses; not if it is the largest of its models."""
        return len(self.next_pools(pool)) > 1

    def need_other_names(self, *routes: str) -> None:
        """Raise ConfigurationError for a smaller pool whose route would have the name of one of these routes."""
        for pool in self.smaller_pools:
            if pool.name in routes:
                raise ConfigurationError(f"pools: {pool.name!r} is the name of a route that is rendered, too")

    def cluster_of(self, pool: Pool) -> str:
        """Return the name of a pool's cluster."""
        return f"pool_{pool.name}"

    def repaired_cluster_of(self, pool: Pool) -> str:
        """Return the name of the aggregate of a pool and its next pools, of its own cluster if it has none."""
        if not self.is_repaired(pool):
            return self.cluster_of(pool)
        return "_then_".join(each.name for each in self.next_pools(pool))

    @property
    def message_timeout(self) -> timedelta:
        """How long Envoy waits for a reply; in full duplex it covers responses only, for a router that hangs."""
        if self.mode is Mode.FULL_DUPLEX:
            return timedelta(seconds=30)
        return timedelta(milliseconds=self.configuration.exchange.deadline_ms + BUSY_MS)

    @property
    def places(self) -> int:
        """How many requests may be at the router's processes at a time."""
        if self.mode is Mode.STREAMED:
            return (self.configuration.learning.max_streams + DECIDING) * self.workers
        return BUFFERING if self.mode is Mode.BUFFERED else NEVER_REACHED

    @property
    def buffer_bytes(self) -> int:
        """How much of a request Envoy holds: a quarter more than the router waits for, rounded up to MiB."""
        held = self.configuration.exchange.max_held_bytes
        return -(-held * 5 // (4 * MIB)) * MIB

    @property
    def body_bytes(self) -> int:
        """The largest body that Envoy holds in mode BUFFERED: well below the router's message limit if possible.

        Raises ConfigurationError if that is below what the router waits for.
        """
        exchange, listen = self.configuration.exchange, self.configuration.listen
        if self.buffer_bytes > listen.max_message_bytes:
            raise ConfigurationError(
                f"listen.max_message_bytes: {listen.max_message_bytes} given; mode BUFFERED needs "
                f"{self.buffer_bytes}, since exchange.max_held_bytes is {exchange.max_held_bytes}"
            )
        return max(min(LARGEST_BUFFERED, listen.max_message_bytes // 2), self.buffer_bytes)

    @property
    def bypass_from_bytes(self) -> int:
        """The smallest body that may bypass the router."""
        if self.mode is Mode.BUFFERED:
            return self.body_bytes + 1
        return self.configuration.pools[-2].max_budget_tokens * CERTAINLY_LONG

    @property
    def bypass_percent(self) -> int:
        """Percentage of them that do: none if the router decides them early, all if Envoy would refuse them."""
        return 100 if self.mode is Mode.BUFFERED else 0

    @property
    def has_small_bodies(self) -> bool:
        """Whether bodies can be routed by their length alone: not if the pool depends on the model."""
        return not any(pool.models for pool in self.configuration.pools)

    @property
    def small_body_bytes(self) -> int:
        """The largest body that goes to the smallest pool by its length alone."""
        return self.smaller_pools[0].max_budget_tokens // 2 * BYTES_PER_TOKEN

    @property
    def health_interval(self) -> timedelta:
        """Interval of health checks: short enough to notice a drain, and shorter if a dead router costs requests.

        With several processes it does: a killed one has the fewest requests in flight, so LEAST_REQUEST picks it.
        """
        wanted = 1.0 if self.mode is Mode.FULL_DUPLEX else 2.0
        if self.workers > 1:
            wanted = 0.5
        return timedelta(seconds=min(wanted, max(0.5, self.configuration.drain_s / 3)))

    @property
    def ejects_dead_routers(self) -> bool:
        """Whether outlier detection ejects a router that refuses connections."""
        return self.mode is Mode.FULL_DUPLEX or self.workers > 1

    @property
    def set_headers(self) -> tuple[str, ...]:
        """The headers that the router sets, and that clients must not."""
        return Router(self.configuration).sets

    @property
    def read_headers(self) -> tuple[str, ...]:
        """The headers that the router reads, in requests and responses."""
        return Router(self.configuration).reads

    @property
    def router_addresses(self) -> tuple[tuple[str, int], ...]:
        """Where the router's processes listen: host and port, or the path of a Unix socket and 0."""
        listen = self.configuration.listen
        if self.workers == 1:
            return (_destination(listen.address),)
        check_room(self.configuration, self.workers)
        return tuple(_destination(listen_settings_of(listen, each).address) for each in range(self.workers))


def _destination(address: str) -> tuple[str, int]:
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), 0
    host, _, port = address.rpartition(":")
    # The wildcard addresses can be listened at but not connected to.
    return "127.0.0.1" if host in ("[::]", "0.0.0.0") else host.strip("[]"), int(port)  # noqa: S104  (compared)
