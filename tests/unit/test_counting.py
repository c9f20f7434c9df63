"""Exact counts: which requests are counted, how counts enter the estimate, and what is learned about the rest."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from extproc.access_log.payload import Payloads
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.counting import Count, Counted, Counting
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.protocol import CategoryKey, Estimate, Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, MediaCount, RequestFacts, ResponseHead
from extproc.core.listener import Listener
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.usage import Usage
from extproc.telemetry.labels import CountOutcome
from extproc.telemetry.metrics import Metrics

SHORT, MIDDLE, LONG = Pool("short", 1_000), Pool("middle", 4_000, 5_000), Pool("long", 100_000)
OK = ResponseHead(200, "application/json")


class Words:
    """A Counter for models that begin with m: each word is a token; a text containing LATE takes too long."""

    def __init__(self) -> None:
        self.counted: list[Sequence[bytes]] = []

    def tokenizer_of(self, model: str) -> str | None:
        """Return a name for models that begin with an m."""
        return "m*" if model.startswith("m") else None

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:
        """Count words."""
        assert tokenizer == "m*"
        self.counted.append(texts)
        late = any(b"LATE" in text for text in texts)
        return Count((), 0.003) if late else Count(tuple(len(text.split()) for text in texts), 0.001)


class Fifths(EmaEstimator):
    """An estimator of one token per five bytes, with a bound 30 % above."""

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate by bytes alone."""
        tokens, limit = len(facts.text) / 5, facts.max_output_tokens or 0
        category, evidence = CategoryKey(facts.model, tenant), Evidence.of(facts, tokens, of_tenant=bool(tenant))
        return Estimate(tokens, 1.3 * tokens, limit, True, Source.LEARNED, category, evidence)  # noqa: FBT003


class Routing:
    """A placer and a learner for the three pools, which count words."""

    def __init__(self, pools: Sequence[Pool] = (SHORT, MIDDLE, LONG)) -> None:
        self.counter = Words()
        self.estimator: EmaEstimator | ByteClassEstimator = Fifths(EstimatorSettings())
        self.counting = Counting(self.counter, 0.01, 100)
        self.placer = Placer(Mode.ENFORCE, Pools(pools), self.estimator, 768 << 10, counting=self.counting)
        budget = LearningBudget(LearningSettings())
        self.learner = Learner(Pools(pools), self.estimator, budget, Listener(), 4 << 20, counting=self.counting)

    def place(self, facts: RequestFacts, tenant: str = "") -> Decision:
        """Place a request."""
        return self.placer.place(facts, tenant)

    def learn(self, decision: Decision, prompt_tokens: int) -> None:
        """Learn from a response."""
        self.learner.learn(decision, OK, Usage(prompt_tokens))


def chat(*messages: str, **fields: object) -> RequestFacts:
    """Return the facts of a chat that declares no output."""
    ends = np.cumsum([len(message.encode()) for message in messages]).tolist()
    turns = tuple(("user", end) for end in ends)
    facts = RequestFacts(
        Api.CHAT, "m1", "".join(messages).encode(), messages=len(messages), max_output_tokens=0, turns=turns
    )
    return replace(facts, **fields)


def words(count: int) -> str:
    """Return a text with this many words and five times as many bytes."""
    return "word " * count


def estimate_of(decision: Decision) -> Estimate:
    """Return a decision's estimate."""
    assert decision.estimate is not None
    return decision.estimate


NEAR = chat(words(900))


def test_text_tokens_include_tools_but_not_droppable_reasoning() -> None:
    """If counting was given up, the number is None."""
    counts = [(7, 0, 0, 1, 1, 0, 0, 0), (7, 5, 3, 1, 1, 0, 0, 0), ()]
    assert [7, 12, None] == [Counted(features).text_tokens for features in counts]


def test_requests_near_a_limit_are_counted() -> None:
    """The estimate is the count plus what templates are believed to add."""
    counted, estimated = Routing().place(NEAR), Routing().place(replace(NEAR, model="other"))
    assert Counted((900, 0, 0, 1, 1, 0, 0, 0), 0.001) == counted.counted
    assert (None, 900) == (estimated.counted, counted.counted.text_tokens)
    assert [908, 900] == pytest.approx([estimate_of(each).prompt_tokens for each in (counted, estimated)])


