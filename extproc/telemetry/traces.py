"""One OpenTelemetry span for each request of a sampled trace; imported only if traces are configured.

A span lasts from the request's arrival to its decision: what the router adds to the latency. Reading the response
later delays nothing, and has metrics. The parent, usually Envoy, decides whether a trace is sampled; a request
without `traceparent`, or not sampled, costs one comparison. The SDK's own thread sends spans in batches, and drops
them if the collector does not keep up. Attributes are named as in OpenTelemetry's semantic conventions for
generative AI, if those have a name. Rejected: a span for each message (the SDK's cost for each token), and the
instrumentation of grpcio, because this server uses grpcio's core directly.
"""

from collections.abc import Iterator
from typing import Final

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from extproc.core.apis import FAMILIES
from extproc.core.listener import Listener
from extproc.core.placing.decision import Decision

__all__ = ["TraceListener"]

Attribute = str | int | float | bool

# Sending the last spans to a collector that does not respond must not delay the end of the process for long: this
# applies to each of at most four batches, and to each part of a response. The SDK itself gives up after 30 s.
EXPORT_TIMEOUT_S: Final = 2.0
# Version, trace, parent and flags; the lowest bit of the flags says "sampled".
# https://www.w3.org/TR/trace-context/
TRACEPARENT_CHARS: Final = 55


class TraceListener(Listener):
    """A Listener that makes a span for each decision about a request of a sampled trace."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dualpool")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def sending(cls, endpoint: str, service_name: str, version: str) -> "TraceListener":
        """Return a listener that sends its spans to a collector, as OTLP in JSON over HTTP."""
        resource = Resource.create({"service.name": service_name, "service.version": version})
        provider = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def decided(self, decision: Decision) -> None:
        """Make the span, from the request's arrival until now."""
        if _is_sampled(decision.head.traceparent):
            context = self._propagator.extract({"traceparent": decision.head.traceparent})
            self._tracer.start_span(
                "dualpool.route",
                context,
                SpanKind.SERVER,
                dict(_attributes(decision)),
                start_time=decision.head.arrived_ns or None,
            ).end()

    def close(self) -> None:
        """Send what is left, for some seconds if the collector does not respond, and end the SDK's thread."""
        self._provider.shutdown()


def _is_sampled(traceparent: str) -> bool:
    if len(traceparent) < TRACEPARENT_CHARS:
        return False
    try:
        return int(traceparent[TRACEPARENT_CHARS - 2 : TRACEPARENT_CHARS], 16) & 1 == 1
    except ValueError:
        return False


def _attributes(decision: Decision) -> Iterator[tuple[str, Attribute]]:
    if operation := FAMILIES[decision.api].operation:
        yield "gen_ai.operation.name", operation
    if decision.model:
        yield "gen_ai.request.model", decision.model
    yield "dualpool.api", decision.api.value
    yield "dualpool.pool", decision.pool.name
    yield "dualpool.reason", decision.reason.value
    yield "dualpool.mode", decision.mode.value
    yield "dualpool.routed", decision.routed
    yield "dualpool.body_bytes", decision.body_bytes
    if decision.fault is not None:
        yield "dualpool.fault", decision.fault.value
    if decision.head.request_id:
        yield "dualpool.request_id", decision.head.request_id
    if (estimate := decision.estimate) is not None:
        if estimate.output_declared:
            yield "gen_ai.request.max_tokens", estimate.output_tokens
        yield "dualpool.estimate.source", estimate.source.value
        yield "dualpool.estimate.prompt_tokens", estimate.prompt_tokens
        yield "dualpool.estimate.prompt_bound_tokens", estimate.prompt_bound
    if (budget := decision.budget) is not None:
        yield "dualpool.budget_tokens", budget.total
        yield "dualpool.budget_bound_tokens", budget.bound
