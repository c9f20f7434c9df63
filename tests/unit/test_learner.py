"""The learner: which responses are kept, which pool they are attributed to, and what is learned from them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.estimator import make_estimator
from extproc.core.exchange.kept import Kept
from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.listener import Observation
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.fleet import Fleet, Serving
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router
from extproc.core.router.unasked import UsageInStreams
from extproc.core.usage import Overflow, Usage
from tests.golden.vllm import recording
from tests.unit.conftest import ESTIMATOR, TWO_POOLS, Recorder

POOLS = (Pool("short", 1_000, 1_024), Pool("long", 100_000))
HEAD = RequestHead("POST", "/v1/chat/completions")
OK = ResponseHead(200, "application/json")
RECORDED = json.loads(recording("0.32.0").read_text())


def make_router(
    pools: Sequence[Pool] = TWO_POOLS,
    usage_in_streams: UsageInStreams = UsageInStreams.ASKED,
    learning: LearningSettings | None = None,
) -> Router:
    """Return a router whose listener is a Recorder."""
    recorder, estimator = Recorder(), make_estimator(ESTIMATOR)
    budget = LearningBudget(learning or LearningSettings())
    placer = Placer(Mode.ENFORCE, Pools(pools), estimator, 768 << 10)
    learner = Learner(Pools(pools), estimator, budget, recorder, 4 << 20, usage_in_streams=usage_in_streams)
    return Router(Mode.ENFORCE, placer, learner, recorder)


def observed(usage: Usage, **fields: Any) -> Observation:
    """Return the observation of one response to a chat completion with these fields."""
    router = make_router(pools=POOLS)
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me all about it."}]} | fields
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    assert "short" == decision.pool.name
    router.learner.learn(decision, OK, usage)
    assert isinstance(router.listener, Recorder)
    (observation,) = router.listener.calls_of("observed")
    assert isinstance(observation, Observation)
    return observation


@pytest.mark.parametrize(
    ("completion_tokens", "truncated"), [(986, False), (987, False), (1_010, True), (1_011, True), (1_012, False)]
)
def test_cuts_are_counted_by_the_pools_context(completion_tokens: int, *, truncated: bool) -> None:
    """A response that ended at the pool's context, or one token before, was cut there; thresholds do not cut."""
    usage = Usage(13, completion_tokens, cut_by_length=True)
    assert truncated == observed(usage).learning.truncated_by_pool


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("completions", {"prompt": [5] * 900, "max_tokens": 1}, Overflow()),
        ("completions", {"prompt": [5] * 900, "max_tokens": 0}, None),
        ("completions", {"prompt": [5] * 100, "max_tokens": 1}, None),
        ("chat/completions", {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 0}, None),
    ],
)
def test_a_limit_of_0_is_the_prompts_length_if_the_client_did_not_ask_for_it(
    path: str, body: dict[str, Any], said: Overflow | None
) -> None:
    """A prompt that leaves no token of the context is refused with a limit of 0, like a client's own 0."""
    router, head = make_router(pools=POOLS), RequestHead("POST", f"/v1/{path}")
    api = router.api_of(head)
    assert api is not None
    decision = router.decide(api, head, json.dumps({"model": "m"} | body).encode())
    assert "short" == decision.pool.name
    reader = router.learner.reader(decision, ResponseHead(400, "application/json"))
    assert reader is not None
    reader.feed(RECORDED["completion, ids that fill the context"]["body"].encode())
    if said is None:
        with pytest.raises(ResponseNotUnderstood):
            reader.finish()
    else:
        assert said == reader.finish()


def test_a_declared_output_that_the_pool_shortened_was_cut_by_it() -> None:
    """Since 0.32 vLLM silently generates 124 of 200 output tokens if the prompt leaves no room for more."""
    assert observed(Usage(900, 124, cut_by_length=True), max_tokens=200).learning.truncated_by_pool
    assert not observed(Usage(800, 200, cut_by_length=True), max_tokens=200).learning.truncated_by_pool


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "is_long"), [(511, 10, False), (512, 10, True), (512, 0, False)]
)
def test_an_output_cut_to_nothing_shows_a_long_prompt(
    prompt_tokens: int, max_tokens: int, *, is_long: bool
) -> None:
    """A refusal of an output of 0 tokens tells of a prompt as long as the context only if it may be as long: from
    half of the context on, unless the client asked for no output itself.
    """
    router = make_router(pools=POOLS)
    body = {"model": "m", "prompt": [1] * prompt_tokens, "max_tokens": max_tokens}
    decision = router.decide(Api.COMPLETIONS, RequestHead("POST", "/v1/completions"), json.dumps(body).encode())
    assert POOLS[0] == decision.pool
    reader = router.learner.reader(decision, ResponseHead(400, "application/json"))
    assert reader is not None
    message = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
    reader.feed(json.dumps({"error": {"message": message, "param": "max_tokens", "code": 400}}).encode())
    if is_long:
        assert Overflow(None) == reader.finish()
    else:
        with pytest.raises(ResponseNotUnderstood):
            reader.finish()


