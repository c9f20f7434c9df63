"""How long and how much of a request or response is held; the configuration file decodes into this object."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

__all__ = ["CloseRule", "ExchangeSettings"]


class CloseRule(StrEnum):
    """When a stream is closed before the gateway ends it."""

    WHEN_HARMLESS = "when_harmless"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What an exchange (one request and its response) may hold, and for how long."""

    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 150
    """How long the router waits for a body; then the request goes to the default pool. It has to be below the
    gateway's message_timeout (200 ms unless set there)."""
    max_held_bytes: Annotated[int, Meta(ge=1024)] = 768 << 10
    """The most that is held of a body; a longer one goes to the default pool. It has to be below the
    gateway's buffer limit (1 MiB unless set there)."""
    max_response_bytes: Annotated[int, Meta(ge=1024)] = 4 << 20
    """The most that is read of one response to learn from it."""
    close: CloseRule = CloseRule.WHEN_HARMLESS
    """`when_harmless` closes a stream when nothing is left to do, which costs least; Envoy takes that for a reply
    to all that is still to come. `never` keeps it open and replies to everything: for gateways that take a close
    for an error, such as agentgateway."""