def test_the_bound_of_a_counted_request_is_narrow() -> None:
    """After a few responses it is a tenth as wide as the estimate's."""
    routing = Routing()
    for _ in range(10):
        routing.learn(routing.place(NEAR), 915)
    estimate = estimate_of(routing.place(NEAR))
    assert 915 == pytest.approx(estimate.prompt_tokens, abs=1)
    assert estimate.prompt_bound < 1.03 * estimate.prompt_tokens


@pytest.mark.parametrize(
    ("size", "counted"),
    [
        (769, False),
        (770, True),
        (1_299, True),
        (1_301, False),
        (3_800, False),
        (3_900, True),
        (5_199, True),
        (5_201, False),
    ],
)
def test_a_request_is_counted_only_if_the_count_can_change_its_pool(size: int, *, counted: bool) -> None:
    """If the size is far below or far above each limit, a count would change nothing."""
    assert counted == (Routing().place(chat(words(size))).counted is not None)


def test_a_request_that_was_estimated_too_long_may_fit() -> None:
    """A request that is estimated above a limit is counted as well, and goes to the pool that it fits."""
    long_words = chat("longish " * 700)  # 1,120 tokens, by the estimate
    uncounted = Routing().place(replace(long_words, model="other"))
    decision = Routing().place(long_words)
    assert (MIDDLE, SHORT) == (uncounted.pool, decision.pool)


@pytest.mark.parametrize(
    "facts",
    [
        replace(NEAR, media=MediaCount(small_images=1)),
        replace(NEAR, longest_share=0.9),
        replace(NEAR, exact_prompt_tokens=999),
        replace(NEAR, unseen_history=True),
        replace(NEAR, stored=True),
        replace(NEAR, model="other"),
    ],
)
def test_the_estimate_stands_unless_the_request_is_one_text_prompt(facts: RequestFacts) -> None:
    """Images, several prompts, token ids, and requests placed for another reason are not counted."""
    routing = Routing()
    decision = routing.place(facts)
    assert (None, []) == (decision.counted, routing.counter.counted)
    assert estimate_of(decision) == routing.estimator.estimate(facts, "")


@pytest.mark.parametrize(
    "facts",
    [
        replace(NEAR, text=b""),
        replace(NEAR, media=MediaCount(audio=1)),
        replace(NEAR, longest_share=0.9),
        replace(NEAR, exact_prompt_tokens=999),
        replace(NEAR, unseen_history=True),
        replace(NEAR, model="other"),
    ],
)
def test_only_text_of_one_prompt_that_is_in_the_body_is_counted(facts: RequestFacts) -> None:
    """Whoever asks for a count, the estimate stands if it would not be of the whole prompt."""
    routing = Routing()
    estimate = routing.estimator.estimate(facts, "")
    assert (estimate, None) == routing.counting.narrow(facts, estimate)
    assert [] == routing.counter.counted


def test_a_count_does_not_change_what_the_estimator_learns() -> None:
    """A count does not change what the byte-class estimator learns from the response."""
    one, other = ByteClassEstimator(EstimatorSettings()), ByteClassEstimator(EstimatorSettings())
    routing = Routing()
    routing.estimator = routing.placer.estimator = routing.learner._estimator = one
    for size in range(700, 1_100, 7):
        facts = chat(words(size))
        routing.learn(routing.place(facts), size + 9)
        other.observe(other.estimate(facts, ""), Usage(size + 9), LONG.max_budget_tokens)
    assert routing.counter.counted
    assert other.state() == one.state()


def test_requests_stored_by_default_are_not_counted() -> None:
    """A stored request goes to the default pool whatever its length."""
    routing = Routing()
    pools = Pools((SHORT, LONG), stored_by_default=True)
    placer = Placer(Mode.ENFORCE, pools, routing.estimator, 768 << 10, counting=routing.counting)
    assert placer.place(replace(NEAR, stored=None), "").counted is None
    assert placer.place(replace(NEAR, stored=False), "").counted is not None


