"""How long and how much of a request or response is held; the configuration file decodes into this object."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

__all__ = ["ExchangeSettings"]


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What an exchange may hold, and for how long.

    `deadline_ms` must be below the gateway's message_timeout (200 ms unless set there), `max_held_bytes` below its
    buffer limit (1 MiB unless set there). `max_response_bytes` bounds what is read of one response.
    """

    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 150
    max_held_bytes: Annotated[int, Meta(ge=1024)] = 768 << 10
    max_response_bytes: Annotated[int, Meta(ge=1024)] = 4 << 20
