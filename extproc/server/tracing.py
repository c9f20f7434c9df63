"""The trace listeners, if traces are configured; otherwise OpenTelemetry is not imported."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extproc import __version__
from extproc.config.schema import TraceSettings
from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from extproc.telemetry.traces import TraceListener

__all__ = ["trace_listeners"]


def trace_listeners(settings: TraceSettings | None) -> Sequence["TraceListener"]:
    """Return the listeners that send traces, if any.

    Raises ConfigurationError if OpenTelemetry is missing, or refuses what the environment says.
    """
    if settings is None:
        return ()
    try:
        from extproc.telemetry.traces import TraceListener  # noqa: PLC0415  (only if traces are configured)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"traces: {error.name} is missing; install dualpool[otel]") from error
    try:
        return (TraceListener.sending(settings.endpoint, settings.service_name, __version__),)
    except ValueError as error:
        raise ConfigurationError(
            f"traces: OpenTelemetry refuses a setting, which it reads from OTEL_... in the environment: {error}"
        ) from error
