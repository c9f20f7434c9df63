"""Envoy's retry policies to the model."""

from typing import Final

from envoy.config.route.v3.route_components_pb2 import RetryPolicy

from extproc.gateways.model import Retry
from extproc.gateways.parts import Part

__all__ = ["retry_of"]

_PREVIOUS: Final = "envoy.retry_priorities.previous_priorities"


def retry_of(part: Part[RetryPolicy]) -> Retry:
    """Return a policy; conditions are separated by commas, as in Envoy."""
    message = part.message
    return Retry(
        place=part.place,
        conditions=frozenset(each.strip() for each in message.retry_on.split(",") if each.strip()),
        statuses=frozenset(message.retriable_status_codes),
        previous_priorities=message.retry_priority.name == _PREVIOUS
        or "previous_priorities" in message.retry_priority.typed_config.type_url,
    )