def test_the_estimate_stands_if_counting_takes_too_long() -> None:
    """The decision records the attempt, and nothing is learned about counts from it."""
    routing = Routing()
    facts = chat(words(899) + "LATE ")
    decision = routing.place(facts)
    assert Counted((), 0.003) == decision.counted
    assert decision.counted.text_tokens is None
    assert estimate_of(decision) == routing.estimator.estimate(facts, "")
    routing.learn(decision, 2_000)
    assert pytest.approx(908) == estimate_of(routing.place(NEAR)).prompt_tokens


def test_each_message_is_counted_separately() -> None:
    """Tools and documents are counted separately as well, and so is reasoning that a template may drop."""
    routing = Routing()
    facts = chat("one two", words(900), dropped_text=b"so I thought", tools=2, tool_calls=3)
    facts = replace(facts, text=facts.text + b'{"name": "f"}')
    decision = routing.place(facts)
    assert [[b"one two", words(900).encode(), b'{"name": "f"}', b"so I thought"]] == routing.counter.counted
    assert decision.counted is not None
    assert (902, 2, 3, 1, 2, 1, 2, 3) == decision.counted.features


def test_a_prompt_without_messages_is_counted_as_a_whole() -> None:
    """Completions have no messages that could be counted separately."""
    routing = Routing()
    decision = routing.place(replace(NEAR, turns=(), messages=0, api=Api.COMPLETIONS))
    assert decision.counted is not None
    assert (900, 0, 0, 1, 0, 0, 0, 0) == decision.counted.features


def test_template_tokens_are_learned_from_usage() -> None:
    """A server adds 40 tokens per prompt and 7 per message, which is learned within tens of responses."""
    routing, rng = Routing(), np.random.default_rng(1)
    for _ in range(60):
        messages = [words(int(rng.integers(80, 95))) for _ in range(int(rng.integers(9, 12)))]
        decision = routing.place(chat(*messages))
        if decision.counted is not None:
            routing.learn(decision, decision.counted.features[0] + 40 + 7 * len(messages))
    estimate = estimate_of(routing.place(chat(*[words(90)] * 10)))
    assert pytest.approx(900 + 40 + 70, abs=1) == estimate.prompt_tokens
    assert estimate.prompt_bound < 1.02 * estimate.prompt_tokens


def test_a_share_of_epsilon_exceeds_the_bound() -> None:
    """Counted prompts keep the promise among themselves, however widely the template's tokens scatter."""
    routing, rng = Routing(), np.random.default_rng(2)
    missed, counted = 0, 0
    for _ in range(4_000):
        count = int(rng.integers(770, 1_300))
        decision = routing.place(chat(words(count)))
        if decision.counted is None:
            continue
        actual = round(count * (1 + rng.exponential(0.01)) + 20)
        missed, counted = missed + (actual > estimate_of(decision).prompt_bound), counted + 1
        routing.learn(decision, actual)
    assert counted > 500
    assert missed / counted == pytest.approx(0.01, abs=0.005)


def test_a_tokenizer_of_another_model_is_corrected() -> None:
    """If text costs a fifth more than counted, its price is learned, and prompts stop exceeding the bound."""
    routing, rng = Routing(), np.random.default_rng(3)
    missed = []
    for _ in range(300):
        count = int(rng.integers(770, 1_300))
        decision = routing.place(chat(words(count)))
        if decision.counted is not None:
            actual = round(1.2 * count)
            missed.append(actual > estimate_of(decision).prompt_bound)
            routing.learn(decision, actual)
    assert len(missed) > 100
    assert sum(missed[50:]) <= 2
    now = routing.counting.narrow(NEAR, routing.estimator.estimate(NEAR, ""))[0]
    assert pytest.approx(1_080, rel=0.02) == now.prompt_tokens


