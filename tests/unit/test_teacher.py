"""Learning from entries of the gateway's access log."""

from typing import Any

import pytest

from extproc.access_log.entry import LogEntry, LoggedUsage
from extproc.access_log.teacher import Outcome, Teacher, pools_by_cluster
from extproc.core.errors import ResponseFault
from extproc.core.estimator.protocol import Refused
from extproc.core.placing.policy import Pool
from extproc.core.usage import Usage
from tests.unit.conftest import TWO_POOLS, Recorder
from tests.unit.test_access_log_evidence import NOW_S, decided, make_seal, sealed
from tests.unit.test_learner import make_router

USAGE = LoggedUsage(12, 3, 0)
SHORT, LONG = TWO_POOLS


def taught(*, asked: dict[str, Any] | None = None, **fields: Any) -> tuple[Outcome, Recorder]:
    """Return the outcome of a request's entry, and the recording listener."""
    router = make_router()
    entry = LogEntry(**{"evidence": sealed(decided(**asked or {})), "status": 200, "usage": USAGE, **fields})
    (outcome,) = Teacher(router.learner, make_seal(), pools_by_cluster(TWO_POOLS)).take([entry], NOW_S)
    assert isinstance(router.listener, Recorder)
    return outcome, router.listener


def test_usage_is_learned_from() -> None:
    """An entry with evidence and usage is learned from, and observed for the pool of its cluster."""
    outcome, recorder = taught(cluster="pool_long", request_id="r")
    (observation,) = recorder.calls_of("observed")
    assert Outcome.TAUGHT is outcome
    assert (LONG, 12, 3) == (
        observation.served_by,
        observation.usage.prompt_tokens,
        observation.usage.completion_tokens,
    )
    assert "r" == observation.decision.head.request_id
    assert observation.learning.refused is None


def test_learning_from_a_log_equals_learning_from_responses() -> None:
    """The prices after an entry are those after a response, except for the
    precision lost in the sealed evidence.
    """
    by_response, by_log = make_router(), make_router()
    teacher = Teacher(by_log.learner, make_seal(), {})
    decision = decided("What is the capital of France, and why is it so?")
    for _ in range(20):
        assert decision.estimate is not None
        by_response.placer.estimator.observe(decision.estimate, Usage(30, 3))
        teacher.take([LogEntry(sealed(decision), 200, usage=LoggedUsage(30, 3, 0))], NOW_S)
    (of_response,), (of_log,) = (each.placer.estimator.state().models for each in (by_response, by_log))
    assert of_response.observations == of_log.observations
    assert of_response.residual == pytest.approx(of_log.residual, abs=0.01)
    assert of_response.q == pytest.approx(of_log.q, rel=0.01)


