"""Settings of where learned state is kept and shared; the configuration decodes into these objects."""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["LEAST_KEPT_INTERVALS", "StateSettings", "StoreSettings"]

# A replica is considered dead after six intervals, and its state is folded into the base soon afterwards.
LEAST_KEPT_INTERVALS: Final = 10
_KEY: Final = "1 to 64 printable ASCII characters, no space"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A Redis or Valkey server through which replicas share what they learn; while it is unreachable, each
    learns alone.
    """

    url: str
    """`redis://host:port/database`, `rediss://` for TLS, or `unix:///path`, where `?db=1` selects the database;
    without a password."""
    name: Annotated[str, Meta(pattern=r"\A[!-~]{1,64}\Z", extra={"allowed": _KEY})] = "dualpool"
    """The prefix of all keys; routers that share what they learn use the same one."""
    username: str = ""
    """The user name; if empty, the store's default user."""
    password_file: str = ""
    """A file whose first line is the password; it is read for each new connection."""
    ca_file: str = ""
    """A PEM file of certificate authorities to verify the store's certificate with; if empty, the system's."""
    every_s: Annotated[float, Meta(ge=0.05, le=3_600)] = 10.0
    """How often each replica publishes what it has learned and reads what the others have."""
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 2.0
    """How long to wait for a reply from the store."""
    keep_s: Annotated[float, Meta(ge=60)] = 604_800.0
    """How long the store keeps learned state that no replica publishes any more; at least ten times `every_s`."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Saving and sharing of what the router learns. By default it is lost when the router exits; see
    [state.md](state.md).
    """

    path: str = ""
    """The file to save to, and to load at the start; its directory must exist and be writable by the router."""
    every_s: Annotated[float, Meta(ge=0.05, le=86_400)] = 30.0
    """How often to save; at most this much learning is lost if the process is killed."""
    store: StoreSettings | None = None
