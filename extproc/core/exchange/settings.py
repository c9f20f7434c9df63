"""The limits on what is held of a request or response; the configuration file decodes into this object."""

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
    """How much an exchange (one request and its response) may hold, and for how long."""

    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 150
    """How long the router waits for a body; after that the request goes to the default pool, and the head of a
    response on to the client. It must be below the gateway's message_timeout (by default 200 ms)."""
    max_held_bytes: Annotated[int, Meta(ge=1024)] = 768 << 10
    """The most that is held of a body; a request with a longer one goes to the default pool. It must be below the
    gateway's buffer limit (by default 1 MiB)."""
    max_response_bytes: Annotated[int, Meta(ge=1024)] = 4 << 20
    """The most that is read of a response to learn from it."""
    close: CloseRule = CloseRule.WHEN_HARMLESS
    """`when_harmless` closes a stream when nothing is left to do, which costs least; Envoy treats this as a reply
    to all further messages. `never` keeps it open and replies to everything: for gateways that treat a close as an
    error, such as agentgateway."""
