"""Where what was learned is kept, and with whom it is shared; the configuration decodes into these objects."""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["LEAST_KEPT_INTERVALS", "StateSettings", "StoreSettings"]

# A replica is missed after six intervals, and what it knew is folded into the base at one of the next.
LEAST_KEPT_INTERVALS: Final = 10
_KEY: Final = "1 to 64 printable ASCII characters, no space"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A Redis or Valkey through which replicas share what they learn; while it is unreachable each learns
    alone.
    """

    url: str
    """`redis://host:port/database`, `rediss://` over TLS, or `unix:///path`, where `?db=1` names the database;
    without a password."""
    name: Annotated[str, Meta(pattern=r"\A[!-~]{1,64}\Z", extra={"allowed": _KEY})] = "dualpool"
    """The prefix of each key: the same for routers that share what they learn."""
    username: str = ""
    """The user name; when empty the store's default user."""
    password_file: str = ""
    """A file whose first line is the password, read again whenever a connection is made."""
    ca_file: str = ""
    """The certificate authorities, as PEM, that the store's certificate is checked against; when empty the
    system's."""
    every_s: Annotated[float, Meta(ge=0.05, le=3_600)] = 10.0
    """How often each replica publishes its own knowledge and reads the others'."""
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 2.0
    """How long the store may take to reply."""
    keep_s: Annotated[float, Meta(ge=60)] = 604_800.0
    """How long the store keeps knowledge that no replica publishes any more; at least ten times `every_s`."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Whether what was learned is saved and shared: by default it is forgotten when the router exits; see
    [state.md](state.md).
    """

    path: str = ""
    """The file that it is saved to, and read from at the start; its directory has to exist and be the router's."""
    every_s: Annotated[float, Meta(ge=0.05, le=86_400)] = 30.0
    """How often it is saved: at most so much is lost when the process is killed."""
    store: StoreSettings | None = None