def test_an_outlier_is_trusted_in_part() -> None:
    """A single response with twice the tokens hardly moves the estimate."""
    routing = Routing()
    for actual in [908] * 20 + [1_816]:
        routing.learn(routing.place(NEAR), actual)
    assert pytest.approx(908, rel=0.005) == estimate_of(routing.place(NEAR)).prompt_tokens


def test_implausible_usage_does_not_widen_the_bound() -> None:
    """A broken counter does not count as a miss, so it does not widen the bound."""
    routing, broken = Routing(), Routing()
    for actual in [908] * 20:
        for each in (routing, broken):
            each.learn(each.place(NEAR), actual)
    broken.learn(broken.place(NEAR), 4_000)
    narrow, wide = (estimate_of(each.place(NEAR)).prompt_bound for each in (routing, broken))
    assert wide < 1.03 * narrow


def test_tokens_added_for_one_tenant_do_not_affect_others() -> None:
    """A server that adds 500 tokens to one tenant's prompts does not move other tenants' estimates."""
    routing, rng = Routing(), np.random.default_rng(4)
    for _ in range(60):
        for tenant, added in (("a", 500), ("b", 0)):
            count = int(rng.choice([rng.integers(770, 1_300), rng.integers(3_900, 5_200)]))
            routing.learn(routing.place(chat(words(count)), tenant), count + 8 + added)
    for tenant, expected in (("a", 1_408), ("b", 908)):
        estimate = estimate_of(routing.place(NEAR, tenant))
        assert pytest.approx(expected, rel=0.01) == estimate.prompt_tokens
        assert estimate.prompt_tokens < estimate.prompt_bound < 1.05 * expected


def test_a_response_without_its_tokenizer_teaches_nothing() -> None:
    """After a reload, for instance, a count made with other settings teaches nothing."""
    routing = Routing()
    decision = routing.place(NEAR)
    assert decision.counted is not None
    other = estimate_of(Routing().place(replace(NEAR, model="other")))
    routing.counting.observe(other, decision.counted, 2_000)
    assert pytest.approx(908) == estimate_of(routing.place(NEAR)).prompt_tokens


def test_a_count_travels_through_the_access_log() -> None:
    """The count is restored together with the decision, so usage in the log teaches what templates add."""
    payloads, decision = Payloads((SHORT, MIDDLE, LONG), "byteclass"), Routing().place(NEAR)
    data = payloads.pack(decision, 0.0, 4_000)
    assert data is not None
    unpacked, _ = payloads.unpack(data)
    assert decision.counted is not None
    assert Counted(decision.counted.features) == unpacked.counted


def test_counts_have_metrics() -> None:
    """Counts have metrics for outcome and duration; a count that was not started adds no duration."""
    metrics, routing = Metrics(CollectorRegistry(), 1, 1), Routing()
    for facts in (NEAR, NEAR, chat(words(899) + "LATE "), chat(words(100))):
        metrics.decided(routing.place(facts))
    metrics.decided(replace(routing.place(NEAR), counted=Counted(())))
    assert {CountOutcome.DONE: 2, CountOutcome.GIVEN_UP: 2} == {
        outcome: metrics.counts[outcome,] for outcome in CountOutcome
    }
    (family,) = (tally.collect() for tally in metrics.tallies if tally.name == "dualpool_exact_count_seconds")
    assert [3.0] == [sample.value for sample in family.samples if sample.name.endswith("_count")]


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_an_outlier_moves_little_in_either_direction(factor: float) -> None:
    """A broken counter is trusted as far as the errors of counts usually go."""
    routing = Routing()
    for _ in range(30):
        routing.learn(routing.place(NEAR), 915)
    routing.learn(routing.place(NEAR), round(915 * factor))
    assert pytest.approx(915, rel=0.005) == estimate_of(routing.place(NEAR)).prompt_tokens


def test_usage_that_no_estimate_believes_teaches_no_template() -> None:
    """A count a thousand times the estimate belongs to another request, or to a broken counter."""
    routing = Routing()
    before = estimate_of(routing.place(NEAR))
    routing.learn(routing.place(NEAR), 2_000_000)
    assert before == estimate_of(routing.place(NEAR))