def kept(router: Router, model: str, **fields: Any) -> Decision | None:
    """Return the decision for a stream that did not ask for usage, or None if it is not kept."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "max_tokens": 9,
    } | fields
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    return decision if router.learner.keeps(decision, 0.0) else None


def test_streams_that_get_no_slot_are_reported() -> None:
    """When a model's streams hold half of the slots, more of them are reported; another stratum's are kept."""
    router = make_router(usage_in_streams=UsageInStreams.ALWAYS, learning=LearningSettings(max_streams=4))
    assert [True, True, False, False] == [kept(router, "m") is not None for _ in range(4)]
    assert isinstance(router.listener, Recorder)
    assert 2 == len(router.listener.calls_of("no_slot"))
    assert kept(router, "m", max_tokens=5_000) is not None


def auto_router(policy: UsageInStreams = UsageInStreams.AUTO) -> Router:
    """Return a router with this policy."""
    return make_router(usage_in_streams=policy)


def test_streams_that_report_unasked_are_learned_from() -> None:
    """After one stream of a model reported usage without being asked, all its streams are kept."""
    router = auto_router()
    decision = kept(router, "m")
    assert decision is not None
    router.learner.learn(decision, ResponseHead(200, "text/event-stream"), Usage(9, 9))
    for _ in range(5):
        again = kept(router, "m")
        assert again is not None
        router.learner.not_learned(again, ResponseFault.NO_USAGE)


def test_streams_that_never_report_are_tried_a_few_times() -> None:
    """Three complete streams without usage are enough; truncated and refused ones say nothing; others are still
    tried.
    """
    router = auto_router()
    refused = kept(router, "m")
    assert refused is not None
    router.learner.learn(refused, ResponseHead(400), Overflow(20_000))
    for fault in (ResponseFault.CUT_SHORT, *[ResponseFault.NO_USAGE] * 3):
        decision = kept(router, "m")
        assert decision is not None
        router.learner.not_learned(decision, fault)
    assert kept(router, "m") is None
    assert kept(router, "m", stream_options={"include_usage": True}) is not None
    assert kept(router, "other") is not None


@pytest.mark.parametrize(("policy", "is_kept"), [(UsageInStreams.ASKED, False), (UsageInStreams.ALWAYS, True)])
def test_it_can_be_configured_what_streams_report(policy: UsageInStreams, *, is_kept: bool) -> None:
    """The operator may know that no stream, or every one, reports usage without being asked."""
    router = auto_router(policy)
    for _ in range(5):
        decision = kept(router, "m")
        assert is_kept == (decision is not None)
        if decision is not None:
            router.learner.not_learned(decision, ResponseFault.NO_USAGE)


@pytest.mark.parametrize("policy", [UsageInStreams.AUTO, UsageInStreams.ALWAYS])
def test_streams_that_are_not_read_are_not_kept(policy: UsageInStreams) -> None:
    """Those of the native generate APIs: what their events report is not read, so that none is tried either."""
    router = auto_router(policy)
    for stream in (True, False):
        body = json.dumps({"text": "Hi", "stream": stream, "sampling_params": {"max_new_tokens": 9}}).encode()
        decision = router.decide(Api.GENERATE, RequestHead("POST", "/generate"), body)
        assert router.learner.keeps(decision, 0.0) is not stream


@pytest.mark.parametrize("per_s", [20, 100])
def test_clients_that_declare_much_are_learned_from_under_load(per_s: int) -> None:
    """Streams that declare 8,192 tokens and use 200 come to reserve 200.

    The overdraft of the young category is paid back in ten seconds; then some are learned from in every second.
    """
    router, kept_at = make_router(), []
    fields = {"max_tokens": 8_192, "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello there."}]} | fields).encode()
    for number in range(20 * per_s):
        decision = router.decide(Api.CHAT, HEAD, body)
        if router.learner.keeps(decision, number / per_s):
            kept_at.append(number // per_s)
            router.learner.learn(decision, OK, Usage(13, 200))
            router.learner.settle(decision, 203)
    assert set(range(11, 20)) <= set(kept_at)


STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def test_models_not_yet_learned_from_share_one_reserve() -> None:
    """Unknown models share the reserve of one key; models that were learned from have a reserve each."""
    router = make_router(learning=LearningSettings(messages_per_s=0, burst_messages=300))
    assert [True, True, False] == [kept(router, name, max_tokens=97, **STREAM) is not None for name in "abc"]
    router = make_router(learning=LearningSettings(messages_per_s=0, burst_messages=300))
    for name in "abc":
        decision = kept(router, name, **STREAM)
        assert decision is not None
        router.learner.learn(decision, OK, Usage(9, 97))
        router.learner.settle(decision, 0)
    assert [True, True, True] == [kept(router, name, max_tokens=97, **STREAM) is not None for name in "abc"]


def trained_router(burst: float) -> Router:
    """Return a router that has learned from 100 streams of 20 tokens each, and whose budget is full again."""
    router = make_router(learning=LearningSettings(messages_per_s=0, burst_messages=burst))
    for _ in range(100):
        decision = kept(router, "m", **STREAM)
        assert decision is not None
        router.learner.learn(decision, OK, Usage(9, 20))
        router.learner.settle(decision, 0)
    return router


@pytest.mark.parametrize(
    ("declared", "sequences", "usual", "most"),
    [(100, 1, 1, 100), (100, 2, 2, 200), (10, 2, 2, 20), (20, 3, 3, 60), (100, 3, 3, 300)],
)
def test_a_stream_reserves_the_mean_cost_of_its_category(
    declared: int, sequences: int, usual: int, most: int
) -> None:
    """It reserves the mean output of its category per sequence, and never more than the client declared."""
    fields = {"max_tokens": declared, "n": sequences} | STREAM
    decision = kept(trained_router(5_000), "m", **fields)
    assert decision is not None
    assert decision.estimate is not None
    mean = decision.estimate.mean_output_tokens
    assert mean is not None
    assert 20 <= mean <= 24
    messages = 3 + min(usual * mean, most)
    for burst, second in ((messages + 1e-6, True), (messages - 1e-6, False)):
        router = trained_router(burst)
        assert kept(router, "m", **fields) is not None
        assert second == (kept(router, "m", **fields) is not None)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_response_to_a_kept_request_is_reported(status: int) -> None:
    """It counts whether or not anything is learned from it."""
    router = make_router()
    decision = kept(router, "m", **STREAM)
    assert decision is not None
    head = ResponseHead(status, "application/json")
    router.learner.reader(decision, head)
    assert isinstance(router.listener, Recorder)
    assert [(decision, head, decision.pool)] == router.listener.arguments_of("responded")


def test_streams_under_way_do_not_change_that_a_model_reports_nothing() -> None:
    """Streams without usage that were kept before the limit and end after it do not change the verdict."""
    router = auto_router()
    decisions = [kept(router, "m") for _ in range(6)]
    for decision in decisions:
        assert decision is not None
        router.learner.not_learned(decision, ResponseFault.NO_USAGE)
    assert kept(router, "m") is None


def test_a_router_closes_streams_by_default() -> None:
    """Closing the stream is the shortest reply."""
    assert make_router().closes_streams


@pytest.mark.parametrize(
    ("model", "max_tokens", "attempts", "expected"),
    [
        ("b", 50, 1, "b-short"),
        ("b", 50, 2, "b-long"),
        ("b", 600, 1, "b-long"),
        ("b", 600, 2, "a-long"),  # where retries of an unknown model end up
        ("a", 50, 2, "a-long"),
        ("a", 5_000, 2, "a-long"),
    ],
)
def test_a_second_attempt_is_by_the_default_pool_of_the_model(
    model: str, max_tokens: int, attempts: int, expected: str
) -> None:
    """A retried request of a model with its own pools is served by that model's default pool."""
    pools = (
        *(Pool("a-short", 400, models=("a",)), Pool("b-short", 400, models=("b",))),
        *(Pool("b-long", 1_000, models=("b",)), Pool("a-long", 10_000, models=("a",))),
    )
    router = make_router(pools=pools)
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    router.learner.learn(decision, ResponseHead(200, "application/json", attempts=attempts), Usage(3, 9))
    assert isinstance(router.listener, Recorder)
    (observation,) = router.listener.calls_of("observed")
    assert expected == observation.served_by.name


