"""The placer on its own, as the tools and the planner use it: facts in, a decision out."""

import gzip
import json

import pytest
from msgspec.structs import replace

from extproc.core.errors import BodyFault
from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, RequestFacts, RequestHead
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.fleet import Fleet
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.placing.spill import Spillover, SpillSettings
from extproc.core.router.placer import Placer

SHORT, LONG = Pool("short", 1_000), Pool("long", 100_000)
TWO = Pools((SHORT, LONG))
FACTS = RequestFacts(Api.CHAT, "m", b"How are you?", messages=1, max_output_tokens=50, stream=True)


def placer(mode: Mode = Mode.ENFORCE) -> Placer:
    """Return a placer that has learned nothing, for two pools."""
    return Placer(mode, Pools((SHORT, LONG)), make_estimator(EstimatorSettings()), 768 * 1024)


def body(content: str) -> bytes:
    """Return the body of a chat request."""
    return json.dumps({"model": "m", "messages": [{"content": content}], "max_tokens": 50}).encode()


@pytest.mark.parametrize(("mode", "routed"), [(Mode.ENFORCE, True), (Mode.SHADOW, False), (Mode.OFF, False)])
def test_a_decision_says_everything_about_itself(mode: Mode, *, routed: bool) -> None:
    """A decision holds the pool, the reason, the mode, and what was known about the request."""
    decision = placer(mode).place(replace(FACTS, usage_in_response=False), "tenant", body_bytes=70)
    assert (SHORT, Reason.FITS, mode, routed) == (decision.pool, decision.reason, decision.mode, decision.routed)
    assert (Api.CHAT, "m", True, False) == (decision.api, decision.model, decision.stream, decision.learnable)
    assert (70, None) == (decision.body_bytes, decision.fault)
    assert decision.estimate is not None
    assert decision.budget is not None
    assert ("tenant", 50) == (decision.estimate.category.key, decision.budget.output_tokens)


def test_a_request_for_the_default_pool_is_not_routed() -> None:
    """The header only ever opts in to a smaller pool."""
    decision = placer().place(replace(FACTS, max_output_tokens=5_000), "")
    assert (LONG, Reason.TOO_LONG, False) == (decision.pool, decision.reason, decision.routed)


@pytest.mark.parametrize(("size", "reason"), [(15_999, Reason.TOO_LONG), (16_000, Reason.EARLY)])
def test_facts_are_decided_as_their_body_would_be(size: int, reason: Reason) -> None:
    """From 16 bytes per token of the short pool's budget, no estimate is made."""
    decision = placer().place(replace(FACTS, text=b"x" * size), "", body_bytes=size + 70)
    assert (LONG, reason, False) == (decision.pool, decision.reason, decision.routed)
    assert (reason is Reason.EARLY) == (decision.estimate is None)
    assert size + 70 == decision.body_bytes


def test_a_list_of_prompts_of_any_size_is_estimated() -> None:
    """Many short prompts are not treated as one long prompt."""
    several = replace(FACTS, api=Api.COMPLETIONS, text=b"x" * 16_000, longest_share=0.01)
    assert Reason.FITS == placer().place(several, "").reason


def test_a_text_that_looks_like_media_is_decided_by_its_text() -> None:
    """Base64 inside plain text is excluded by the early check, and counted once the body has been parsed."""
    decision = placer().decide(Api.CHAT, RequestHead(), body("data:image/png;base64," + "A" * 20_000))
    assert (Reason.EARLY, None) == (decision.reason, decision.estimate)


@pytest.mark.parametrize(
    ("encoding", "content", "reason", "fault"),
    [
        ("", b"{", Reason.NOT_UNDERSTOOD, BodyFault.NOT_JSON),
        ("", b"", Reason.NOT_UNDERSTOOD, BodyFault.EMPTY),
        ("gzip", body("Hi"), Reason.NOT_UNDERSTOOD, BodyFault.ENCODED),
        ("identity", body("Hi"), Reason.FITS, None),
        ("gzip", b"x" * 16_000, Reason.EARLY, None),
    ],
)
def test_a_body_that_is_not_understood_goes_to_the_default_pool(
    encoding: str, content: bytes, reason: Reason, fault: BodyFault | None
) -> None:
    """The decision names the fault; a body that is too large for the short pool is not parsed at all."""
    decision = placer().decide(Api.CHAT, RequestHead(content_encoding=encoding), content)
    assert (reason, fault, len(content)) == (decision.reason, decision.fault, decision.body_bytes)
    assert (reason is Reason.FITS) == (decision.pool is SHORT) == decision.routed


def test_of_three_pools_the_largest_is_the_default() -> None:
    """What cannot be read goes to the last pool, not to the second; one that fits the second is routed there."""
    three = Pools((SHORT, Pool("middle", 8_000), LONG))
    of_three = Placer(Mode.ENFORCE, three, make_estimator(EstimatorSettings()), 768 * 1024)
    unsure = of_three.unsure(Api.CHAT, Reason.NOT_UNDERSTOOD, 9)
    fits = of_three.place(replace(FACTS, max_output_tokens=5_000), "")
    too_long = of_three.place(replace(FACTS, max_output_tokens=50_000), "")
    assert [("long", False), ("middle", True), ("long", False)] == [
        (each.pool.name, each.routed) for each in (unsure, fits, too_long)
    ]


