"""What the traps have to know of the router: its configuration, and what it reads and sets."""

from dataclasses import dataclass, field

from extproc.config.schema import Configuration

__all__ = ["NAMESPACE", "Router"]

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
        names = (":method", ":path", ":status", "content-type", "content-encoding", "x-envoy-attempt-count")
        tenant = self.configuration.tenant_header
        return (*names, tenant) if tenant else names
