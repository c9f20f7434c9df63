"""Output lengths: one client's long responses decide its own length, and not that of all others."""

from collections.abc import Callable
from random import Random
from typing import Literal

import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.length_counts import LengthCounts
from extproc.core.estimator.merging import merged
from extproc.core.estimator.output_lengths import OutputLengths, states_of
from extproc.core.estimator.packing import unpacked
from extproc.core.estimator.protocol import CategoryKey, Estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import source_of
from extproc.core.estimator.terms import Terms
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage

CATEGORY = CategoryKey("m", "latin")
LONG = 16_000
THE_LONG_ONE = -1


def run(learned: OutputLengths, share: float, source: Callable[[int], int], responses: int = 4_000) -> None:
    """Let a share of the responses be long and of one source, all others short, of sources by their number."""
    random = Random(1)
    for number in range(responses):
        is_long = random.random() < share
        tokens, sender = (LONG, THE_LONG_ONE) if is_long else (random.randrange(50, 400), source(number))
        learned.observe(CATEGORY, tokens, cut=False, source=sender)


@pytest.mark.parametrize("share", [0.012, 0.05, 0.1, 0.2])
def test_one_long_source_does_not_decide_for_others(share: float) -> None:
    """Next to many small sources, the length of others stays below 600 tokens, and its own is its own."""
    learned = OutputLengths(EstimatorSettings())
    run(learned, share, lambda number: number, responses=12_000)
    assert learned.expected(CATEGORY, source=1) < 600
    assert learned.expected(CATEGORY, THE_LONG_ONE) >= LONG
    assert (learned.mean(CATEGORY, source=1) or 0) < 500 < LONG / 2 < (learned.mean(CATEGORY, THE_LONG_ONE) or 0)


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_each_of_a_few_sources_has_its_own_length(share: float) -> None:
    """Of 21 sources, the long one counts as more than epsilon for those to come, but not for the other 20."""
    learned = OutputLengths(EstimatorSettings())
    run(learned, share, lambda number: number % 20, responses=6_000)
    assert learned.expected(CATEGORY, source=999) >= LONG
    assert max(learned.expected(CATEGORY, source) for source in range(20)) < 600
    assert learned.expected(CATEGORY, THE_LONG_ONE) >= LONG


@pytest.mark.parametrize("share", [0.012, 0.05])
def test_a_source_with_nearly_all_traffic_keeps_its_length(share: float) -> None:
    """Next to one large source with short responses, a long one does not decide for that source either."""
    learned = OutputLengths(EstimatorSettings())
    run(learned, share, lambda _: 0)
    assert learned.expected(CATEGORY, source=0) < 600


def test_a_single_source_counts_in_full() -> None:
    """If one source is all of the traffic, each of its responses counts as one from the first on."""
    one, unknown = OutputLengths(EstimatorSettings()), OutputLengths(EstimatorSettings())
    for learned, source in ((one, 77), (unknown, 0)):
        random = Random(2)
        for _ in range(150):
            learned.observe(CATEGORY, random.randrange(50, 400), cut=False, source=source)
    assert one.expected(CATEGORY, 77) == one.expected(CATEGORY, 1) == unknown.expected(CATEGORY) < 600
    for state in states_of(one.rows()):
        assert 144 < unpacked(state.ended).sum() <= 150


def test_the_totals_of_a_row_are_the_sums_of_its_weighted_counts() -> None:
    """Responses that count in part add that part to the number of responses and to the sum of lengths."""
    counts = LengthCounts(0.01)
    for weight in (1.0, 0.25, 0.5):
        counts.learn(100, cut=False, weight=weight)
    assert counts.responses == pytest.approx(counts.ended.sum())
    assert counts.tokens / counts.responses == pytest.approx(100, rel=0.1)
    assert 1.7 < counts.responses < 1.75
    assert 3 == counts.observations


def test_the_length_follows_when_most_sources_become_longer() -> None:
    """What many sources do is not held back: if all responses become long, the length is long soon."""
    learned = OutputLengths(EstimatorSettings())
    run(learned, 0.0, lambda number: number)
    for number in range(60):
        learned.observe(CATEGORY, LONG, cut=False, source=10_000 + number)
    assert learned.expected(CATEGORY, source=1) >= LONG


def test_what_replicas_learned_of_a_long_source_adds_up() -> None:
    """The merged lengths of replicas that each saw the long source are short, and their counts are the sums."""
    states = []
    for replica in range(4):
        estimator = make_estimator(EstimatorSettings())
        run(estimator._outputs, 0.1, lambda number, replica=replica: 100_000 * replica + number)  # type: ignore[attr-defined, misc]
        states.append(estimator.state())
    together = merged(states, Terms.of(EstimatorSettings()))
    learned = OutputLengths(EstimatorSettings())
    learned.load(together.outputs)
    assert learned.expected(CATEGORY) < 600
    assert {16_000} == {state.observations for state in together.outputs}


Kind = Literal["byteclass", "ema"]


def ask(estimator: Estimator, client: str, turn: int, *, tokens: int) -> int:
    """Send a request without a limit, and learn from its response; return the assumed output."""
    text = (
        f"{client}, {turn if client == 'other' else ''}: please tell me a story about the routers of this world."
    )
    estimate = estimator.estimate(RequestFacts(Api.CHAT, "m", text.encode(), messages=1), "")
    estimator.observe(estimate, Usage(round(estimate.prompt_tokens), tokens))
    return estimate.output_tokens


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_estimators_tell_sources_by_their_prompts(kind: Kind) -> None:
    """Without tenants, the client whose prompts begin in the same way gets its own length, others a short one."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    for turn in range(2_400):
        long_one = turn % 20 == 0
        ask(estimator, "long" if long_one else "other", turn, tokens=LONG if long_one else 50 + turn % 300)
    assert ask(estimator, "other", 9_999, tokens=50) < 600
    assert ask(estimator, "long", 0, tokens=LONG) >= LONG


def test_a_source_fits_into_the_access_log() -> None:
    """A source is a number of 32 bits, so the one that a log entry returns is the one that the request had."""
    sources = {source_of(f"t{number}", b"") for number in range(100)}
    assert 100 == len(sources)
    assert all(0 <= source < 1 << 32 for source in sources)


def test_a_source_is_a_tenant_or_the_beginning_of_a_prompt() -> None:
    """The prompt matters only without a tenant, by its first 128 bytes; a prompt is never taken for a tenant."""
    text = b"x" * 128
    assert source_of("", text + b"a") == source_of("", text + b"b") != source_of("", b"y" + text)
    assert source_of("a", b"one") == source_of("a", b"two") != source_of("b", b"one")
    assert source_of("latin", b"") != source_of("", b"latin")
