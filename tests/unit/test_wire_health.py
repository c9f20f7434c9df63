"""The messages of gRPC's health service."""

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extproc.wire.decode import UnknownMessage
from extproc.wire.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, asked_service


@pytest.mark.parametrize("service", ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"])
def test_the_service_that_is_asked_for(service: str) -> None:
    """A check names a service; the empty name is the server itself."""
    assert service == asked_service(HealthCheckRequest(service=service).SerializeToString())


def test_bytes_that_are_not_a_check_are_refused() -> None:
    """Bytes that are not a check raise UnknownMessage, which says how many there were."""
    with pytest.raises(UnknownMessage, match=r"^3 bytes that are not a HealthCheckRequest"):
        asked_service(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("message", "status"),
    [(SERVING, "SERVING"), (NOT_SERVING, "NOT_SERVING"), (SERVICE_UNKNOWN, "SERVICE_UNKNOWN")],
)
def test_each_status_is_the_protocols_own(message: bytes, status: str) -> None:
    """Each message decodes to the status of its name."""
    decoded = HealthCheckResponse.FromString(message)
    assert status == HealthCheckResponse.ServingStatus.Name(decoded.status)
