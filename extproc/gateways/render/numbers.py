"""The numbers of a gateway's configuration that follow from the router's."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Final

from extproc.config.schema import Configuration
from extproc.config.worker_addresses import check_room, listen_settings_of
from extproc.core.placing.pool import Pool
from extproc.gateways.router import Router, pools_from

__all__ = ["Mode", "Numbers"]

MIB: Final = 1 << 20
# How much later than the router's own deadline Envoy gives a message up: 350 ms for a router that is busy.
BUSY_MS: Final = 350
# Bytes for each token of the largest optional pool: a longer body is for the default pool whatever is in it.
CERTAINLY_LONG: Final = 512
# Of a prompt, for bodies that are short by their length alone; the other half of the budget is for output.
BYTES_PER_TOKEN: Final = 4
LARGEST_BUFFERED: Final = 32 * MIB
# Requests with the router at once beside those kept to learn: 20 ms of a process that decides 2,000 a second.
DECIDING: Final = 40
# Where an upload has its place until it has ended, and where one that finds no place is an error.
BUFFERING: Final = 1_024
NEVER_REACHED: Final = 16_384


class Mode(StrEnum):
    """How the request's body comes to the router."""

    STREAMED = "streamed"
    BUFFERED = "buffered"
    FULL_DUPLEX = "full-duplex"


@dataclass(frozen=True)
class Numbers:
    """What a configuration of the router means for the gateway in front of it."""

    configuration: Configuration
    mode: Mode = Mode.STREAMED
    workers: int = 1
    """How many processes of the router listen, each at an address of its own."""

    @property
    def smaller_pools(self) -> tuple[Pool, ...]:
        """Those that the router sends requests to; the default pool is the last."""
        return self.configuration.pools[:-1]

    @property
    def default_pool(self) -> Pool:
        """Where everything unsure goes."""
        return self.configuration.pools[-1]

    def next_pools(self, pool: Pool) -> tuple[Pool, ...]:
        """Return a pool, and those that its refusals are retried on, one after the other."""
        return pools_from(self.configuration.pools, pool)

    def is_repaired(self, pool: Pool) -> bool:
        """Whether another pool may take what this one refuses; not where it is the largest of its models."""
        return len(self.next_pools(pool)) > 1

    def cluster_of(self, pool: Pool) -> str:
        """Return the name of a pool's cluster."""
        return f"pool_{pool.name}"

    def repaired_cluster_of(self, pool: Pool) -> str:
        """Return the name of the cluster of a pool and those after it; the pool's own where there is none."""
        if not self.is_repaired(pool):
            return self.cluster_of(pool)
        return "_then_".join(each.name for each in self.next_pools(pool))

    @property
    def message_timeout(self) -> timedelta:
        """How long Envoy waits for the router; in full duplex, within a response, for one that hangs."""
        if self.mode is Mode.FULL_DUPLEX:
            return timedelta(seconds=30)
        return timedelta(milliseconds=self.configuration.exchange.deadline_ms + BUSY_MS)

    @property
    def places(self) -> int:
        """How many requests are with the router's processes at once."""
        if self.mode is Mode.STREAMED:
            return (self.configuration.learning.max_streams + DECIDING) * self.workers
        return BUFFERING if self.mode is Mode.BUFFERED else NEVER_REACHED

    @property
    def buffer_bytes(self) -> int:
        """What Envoy holds of a request: whole MiB, with room above what the router waits for."""
        held = self.configuration.exchange.max_held_bytes
        return -(-held * 5 // (4 * MIB)) * MIB

    @property
    def body_bytes(self) -> int:
        """What Envoy holds of a body in mode BUFFERED: well below the router's largest message."""
        return min(LARGEST_BUFFERED, self.configuration.listen.max_message_bytes // 2)

    @property
    def by_passed_from_bytes(self) -> int:
        """The shortest body that may bypass the router."""
        if self.mode is Mode.BUFFERED:
            return self.body_bytes + 1
        return self.configuration.pools[-2].max_budget_tokens * CERTAINLY_LONG

    @property
    def by_passed_percent(self) -> int:
        """Of those: none, where the router decides them early; all, where they would be refused."""
        return 100 if self.mode is Mode.BUFFERED else 0

    @property
    def has_small_bodies(self) -> bool:
        """Whether a length can say where a body goes: not where it depends on the model."""
        return not any(pool.models for pool in self.configuration.pools)

    @property
    def small_body_bytes(self) -> int:
        """The longest body that is short by its length alone."""
        return self.smaller_pools[0].max_budget_tokens // 2 * BYTES_PER_TOKEN

    @property
    def health_interval(self) -> timedelta:
        """How often the router is asked: in time for its drain, and more often where a dead one costs requests.

        Of several processes one that was killed has the fewest requests, and so is everybody's first choice.
        """
        wanted = 1.0 if self.mode is Mode.FULL_DUPLEX else 2.0
        if self.workers > 1:
            wanted = 0.5
        return timedelta(seconds=min(wanted, max(0.5, self.configuration.drain_s / 3)))

    @property
    def leaves_dead_routers_alone(self) -> bool:
        """Whether a router that refuses connections is not asked again at once."""
        return self.mode is Mode.FULL_DUPLEX or self.workers > 1

    @cached_property
    def set_headers(self) -> tuple[str, ...]:
        """The router's word, which no client may speak."""
        names = self.configuration.headers
        return (names.pool, names.estimate, names.reason)

    @property
    def read_headers(self) -> tuple[str, ...]:
        """What the router reads of requests and responses."""
        return Router(self.configuration).reads

    @property
    def router_addresses(self) -> tuple[tuple[str, int], ...]:
        """Where the router's processes listen: host and port, or the path of a socket and 0."""
        listen = self.configuration.listen
        if self.workers == 1:
            return (_destination(listen.address),)
        check_room(self.configuration, self.workers)
        return tuple(_destination(listen_settings_of(listen, each).address) for each in range(self.workers))


def _destination(address: str) -> tuple[str, int]:
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), 0
    host, _, port = address.rpartition(":")
    # Every address is an address to listen at, and none to go to.
    return "127.0.0.1" if host in ("[::]", "0.0.0.0") else host.strip("[]"), int(port)  # noqa: S104  (compared)