@pytest.mark.parametrize(
    ("completion_tokens", "truncated"), [(987, False), (1_485, False), (1_486, True), (1_487, True)]
)
def test_cuts_are_counted_by_the_context_that_servers_report(completion_tokens: int, *, truncated: bool) -> None:
    """Responses are cut at the length that the servers report for the model, even if none is configured."""
    router = make_router(pools=TWO_POOLS)
    router.know(Fleet(Serving(TWO_POOLS, {"short": {"m": 1_500}})))
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me all about it."}]}
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    assert "short" == decision.pool.name
    router.learner.learn(decision, OK, Usage(13, completion_tokens, cut_by_length=True))
    assert isinstance(router.listener, Recorder)
    (observation,) = router.listener.calls_of("observed")
    assert truncated == observation.learning.truncated_by_pool


def test_a_pool_that_does_not_serve_the_model_has_its_configured_context() -> None:
    """A response may still come from such a pool, by a gateway's second attempt."""
    short, long = Pool("short", 1_000, 1_024), Pool("long", 100_000)
    assert 1_024 == Serving((short, long), {"short": {"other": 500}}).ladder("m").context_tokens(short)


@pytest.mark.parametrize("status", [200, 500])
def test_only_a_response_that_can_be_learned_from_is_opened(status: int) -> None:
    """The body of a failed response is not read."""
    router = make_router()
    decision = kept(router, "m", **STREAM)
    assert decision is not None
    opened = Kept(router.learner, decision).opens(ResponseHead(status, "application/json"))
    assert opened is (status == 200)


