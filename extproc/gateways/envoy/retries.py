"""Conversion of Envoy's retry policies into the model."""

from typing import Final

from envoy.config.route.v3.route_components_pb2 import RetryPolicy
from envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)

from extproc.gateways.model import Retry
from extproc.gateways.parsing.parts import Part, milliseconds

__all__ = ["retry_of"]

_PREVIOUS: Final = "envoy.retry_priorities.previous_priorities"


def retry_of(part: Part[RetryPolicy]) -> Retry:
    """Return the retry policy; its conditions are separated by commas, as in Envoy."""
    message = part.message
    of_a_try = (milliseconds(part, name, 0.0) for name in ("per_try_timeout", "per_try_idle_timeout"))
    return Retry(
        place=part.place,
        conditions=frozenset(each.strip() for each in message.retry_on.split(",") if each.strip()),
        statuses=frozenset(message.retriable_status_codes),
        previous_priorities=_leaves_on_first_retry(part),
        num_retries=part.number("num_retries", 1),
        restricted=bool(message.retriable_request_headers),
        try_timeout_ms=min((each for each in of_a_try if each > 0), default=0.0),
    )


def _leaves_on_first_retry(part: Part[RetryPolicy]) -> bool:
    """Return whether the first retry already goes to another priority than the one that failed."""
    priority = part.field("retry_priority")
    held = priority.field("typed_config").unpacked(PreviousPrioritiesConfig)
    if held is None:
        return bool(priority.message.name == _PREVIOUS)
    return bool(held.message.update_frequency <= 1)
