"""The live page shows what happened between two snapshots of the metrics."""

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from extproc.core.facts import ResponseHead
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.policy import Pool, Reason
from extproc.core.usage import Usage
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.figures import TROUBLE, Figures, figures_between, rates_between
from extproc.telemetry.judging import MOST_MODELS, judged_between
from extproc.telemetry.looks import Look, look_at
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import MOST, Recent
from extproc.telemetry.reloads import ReloadMetrics, ReloadOutcome
from extproc.telemetry.workers import Replaced, WorkerMetrics
from tests.unit.decisions import DECISION, LEARNED, LONG, SHORT

POOLS = ("short", "long")
NOTHING = Look(0.0, {})


def figures_of(before: Look, after: Look, pools: tuple[str, ...]) -> Figures:
    """Return the figures for the time between two snapshots, all of which are judged by the same two."""
    return figures_between(before, after, pools, judged_between(before, after))


@pytest.fixture
def metrics() -> Metrics:
    """Return metrics in a registry of this test."""
    return Metrics(CollectorRegistry(), max_models=20, max_categories=2)


def test_rates_and_shares_are_of_the_time_between_snapshots(metrics: Metrics) -> None:
    """What was counted before the first snapshot is left out."""
    for _ in range(5):
        metrics.decided(DECISION)
    first = look_at(metrics.collect(), 10.0, {})
    for _ in range(3):
        metrics.decided(DECISION)
    metrics.decided(replace(DECISION, pool=LONG, reason=Reason.TOO_LONG, routed=False))
    metrics.kept(DECISION)
    for _ in range(3):
        metrics.released(DECISION)
    found = figures_of(first, look_at(metrics.collect(), 12.0, {}), POOLS)

    assert ((0.75, 0.25), 0.25) == (found.shares, found.kept_share)
    assert {"fits": 3.0, "too_long": 1.0} == dict(found.reasons)
    (model,) = found.models
    assert (0.75, 2.0) == (model.routed, model.per_s)
    assert 4 == sum(count for _, count in found.budgets)


def test_rates_are_per_second_and_pool(metrics: Metrics) -> None:
    """A pool without a decision between the two snapshots has a rate of 0."""
    first = look_at(metrics.collect(), 10.0, {})
    for _ in range(3):
        metrics.decided(DECISION)
    assert (1.5, 0.0) == rates_between(first, look_at(metrics.collect(), 12.0, {}), POOLS)


def test_a_models_share_of_smaller_pools_is_of_its_own_pools(metrics: Metrics) -> None:
    """A model whose largest pool is not the last one: what goes there does not count as sent to a smaller pool,
    nor does what spills over to it.
    """
    own = Pool("own-long", 500)
    for pool, reason, times in (
        (SHORT, Reason.FITS, 1),
        (SHORT, Reason.SPILLED, 1),
        (own, Reason.TOO_LONG, 4),
        (own, Reason.SPILLED, 1),
        (LONG, Reason.SHED, 1),
    ):
        for _ in range(times):
            metrics.decided(replace(DECISION, pool=pool, reason=reason))
    (model,) = figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), ("short", "own-long", "long")).models
    assert 0.25 == model.routed


def test_errors_above_and_below_the_truth_are_combined(metrics: Metrics) -> None:
    """Eight of ten estimates are within 2 %; two are about half of the truth, whose bounds were exceeded."""
    for ratio in (1.01,) * 5 + (0.99,) * 3 + (0.55,) * 2:
        metrics.responded(DECISION, ResponseHead(200), SHORT)
        metrics.decided(DECISION)
        learning = replace(LEARNED, ratio=ratio, under_counted=ratio < 0.9)
        metrics.observed(Observation(DECISION, SHORT, Usage(100, 5, 0), learning))
    found = figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), POOLS)

    assert 10 == found.observed
    assert 2 == found.under_counted
    (model,) = found.models
    assert model.error_p50 == pytest.approx(0.01)
    assert model.error_p90 == pytest.approx(0.4)
    assert model.under_counted == pytest.approx(0.2)
    assert model.bound_ratio is not None
    assert 1.15 < model.bound_ratio <= 1.2


@pytest.mark.parametrize(
    ("ratios", "median"),
    [((1.01, 1.18, 1.18, 1.18), 1.15 + 0.05 / 3), ((1.01, 1.18), 1.02), ((0.1, 0.1), 0.125), ((1.01, 9, 9), 4.0)],
)
def test_the_median_width_is_interpolated_within_its_bucket(
    metrics: Metrics, ratios: tuple[float, ...], median: float
) -> None:
    """In the open last bucket it is the lower bound."""
    metrics.decided(DECISION)
    for ratio in ratios:
        metrics.bound_ratio.observe(ratio, ("other",))
    (model,) = figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), POOLS).models
    assert model.bound_ratio == pytest.approx(median)


