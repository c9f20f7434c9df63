import subprocess
import sys

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind

from extproc.config.schema import TraceSettings
from extproc.core.errors import BodyFault, ConfigurationError
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.server.tracing import trace_listeners
from extproc.telemetry.traces import TraceListener
from tests.unit import decisions

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEAD = RequestHead("POST", request_id="r-1", traceparent=f"00-{TRACE}-{PARENT}-01", arrived_ns=10**18)
DECISION = replace(decisions.DECISION, head=HEAD)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Return an exporter that keeps spans in memory."""
    return InMemorySpanExporter()


@pytest.fixture
def listener(spans: InMemorySpanExporter) -> TraceListener:
    """Return a listener that exports to `spans`."""
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return TraceListener(provider)


def test_a_decision_is_one_span_of_its_trace(listener: TraceListener, spans: InMemorySpanExporter) -> None:
    """The span is a child of the gateway's span, starts at the request's
    arrival, and holds the pool and the reason.
    """
    listener.decided(DECISION)
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert span.context is not None
    assert (int(TRACE, 16), int(PARENT, 16)) == (span.context.trace_id, span.parent.span_id)
    assert (SpanKind.SERVER, HEAD.arrived_ns) == (span.kind, span.start_time)
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 50,
        "dualpool.api": "chat_completions",
        "dualpool.pool": "short",
        "dualpool.reason": "fits",
        "dualpool.mode": "enforce",
        "dualpool.routed": True,
        "dualpool.body_bytes": 400,
        "dualpool.request_id": "r-1",
        "dualpool.estimate.source": "young",
        "dualpool.estimate.prompt_tokens": 90.0,
        "dualpool.estimate.prompt_bound_tokens": 120.0,
        "dualpool.budget_tokens": 140,
        "dualpool.budget_bound_tokens": 170,
    } == dict(span.attributes or {})


def test_a_body_that_is_not_understood_has_a_span_too(
    listener: TraceListener, spans: InMemorySpanExporter
) -> None:
    """A body without facts has its fault instead of an estimate."""
    bare = Decision(
        Pool("long", 9),
        Reason.NOT_UNDERSTOOD,
        Mode.ENFORCE,
        routed=False,
        api=Api.CHAT,
        fault=BodyFault.EMPTY,
        head=HEAD,
    )
    listener.decided(bare)
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert "empty" == span.attributes["dualpool.fault"]
    assert not {"gen_ai.request.model", "dualpool.budget_tokens"} & set(span.attributes)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-zz",
        f"00-{'0' * 32}-{PARENT}-01",
        "x" * 55,
        "é" * 60,
    ],
)
def test_the_parent_decides_whether_a_span_is_sampled(
    listener: TraceListener, spans: InMemorySpanExporter, traceparent: str
) -> None:
    """Without a sampled parent, or with an invalid one, there is no span."""
    listener.decided(replace(DECISION, head=replace(HEAD, traceparent=traceparent)))
    assert () == spans.get_finished_spans()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_what_opentelemetry_refuses_in_the_environment_is_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Variables that a platform sets for all its programs may not suit the SDK; it is one line that says so."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=r"traces: OpenTelemetry refuses a setting.*OTEL_"):
        trace_listeners(TraceSettings(endpoint="http://127.0.0.1:1/v1/traces"))


def test_without_tracing_opentelemetry_is_not_imported() -> None:
    """A router without tracing does not load OpenTelemetry."""
    program = (
        "import sys; from extproc.config.loading import parse; from extproc.server.app import App;"
        "App(parse(\"listen: {address: '127.0.0.1:0'}\\nadmin: {address: '127.0.0.1:0'}\"));"
        "print([name for name in sys.modules if name.startswith('opentelemetry')], flush=True);"
        "import os; os._exit(0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "[]" == ran.stdout.strip()
