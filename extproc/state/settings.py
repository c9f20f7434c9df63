"""Where what was learned is kept, and with whom it is shared; the configuration decodes into these objects."""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["StateSettings", "StoreSettings"]

_KEY: Final = "1 to 64 printable ASCII characters, no space"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A Redis or Valkey through which replicas share what they learn; while it is away each learns alone."""

    url: str
    """`redis://host:port/database`, `rediss://` over TLS, or `unix:///path`; without a password."""
    name: Annotated[str, Meta(pattern=r"\A[!-~]{1,64}\Z", extra={"allowed": _KEY})] = "dualpool"
    """The beginning of each key's name: routers that share what they learn have the same."""
    username: str = ""
    """Who logs in; when empty the store's default user."""
    password_file: str = ""
    """A file whose first line is the password, read again whenever a connection is made."""
    ca_file: str = ""
    """The authorities, as PEM, that the store's certificate is checked by; when empty the system's."""
    every_s: Annotated[float, Meta(ge=0.05, le=3_600)] = 10.0
    """How often each replica publishes its own knowledge and reads the others'."""
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 2.0
    """How long the store may take for one reply."""
    keep_s: Annotated[float, Meta(ge=60)] = 604_800.0
    """How long the store keeps knowledge that no replica publishes any more."""


@dataclass(frozen=True, slots=True)
class StateSettings:
    """What becomes of what was learned: by default it is forgotten at the end; see [state.md](state.md)."""

    path: str = ""
    """The file that it is saved to, and read from at the start; its directory has to exist and be the router's."""
    every_s: Annotated[float, Meta(ge=0.05, le=86_400)] = 30.0
    """How often it is saved; so much is lost at most when the process is killed."""
    store: StoreSettings | None = None