@pytest.mark.parametrize("same", [True, False])
def test_a_learner_continues_from_another_with_the_same_settings(*, same: bool) -> None:
    """What was found out about models survives a reload, unless the settings it depends on have changed."""
    current, other = UsageInStreams.ASKED, UsageInStreams.AUTO
    before = make_router(usage_in_streams=current).learner
    after = make_router(usage_in_streams=current if same else other).learner
    after.max_response_bytes += 0 if same else 1
    after.continue_from(before)
    assert (after.unasked is before.unasked) is same
    assert (after.too_many_prompts is before.too_many_prompts) is same


def test_requests_without_an_estimate_are_not_kept() -> None:
    """There is no estimate to compare its usage with, even while streams that did not ask for usage are tried."""
    router = make_router(usage_in_streams=UsageInStreams.AUTO)
    assert not router.learner.keeps(router.unsure(Api.CHAT, Reason.DEADLINE, 70, HEAD), 0.0)


@pytest.mark.parametrize(("text", "retried"), [("Hello", 1), ("word " * 40_000, 0)])
def test_only_a_request_for_a_smaller_pool_counts_as_retried(text: str, retried: int) -> None:
    """A second attempt at the default pool repairs nothing."""
    router = make_router()
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    assert bool(retried) is decision.routed
    router.learner.responded(decision, ResponseHead(200, "application/json", attempts=2))
    assert isinstance(router.listener, Recorder)
    assert (1, retried) == (len(router.listener.calls_of("responded")), len(router.listener.calls_of("retried")))


@pytest.mark.parametrize(("fields", "prioritised"), [({"session_params": {"id": "x"}}, False), ({}, True)])
def test_only_usage_of_what_was_estimated_gives_priority_in_learning(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], *, prioritised: bool
) -> None:
    """A missed bound puts its stratum first; usage of a prompt that is not all in the body misses no bound."""
    missed: list[object] = []
    monkeypatch.setattr(LearningBudget, "missed", lambda _, stratum: missed.append(stratum))
    router = make_router(pools=POOLS)
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me all about it."}]} | fields
    decision = router.decide(Api.CHAT, HEAD, json.dumps(body).encode())
    learning = router.learner.observe(decision, OK, Usage(1_000, 5)).learning
    assert learning.under_counted
    assert prioritised is learning.is_judged is bool(missed)