@pytest.mark.parametrize("step", ["_open", "_learn", "_report"])
def test_an_exception_costs_one_entry(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step fails for an entry, the others are learned from; the exception is reported."""
    router = make_router()
    recorder = router.listener
    assert isinstance(recorder, Recorder)
    teacher = Teacher(router.learner, make_seal(), {})
    done, calls = getattr(teacher, step), []

    def fails_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise ZeroDivisionError
        return done(*arguments)

    monkeypatch.setattr(teacher, step, fails_once)
    evidence = sealed(decided())
    entries = [LogEntry(evidence, 200, usage=LoggedUsage(tokens, 3, 0)) for tokens in (12, 13, 14)]
    assert [Outcome.TAUGHT] * 2 == teacher.take(entries, NOW_S)
    assert [12, 14] == [each.usage.prompt_tokens for each in recorder.calls_of("observed")]
    assert [ZeroDivisionError] == [type(each) for each in recorder.calls_of("failed")]


def test_a_retried_request_is_reported() -> None:
    """A second attempt that another pool served is counted, and observed for that pool."""
    _, recorder = taught(cluster="pool_long", attempts=2)
    assert ["short"] == [decision.pool.name for decision in recorder.calls_of("retried")]
    assert [LONG] == [each.served_by for each in recorder.calls_of("observed")]


@pytest.mark.parametrize(
    ("fields", "pools"),
    [
        ({"cluster": "pool_long"}, [LONG]),
        ({"cluster": "elsewhere", "status": 400}, [SHORT]),
        ({"status": 0, "usage": None, "cut": True}, []),
    ],
)
def test_a_logged_response_counts_as_read(fields: dict[str, Any], pools: list[Pool]) -> None:
    """Each entry of ours with a response counts for the pool that sent it, whatever its status."""
    _, recorder = taught(**fields)
    assert pools == [served_by for _, _, served_by in recorder.arguments_of("responded")]


@pytest.mark.parametrize(("attempts", "pool"), [(1, SHORT), (2, LONG)])
def test_for_an_unknown_cluster_the_attempts_decide(attempts: int, pool: Pool) -> None:
    """If the cluster is not a pool, the decision and the attempts determine which pool served."""
    _, recorder = taught(cluster="outbound|80||vllm.models.svc", attempts=attempts)
    assert [pool] == [each.served_by for each in recorder.calls_of("observed")]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"status": 400}, ResponseFault.STATUS),
        ({"status": 0, "usage": None, "cut": True}, ResponseFault.STATUS),
        ({"usage": None}, ResponseFault.NO_USAGE),
        ({"usage": None, "cut": True}, ResponseFault.CUT_SHORT),
        ({"usage": None, "content_encoding": "gzip"}, ResponseFault.ENCODING),
        ({"usage": LoggedUsage(12, 3, 0, whole=False)}, ResponseFault.WRONG_USAGE),
        ({"usage": LoggedUsage(0, 3, 0)}, ResponseFault.WRONG_USAGE),
        ({"usage": LoggedUsage(None, 3, 0)}, ResponseFault.NO_USAGE),
    ],
)
def test_entries_that_are_not_learned_from_are_counted(fields: dict[str, Any], fault: ResponseFault) -> None:
    """An entry of ours without plausible usage is not learned from, and is counted by its cause."""
    outcome, recorder = taught(**fields)
    assert (Outcome.NOT_LEARNED, [fault], []) == (
        outcome,
        recorder.calls_of("not_learned"),
        recorder.calls_of("observed"),
    )


def test_a_stream_that_was_not_asked_for_usage_is_not_a_fault() -> None:
    """A stream whose client did not request usage is not counted as one that lost it."""
    outcome, recorder = taught(asked={"stream": True}, usage=None)
    assert (Outcome.NOT_LEARNED, []) == (outcome, recorder.calls_of("not_learned"))


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [("", Outcome.FOREIGN), ("forged", Outcome.FORGED), ("A" * 80, Outcome.OTHER_VERSION)],
)
def test_foreign_entries_are_only_counted(evidence: str, outcome: Outcome) -> None:
    """Entries without valid evidence are counted, and the listener is not called for them."""
    became, recorder = taught(evidence=evidence)
    assert (outcome, []) == (became, recorder.calls)


def test_old_evidence_is_not_learned_from() -> None:
    """An entry whose decision is too old is counted as expired."""
    outcome, recorder = taught(evidence=sealed(decided(), NOW_S - 4_000))
    assert (Outcome.EXPIRED, []) == (outcome, recorder.calls)


@pytest.mark.parametrize(
    ("limit", "completion_tokens", "cut"),
    [
        *[(50, 49, False), (50, 50, True), (None, 50, False)],
        *[(None, SHORT.context_tokens - each, cut) for each, cut in ((14, False), (13, True), (12, True))],
    ],
)
def test_whether_an_output_was_cut_is_derived_from_its_length(
    limit: int | None, completion_tokens: int, *, cut: bool
) -> None:
    """The log does not say why an output ended; at the client's limit, or the pool's context, it counts as cut.

    vLLM ends an output at the context, or one token before it.
    """
    asked = {} if limit is None else {"max_tokens": limit}
    _, recorder = taught(asked=asked, usage=LoggedUsage(12, completion_tokens, 0), cluster="pool_short")
    assert [cut] == [each.usage.cut_by_length for each in recorder.calls_of("observed")]


def test_an_output_of_a_response_that_was_cut_short_is_a_lower_bound() -> None:
    """Messages begins with the usage of one token; if the client disconnects then, the output was longer."""
    _, recorder = taught(usage=LoggedUsage(12, 1, 0), cut=True)
    assert [True] == [each.usage.cut_by_length for each in recorder.calls_of("observed")]


def test_several_outputs_were_not_cut_by_the_limit_of_one() -> None:
    """The tokens of three outputs are added up, so their sum says nothing about the limit of each."""
    _, recorder = taught(asked={"n": 3, "max_tokens": 50}, usage=LoggedUsage(12, 60, 0))
    assert [False] == [each.usage.cut_by_length for each in recorder.calls_of("observed")]


def test_implausible_usage_is_not_learned_from() -> None:
    """Usage that cannot belong to the request is reported, and does not count as a lesson."""
    outcome, recorder = taught(asked={"content": "word " * 200})
    assert (Outcome.NOT_LEARNED, [Refused.IMPLAUSIBLE]) == (
        outcome,
        [each.learning.refused for each in recorder.calls_of("observed")],
    )


def test_clusters_are_pools_by_name_or_configuration() -> None:
    """A cluster belongs to the pool of that name, with or without `pool_`, or to the pool that lists it."""
    short, long = Pool("short", 1, clusters=("outbound|80||a", "long")), Pool("long", 2)
    known = pools_by_cluster((short, long))
    assert {
        "short": short,
        "pool_short": short,
        "outbound|80||a": short,
        "long": short,
        "pool_long": long,
    } == known
