import time
from math import isnan

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from extproc.config.loading import parse
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.protocol import Refused
from extproc.core.facts import Api, ResponseHead
from extproc.core.listener import Misconfiguration, Observation
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import stratum_of
from extproc.core.usage import Overflow, Usage
from extproc.telemetry.labels import OTHER, BoundedLabels, FollowedFiles
from extproc.telemetry.metrics import Metrics
from tests.unit.decisions import DECISION, LEARNED, LONG, SHORT

OK = ResponseHead(200)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry for this test."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    """Return metrics with separate labels for two models and two categories."""
    return Metrics(registry, max_models=2, max_categories=2)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of a sample of the router's metrics, or None."""
    return registry.get_sample_value(f"dualpool_{name}", labels)


def test_a_decision_is_counted_with_its_estimate(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A request is labelled by pool, reason, API and model; its bound and its estimate's source are recorded."""
    metrics.responded(DECISION, OK, SHORT)
    metrics.decided(DECISION)
    labels = {"pool": "short", "reason": "fits", "api": "chat_completions", "model": "m"}
    assert 1 == value(registry, "requests_total", **labels)
    assert 170 == value(registry, "budget_tokens_sum", model="m")
    assert 1 == value(registry, "estimates_total", model="m", source="young")


def test_a_body_without_facts_is_counted_by_its_cause(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A body that was not understood has a cause and no budget."""
    metrics.decided(
        Decision(LONG, Reason.NOT_UNDERSTOOD, Mode.ENFORCE, routed=False, api=Api.CHAT, fault=BodyFault.TOO_DEEP)
    )
    assert 1 == value(registry, "bodies_not_understood_total", cause="too_deep")
    assert None is value(registry, "budget_tokens_sum", model="")


def test_bounds_are_judged_near_each_budget(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Within 20 % of a pool's budget verdicts on bounds are counted, except for the last pool."""
    metrics.about("1", "enforce", "", (Pool("short", 10_000), Pool("long", 50_000)), 0.01)
    budget = DECISION.budget
    assert budget is not None
    counts = []
    for total in (7_900, 8_100, 11_900, 12_100, 50_000):
        prompt_tokens = total - budget.output_tokens
        metrics.observed(Observation(DECISION, SHORT, Usage(prompt_tokens, 3), LEARNED))
        counts.append(value(registry, "bounds_near_total", pool="short", verdict="held"))
    assert [0, 1, 2, 2, 2] == counts
    assert 0 == value(registry, "bounds_near_total", pool="short", verdict="exceeded")
    assert None is value(registry, "bounds_near_total", pool="long", verdict="held")


def test_responses_that_were_read_are_counted_by_pool(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Each response whose head was read counts for the pool that sent it, a refusal as well; pools start at 0."""
    metrics.about("1", "enforce", "", (SHORT, LONG), 0.01)
    metrics.responded(DECISION, ResponseHead(200), SHORT)
    metrics.responded(DECISION, ResponseHead(400), SHORT)
    assert 2 == value(registry, "responses_read_total", pool="short")
    assert 0 == value(registry, "responses_read_total", pool="long")


@pytest.mark.parametrize("what", ["saving", "sharing"])
def test_the_last_attempt_to_keep_what_was_learned_is_shown(
    metrics: Metrics, registry: CollectorRegistry, what: str
) -> None:
    """It is known whether the last attempt to save or to share failed, however long ago that was."""

    def attempt(*, done: bool) -> None:
        metrics.state_saved(done=done) if what == "saving" else metrics.state_exchanged(done=done, replicas=1)

    before = value(registry, f"state_{what}_failed")
    assert before is not None
    assert isnan(before)
    for done in (True, False, True):
        attempt(done=done)
        assert (not done) == value(registry, f"state_{what}_failed")


def test_files_that_cannot_be_used_are_shown_by_setting(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Each setting whose files are followed starts at 0."""
    metrics.file_followed(FollowedFiles.TLS, unusable=True)
    assert 1 == value(registry, "files_not_in_force", setting="listen.tls")
    assert 0 == value(registry, "files_not_in_force", setting="learning.access_log.key_file")
    metrics.file_followed(FollowedFiles.TLS, unusable=False)
    assert 0 == value(registry, "files_not_in_force", setting="listen.tls")


@pytest.mark.parametrize(("settings", "promised"), [("byteclass: {epsilon: 0.05}", 0.05), ("kind: ema", None)])
def test_the_promised_share_is_shown(
    metrics: Metrics, registry: CollectorRegistry, settings: str, promised: float | None
) -> None:
    """Alerts compare with `epsilon` as it is configured; the paper's estimator promises no share: NaN."""
    epsilon = parse(f"estimator: {{{settings}}}").estimator.bound_epsilon
    assert promised == epsilon
    metrics.about("1", "enforce", "", (SHORT, LONG), epsilon)
    shown = value(registry, "bound_epsilon")
    assert shown is not None
    assert isnan(shown) if promised is None else promised == shown


def test_the_end_of_a_drain_is_shown(metrics: Metrics, registry: CollectorRegistry) -> None:
    """So that an alert can tell of a drain that takes longer than it may, whatever `drain_s` is."""
    before = value(registry, "drain_ends_timestamp_seconds")
    assert before is not None
    assert isnan(before)
    begun_s = time.time()
    metrics.drains(3_600.0)
    ends_s = value(registry, "drain_ends_timestamp_seconds")
    assert ends_s is not None
    assert 0 <= ends_s - 3_600 - begun_s < 60


def test_a_model_that_was_replaced_is_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    """There are counters for models whose learned state was replaced, and for ones whose state came back."""
    metrics.responded(DECISION, OK, SHORT)
    for learned in (LEARNED, replace(LEARNED, started_anew=True), replace(LEARNED, returned=True)):
        metrics.observed(Observation(DECISION, SHORT, Usage(100, 3), learned))
    assert 1 == value(registry, "models_started_anew_total", model="m")
    assert 1 == value(registry, "models_returned_total", model="m")


@pytest.mark.parametrize(
    ("prompt_tokens", "size"),
    [(1, "to_256"), (256, "to_256"), (257, "to_1k"), (16384, "to_16k"), (16385, "above_16k")],
)
def test_bounds_are_judged_by_size(
    metrics: Metrics, registry: CollectorRegistry, prompt_tokens: int, size: str
) -> None:
    """Verdicts on bounds are counted by actual length, so that few long prompts stay visible among short ones."""
    for under_counted in (True, False, False):
        learning = replace(LEARNED, under_counted=under_counted)
        metrics.observed(Observation(DECISION, SHORT, Usage(prompt_tokens, 3), learning))
    assert 1 == value(registry, "bounds_total", size=size, verdict="exceeded")
    assert 2 == value(registry, "bounds_total", size=size, verdict="held")


def test_bounds_are_judged_by_category(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A kind of text or tenant whose bounds are missed is visible; prompts of token ids have no category."""
    for learning in (
        LEARNED,
        LEARNED,
        replace(LEARNED, under_counted=True),
        replace(LEARNED, refused=Refused.EXACT),
    ):
        metrics.observed(Observation(DECISION, SHORT, Usage(100, 3), learning))
    assert 2 == value(registry, "bounds_by_category_total", category="latin", verdict="held")
    assert 1 == value(registry, "bounds_by_category_total", category="latin", verdict="exceeded")


def test_requests_and_judged_bounds_are_counted_by_stratum(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Requests are counted by stratum, and so are judged bounds; a judged bound counts for those it stands for."""
    labels = {"declared": "above_2k", "prompt": "to_1k", "response": "stream"}
    decision = replace(DECISION, stratum=stratum_of(8_192, 90.0, stream=True))
    for _ in range(7):
        metrics.decided(decision)
    metrics.observed(Observation(decision, SHORT, Usage(100, 3), LEARNED, stands_for=4))
    metrics.observed(
        Observation(decision, SHORT, Usage(100, 3), replace(LEARNED, under_counted=True), stands_for=3)
    )
    refused = replace(LEARNED, refused=Refused.TRUNCATED)
    metrics.observed(Observation(decision, SHORT, Usage(100, 3), refused, stands_for=0))
    assert 7 == value(registry, "stratum_requests_total", **labels)
    for verdict, judged, stand_for in (("held", 1, 4), ("exceeded", 1, 3)):
        assert judged == value(registry, "stratum_judged_total", **labels, verdict=verdict)
        assert stand_for == value(registry, "bounds_of_traffic_total", size="to_256", verdict=verdict)
        assert judged == value(registry, "bounds_total", size="to_256", verdict=verdict)


def test_models_beyond_the_cap_are_other(metrics: Metrics, registry: CollectorRegistry) -> None:
    """However many model names clients send, the labels are the first few and `other`."""
    for position in range(100):
        metrics.responded(replace(DECISION, model=f"m{position}"), OK, SHORT)
        metrics.decided(replace(DECISION, model=f"m{position}"))
    labels = {"pool": "short", "reason": "fits", "api": "chat_completions"}
    counts = [value(registry, "requests_total", model=model, **labels) for model in ("m0", "m1", "m2", OTHER)]
    assert [1, 1, None, 98] == counts
    assert ["a", "b", OTHER, "a"] == [*map(BoundedLabels(2).label, "abca")]


def test_only_what_succeeded_moves_the_time_of_the_last_success(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    """The dashboard shows since when nothing was saved or shared."""
    metrics.state_saved(done=False)
    metrics.state_exchanged(done=False, replicas=3)
    names = ("state_saved_timestamp_seconds", "state_exchanged_timestamp_seconds")
    assert all(isnan(value(registry, name) or 0) for name in names)
    assert 3 == value(registry, "state_replicas")
    metrics.state_saved(done=True)
    metrics.state_exchanged(done=True, replicas=3)
    assert not any(isnan(value(registry, name) or 0) for name in names)


def test_counts_that_took_too_long_are_distinguished(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A count that was given up has no tokens; the request was placed by its estimate."""
    metrics.decided(replace(DECISION, counted=Counted((), 0.002)))
    metrics.decided(replace(DECISION, counted=Counted((1, 2), 0.001)))
    assert [1, 1] == [value(registry, "exact_counts_total", outcome=each) for each in ("done", "given_up")]


def test_a_model_without_a_successful_response_takes_no_label(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    """Invented names are `other`; a model gets a label of its own with its first 2xx response."""
    labels = {"pool": "short", "reason": "fits", "api": "chat_completions"}
    for position in range(100):
        metrics.decided(replace(DECISION, model=f"invented{position}"))
        metrics.overflowed(replace(DECISION, model=f"refused{position}"), Overflow(200), LONG)
    metrics.decided(DECISION)
    metrics.responded(DECISION, OK, SHORT)
    metrics.decided(DECISION)
    assert [101, 1] == [value(registry, "requests_total", model=model, **labels) for model in (OTHER, "m")]


def test_the_error_recorded_is_that_before_learning(metrics: Metrics, registry: CollectorRegistry) -> None:
    """The ratios are of the estimate and the bound that the request was routed on."""
    metrics.observed(Observation(DECISION, SHORT, Usage(100, 7), LEARNED))
    assert 0.9 == value(registry, "estimate_ratio_sum", model="m")
    assert 1.2 == value(registry, "bound_ratio_sum", model="m")
    assert None is value(registry, "under_counted_total", model="m")
    assert 4.2 == value(registry, "bytes_per_token", model="m", category="latin")
    assert 107 == value(registry, "actual_total_tokens_sum", model="m")


def test_clipped_under_counted_and_truncated_responses_are_counted(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    """Each has a counter; a truncation is attributed to the pool that served, not to the one decided on."""
    learning = replace(LEARNED, under_counted=True, clipped=True, truncated_by_pool=True)
    metrics.observed(Observation(DECISION, LONG, Usage(130, 7), learning))
    assert 1 == value(registry, "under_counted_total", model="m")
    assert 1 == value(registry, "clipped_observations_total", model="m")
    assert 1 == value(registry, "truncated_by_pool_total", pool="long", model="m")


@pytest.mark.parametrize(
    ("refused", "judged"), [(Refused.EXACT, 1), (Refused.TRUNCATED, None), (Refused.UNSEEN_HISTORY, None)]
)
def test_only_usage_of_what_was_estimated_judges_the_estimate(
    metrics: Metrics, registry: CollectorRegistry, refused: Refused, judged: float | None
) -> None:
    """Usage of a prompt that was truncated, or not fully in the body, has true lengths but does not judge it."""
    metrics.observed(
        Observation(DECISION, SHORT, Usage(130, 7), replace(LEARNED, under_counted=True, refused=refused))
    )
    assert judged == value(registry, "estimate_ratio_count", model="m")
    assert judged == value(registry, "under_counted_total", model="m")
    assert 1 == value(registry, "refused_observations_total", cause=refused)
    assert 130 == value(registry, "actual_prompt_tokens_sum", model="m")


def test_implausible_usage_is_only_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    """One implausible response does not distort the sums of actual lengths."""
    metrics.observed(Observation(DECISION, SHORT, Usage(5_000_000), replace(LEARNED, refused=Refused.IMPLAUSIBLE)))
    assert 1 == value(registry, "refused_observations_total", cause="implausible")
    assert None is value(registry, "actual_prompt_tokens_sum", model="m")
    assert None is value(registry, "estimate_ratio_sum", model="m")


def test_every_event_is_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Kept and released streams, retries, overflows, and faults of gateways, responses and ours have counters."""
    metrics.responded(DECISION, OK, SHORT)
    metrics.kept(DECISION)
    metrics.released(DECISION)
    metrics.no_slot(DECISION)
    metrics.passed()
    metrics.retried(DECISION)
    metrics.overflowed(DECISION, Overflow(200), LONG)
    metrics.misconfigured(Misconfiguration.NO_REQUEST_BODY)
    metrics.not_learned(ResponseFault.TOO_LARGE)
    metrics.failed(ValueError("x"))
    assert [1] * 9 == [
        value(registry, "streams_kept_total"),
        value(registry, "streams_without_slot_total"),
        value(registry, "streams_released_total"),
        value(registry, "passed_requests_total"),
        value(registry, "retried_total", pool="short"),
        value(registry, "context_overflows_total", pool="long", model="m"),
        value(registry, "misconfigured_total", cause="no_request_body"),
        value(registry, "responses_not_learned_total", cause="too_large"),
        value(registry, "exceptions_total", kind="ValueError"),
    ]


def test_lengths_are_those_of_the_traffic_not_of_the_responses_read(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    """A response counts for the requests of its stratum since the previous one: of ten streams and one JSON
    document, of which one each is read, the streams' lengths count ten times.
    """
    stream, document = (
        replace(DECISION, stratum=stratum_of(256, tokens, stream=stream))
        for tokens, stream in ((400, True), (5_000, False))
    )
    for decision in (*[stream] * 10, document):
        metrics.decided(decision)
    metrics.observed(Observation(stream, SHORT, Usage(400, 200), LEARNED))
    metrics.observed(Observation(document, SHORT, Usage(5_000, 60), LEARNED))
    names = ("prompt", "completion", "total")
    assert [11, 11, 11] == [value(registry, f"actual_{name}_tokens_count", model="m") for name in names]
    sums = [value(registry, f"actual_{name}_tokens_sum", model="m") for name in names]
    assert [4_000 + 5_000, 2_000 + 60, 6_000 + 5_060] == sums
    assert 2 == value(registry, "estimate_ratio_count", model="m")


def test_responses_that_end_together_count_for_no_more_requests_than_there_were(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    """Of a stratum that is read completely, a thousand requests in fives count as a thousand, but for a few."""
    decision = replace(DECISION, stratum=stratum_of(256, 400, stream=True))
    for _ in range(200):
        for _ in range(5):
            metrics.decided(decision)
        for _ in range(5):
            metrics.observed(Observation(decision, SHORT, Usage(400, 200), LEARNED))
    counted = value(registry, "actual_prompt_tokens_count", model="m")
    assert counted is not None
    assert 1_000 <= counted <= 1_000 + 100
