"""One span for each request of a sampled trace, for OpenTelemetry; imported only where traces are configured.

A span is from the request's arrival to its decision: what the router adds to a request's latency. What it reads
of the response later delays nobody, and has metrics. Whether a trace is sampled is its parent's word, Envoy's as a
rule; a request without `traceparent`, or not sampled, costs one comparison. The SDK's own thread sends spans in
batches, and drops them when the collector does not keep up. Names of attributes are those of OpenTelemetry's
semantic conventions for generative AI where they have one. Rejected: a span for each message (the SDK's cost for
each token), and instrumentation of grpcio, whose core this server drives by itself.
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

# The last words on a collector that does not answer must not hold up the end of the process.
EXPORT_TIMEOUT_S: Final = 2.0
# Version, trace, parent and flags; the lowest bit of the flags says "sampled". https://www.w3.org/TR/trace-context/
TRACEPARENT_CHARS: Final = 55


class TraceListener(Listener):
    """A Listener that makes a span of each decision on a request of a sampled trace."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dualpool")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def sending(cls, endpoint: str, service_name: str, version: str) -> "TraceListener":
        """Return one that sends what it makes to a collector, as OTLP in JSON over HTTP."""
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
        """Send what is left, for a few seconds at most, and end the SDK's thread."""
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
