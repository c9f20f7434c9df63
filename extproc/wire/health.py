"""The messages of gRPC's health service (grpc.health.v1): a service's name in, its status out."""

from typing import Final

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extproc.wire.decode import UnknownMessage

__all__ = ["NOT_SERVING", "SERVICE_UNKNOWN", "SERVING", "asked_service"]

SERVING: Final[bytes] = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
NOT_SERVING: Final[bytes] = HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING).SerializeToString()
SERVICE_UNKNOWN: Final[bytes] = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


def asked_service(message: bytes) -> str:
    """Return the name of the requested service; "" means the server itself. Raises UnknownMessage."""
    try:
        name: str = HealthCheckRequest.FromString(message).service
    except DecodeError as error:
        raise UnknownMessage(f"{len(message)} bytes that are not a HealthCheckRequest: {error}") from error
    return name