def test_a_model_whose_responses_are_older_than_the_window_has_no_errors(metrics: Metrics) -> None:
    """Its histograms have buckets that did not grow: unknown, not zero."""
    metrics.responded(DECISION, ResponseHead(200), SHORT)
    metrics.observed(Observation(DECISION, SHORT, Usage(100, 5, 0), LEARNED))
    before = look_at(metrics.collect(), 0.0, {})
    metrics.decided(DECISION)
    (model,) = figures_of(before, look_at(metrics.collect(), 1.0, {}), POOLS).models
    unknown = (model.error_p50, model.error_p90, model.under_counted, model.bound_ratio)
    assert (None, None, None, None) == unknown


def test_the_models_with_most_requests_are_shown(metrics: Metrics) -> None:
    """The busiest first, and no more than a page has room for."""
    times = {"idle": 1} | {f"m{number}": 2 + number % 2 for number in range(MOST_MODELS)}
    for model, count in times.items():
        decision = replace(DECISION, model=model)
        metrics.responded(decision, ResponseHead(200), SHORT)
        for _ in range(count):
            metrics.decided(decision)
    found = [model.name for model in figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), POOLS).models]
    assert [f"m{number}" for number in (*range(1, MOST_MODELS, 2), *range(0, MOST_MODELS, 2))] == found


def test_a_router_without_traffic_shows_nothing(metrics: Metrics) -> None:
    """Unknown figures are None, not zero; pools are listed anyway."""
    found = figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), POOLS)
    assert (0.0, 0.0) == found.shares
    assert [] == [*found.models, *found.errors, *found.trouble]
    assert found.kept_share is None


def test_a_counter_that_was_reset_is_counted_from_zero(metrics: Metrics) -> None:
    """When a replaced worker's counters restart, rates do not become negative."""
    before = look_at(metrics.collect(), 0.0, {})
    metrics.decided(DECISION)
    high = look_at(metrics.collect(), 1.0, {})
    fallen = {name: {labels: value + 7 for labels, value in rows.items()} for name, rows in high.samples.items()}
    for earlier in (before, Look(0.0, fallen)):
        assert {"fits": 1.0} == dict(figures_of(earlier, high, POOLS).reasons)


def test_what_should_not_happen_is_named_with_its_cause(metrics: Metrics) -> None:
    """Misconfigured gateways and our own exceptions are listed; a client that disconnected is not."""
    metrics.misconfigured(Misconfiguration.NO_REQUEST_HEADERS)
    metrics.failed(RuntimeError())
    metrics.undecided["gateway_left",] += 1
    found = figures_of(NOTHING, look_at(metrics.collect(), 1.0, {}), POOLS)
    assert {("no_request_headers", 1.0), ("RuntimeError", 1.0)} == {each[1:] for each in found.trouble}


def test_every_name_in_trouble_is_a_metric(metrics: Metrics) -> None:
    """Trouble counted under a misspelt name would never be shown."""
    registry = CollectorRegistry()
    reloads, workers = ReloadMetrics(registry), WorkerMetrics(registry, 2)
    everything = [*metrics.collect(), *reloads.collect(), *workers.collect()]
    assert set() == set(TROUBLE) - {f"{metric.name}_total" for metric in everything if metric.type == "counter"}


def test_failures_outside_of_requests_are_listed_and_successes_are_not(metrics: Metrics) -> None:
    """Refused files, an unreachable store and ended workers are listed, each once for all processes."""
    registry = CollectorRegistry()
    reloads, workers = ReloadMetrics(registry), WorkerMetrics(registry, 2)
    for done in (True, False):
        metrics.state_saved(done=done)
        metrics.state_exchanged(done=done, replicas=1)
        reloads.reloaded(ReloadOutcome.APPLIED if done else ReloadOutcome.REFUSED, in_force=done)
    workers.replaced(0, Replaced.ENDED)
    workers.replaced(1, Replaced.ENDED)
    seen = look_at([*metrics.collect(), *reloads.collect(), *workers.collect()], 1.0, {})
    found = figures_of(NOTHING, seen, POOLS)
    assert [
        ("configuration reloads", "refused", 1.0),
        ("saves of learned state", "failed", 1.0),
        ("exchanges with the store", "failed", 1.0),
        ("workers replaced", "ended", 2.0),
    ] == list(found.trouble)


def test_the_latest_decisions_are_kept_and_no_more() -> None:
    """Each has a number, so that a viewer gets each of them once."""
    recent = Recent()
    for _ in range(MOST + 5):
        recent.decided(DECISION)
    shown = recent.since(MOST)
    assert [MOST + 1, MOST + 2, MOST + 3, MOST + 4, MOST + 5] == [each.number for each in shown]
    assert MOST == len(recent.since(0))
    assert (400, 90.0, 120.0, 170.0) == (shown[0].body_bytes, shown[0].estimate, shown[0].bound, shown[0].budget)


def test_a_listener_can_be_added_and_removed() -> None:
    """Without listeners the default method is called; adding a listener twice does not notify it twice."""
    fan_out = FanOut([])
    fan_out.decided(DECISION)
    recent = Recent()
    fan_out.add(recent)
    fan_out.add(recent)
    fan_out.decided(DECISION)
    fan_out.remove(recent)
    fan_out.remove(recent)
    fan_out.decided(DECISION)
    assert 1 == len(recent.since(0))
    assert fan_out.decided.__func__ is Listener.decided  # type: ignore[attr-defined]