def test_a_decision_about_a_request_of_which_nothing_is_known() -> None:
    """A request that was not read completely counts as not streaming and not
    learnable; a size that was not passed is 0.
    """
    bare = Decision(LONG, Reason.EARLY, Mode.ENFORCE, routed=False, api=Api.CHAT)
    assert bare == placer().unsure(Api.CHAT, Reason.EARLY, 0)
    assert (False, False, 0) == (bare.stream, bare.learnable, bare.body_bytes)
    assert 0 == placer().place(FACTS, "").body_bytes


@pytest.mark.parametrize(
    ("size", "reason"),
    [(1_900, Reason.FITS), (1_999, Reason.FITS), (2_000, Reason.EARLY), (500_000, Reason.EARLY)],
)
def test_a_compressed_body_is_decided_by_what_it_holds(size: int, reason: Reason) -> None:
    """The decoded size must not exceed the limit on held bytes, however few compressed bytes arrived."""
    content = json.dumps({"model": "m", "prompt": ["a"] * 100, "max_tokens": 1}).encode().ljust(size)
    head = RequestHead(content_encoding="gzip")
    packed = gzip.compress(content)
    few = Placer(Mode.ENFORCE, Pools((SHORT, LONG)), make_estimator(EstimatorSettings()), 2_000)
    decision = few.decide(Api.COMPLETIONS, head, packed)
    assert (reason, len(packed)) == (decision.reason, decision.body_bytes)


class Moving(Spillover):
    """Moves every request to a given pool and records what was counted."""

    def __init__(self, to: Pool) -> None:
        super().__init__(SpillSettings(), b"salt")
        self._to = to
        self.counted: list[tuple[str, int]] = []

    def count(self, pool: str, tokens: int) -> None:
        """Record the call."""
        self.counted.append((pool, tokens))

    def move(  # the rules for moving requests have their own tests
        self,
        facts: RequestFacts,  # noqa: ARG002
        tenant: str,  # noqa: ARG002
        budget: TokenBudget,  # noqa: ARG002
        home: Pool,  # noqa: ARG002
        fleet: Fleet,  # noqa: ARG002
    ) -> Pool:
        """Return the given pool."""
        return self._to


def spilling(to: Pool, mode: Mode = Mode.ENFORCE) -> tuple[Placer, Moving]:
    """Return a placer with a spillover that always moves requests to the given pool."""
    moving = Moving(to)
    return Placer(mode, TWO, make_estimator(EstimatorSettings()), 768 * 1024, moving), moving


def test_a_request_that_moves_is_counted_where_it_goes() -> None:
    """A request that moves has the reason `spilled`, one that stays keeps its own reason. Its tokens
    count as load of the pool that it goes to.
    """
    for to, reason in ((LONG, Reason.SPILLED), (SHORT, Reason.FITS)):
        placing, moving = spilling(to)
        decision = placing.place(FACTS, "", TWO.fleet)
        assert (to, reason) == (decision.pool, decision.reason)
        assert decision.budget is not None
        assert [(to.name, decision.budget.load_tokens)] == moving.counted


def test_nothing_moves_if_the_load_is_unknown_or_the_request_is_pinned() -> None:
    """A request stays if no load was reported, or if only the default pool has its history."""
    placing, moving = spilling(LONG)
    assert SHORT is placing.place(FACTS, "").pool
    stays, kept = spilling(SHORT)
    decision = stays.place(replace(FACTS, unseen_history=True), "", TWO.fleet)
    assert (LONG, Reason.UNSEEN_HISTORY) == (decision.pool, decision.reason)
    assert ["short"] == [name for name, _ in moving.counted]
    assert ["long"] == [name for name, _ in kept.counted]


def test_an_unread_body_counts_as_a_request_without_tokens() -> None:
    """It goes to the default pool and adds no tokens to its load, since its size is unknown."""
    placing, moving = spilling(SHORT)
    placing.unsure(Api.CHAT, Reason.DEADLINE, 70)
    assert [("long", 0)] == moving.counted


def test_in_shadow_all_load_is_the_default_pools() -> None:
    """No header is set, so every request goes to the default pool whatever the decision says."""
    placing, moving = spilling(SHORT, Mode.SHADOW)
    placing.place(FACTS, "", TWO.fleet)
    assert ["long"] == [name for name, _ in moving.counted]


def test_all_outputs_of_a_request_count_where_it_is_placed() -> None:
    """The pool's servers generate each of them, though each only has to fit a context of its own."""
    spillover = Spillover(SpillSettings(enabled=True), b"salt")
    placing = Placer(
        Mode.ENFORCE, Pools((SHORT, LONG)), make_estimator(EstimatorSettings()), 768 * 1024, spillover
    )
    decision = placing.place(replace(FACTS, sequences=4), "")
    assert decision.budget is not None
    assert decision.budget.total + 3 * 50 == decision.budget.load_tokens
    assert (1, decision.budget.load_tokens) == spillover.placed("short")
