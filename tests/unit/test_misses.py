"""How far bounds are widened while all of them are missed, and that chance or one client does not cause it."""

from collections.abc import Sequence

import numpy as np
import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.features import features
from extproc.core.estimator.misses import Misses, ModelMisses
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import Sources
from extproc.core.estimator.text import look
from extproc.core.facts import Api, RequestFacts
from extproc.core.placing.stratum import Declared
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import facts, structure_tokens
from tests.unit.test_rivals import Traffic


def seen(sources: int) -> Sources:
    """Return so many sources."""
    made = Sources()
    for source in range(sources):
        made.observe(source, held=False)
    return made


def reach(responses: Sequence[tuple[int, float, bool]], sources: int = 10) -> float:
    """Return the reach after these responses: source, log error, and whether the bound was missed."""
    misses = Misses()
    for source, error, missed in responses:
        misses.observe(source, seen(sources), error, missed=missed)
    return misses.reach


def test_three_misses_in_a_row_widen_bounds() -> None:
    """Bounds then reach as far as the largest miss; two misses do not widen them."""
    assert 0 == reach([(1, 0.3, True), (2, 0.5, True)])
    assert 0.5 == reach([(1, 0.3, True), (2, 0.5, True), (3, 0.4, True)])
    assert 0.5 == reach([(1, 0.3, True), (2, 0.5, True), (0, 0.0, False), (3, 0.4, True), (4, 0.3, True)])


def test_two_bounds_that_hold_end_it() -> None:
    """However many were missed, two bounds that hold end it, and four forget the errors."""
    missed = [(source, 0.5, True) for source in range(20)]
    held = [(0, 0.0, False)]
    assert 0.5 == reach(missed + held)
    assert 0 == reach(missed + 2 * held)
    assert 0.2 == reach(missed + 4 * held + [(source, 0.2, True) for source in range(3)])


@pytest.mark.parametrize(("sources", "expected"), [(1, 0.5), (2, 0.0), (10, 0.0)])
def test_one_client_does_not_widen_bounds_of_others(sources: int, expected: float) -> None:
    """Misses of one source widen bounds only if there is no other source."""
    assert expected == reach([(7, 0.5, True)] * 10, sources)


def test_misses_by_chance_do_not_widen_bounds() -> None:
    """At twice the promised rate of misses, at most one response in ten thousand gets a wider bound."""
    misses, rng, sources, wider = Misses(), np.random.default_rng(1), seen(10), 0
    for number, missed in enumerate((rng.random(50_000) < 0.02).tolist()):
        misses.observe(number, sources, 0.5, missed=missed)
        wider += misses.reach > 0
    assert wider <= 5


def test_few_requests_are_missed_while_a_tokenizer_changes() -> None:
    """When prompts take twice the tokens, at most eight of the first twenty are above their bounds."""
    traffic = Traffic()
    traffic.many(500, 4.0)
    assert sum(learning.under_counted for _, learning in traffic.many(20, 2.0)) <= 8
    assert sum(learning.under_counted for _, learning in traffic.many(30, 2.0)) <= 3


@pytest.mark.parametrize(("misses", "expected"), [(0, 0.0), (2, 0.0), (3, 0.5)])
def test_three_misses_of_the_only_client_widen_bounds(misses: int, expected: float) -> None:
    """There is no other source to go by; two misses may still be chance."""
    assert expected == reach([(7, 0.5, True)] * misses, 1)


def class_reach(responses: Sequence[tuple[int, Declared, bool]]) -> list[float]:
    """Return the reach of each class after these responses: source, class, whether the bound was missed."""
    misses = ModelMisses()
    for source, declared, missed in responses:
        misses.observe(source, seen(10), declared, 0.5 if missed else 0.0, missed=missed)
    assert misses.in_doubt == any(misses.reach(declared) > 0 for declared in Declared)
    return [misses.reach(declared) for declared in Declared]


def among_others(misses: int, source: int | None = None) -> list[tuple[int, Declared, bool]]:
    """Return missed responses of one class, each followed by three of another class that hold."""
    held = (0, Declared.NONE, False)
    return [
        response
        for number in range(misses)
        for response in ((number if source is None else source, Declared.ABOVE_2K, True), held, held, held)
    ]


def test_three_misses_of_a_class_widen_its_bounds() -> None:
    """This holds however many bounds of other classes hold in between; those classes are not affected."""
    assert not ModelMisses().in_doubt
    assert [0, 0, 0, 0] == class_reach(among_others(2))
    assert [0, 0, 0.5, 0] == class_reach(among_others(3))


def test_a_class_that_holds_again_is_out_of_doubt() -> None:
    """Two bounds of the class that hold end it, as for the model as a whole."""
    held = (5, Declared.ABOVE_2K, False)
    assert [0, 0, 0.5, 0] == class_reach([*among_others(4), held])
    assert [0, 0, 0, 0] == class_reach([*among_others(4), held, held])


def test_one_client_of_a_class_does_not_widen_bounds_of_others() -> None:
    """Misses of one source count if the class has no other source, and otherwise not."""
    other = (8, Declared.ABOVE_2K, False)
    assert [0, 0, 0.5, 0] == class_reach(among_others(3, source=7))
    assert [0, 0, 0, 0] == class_reach([other, *among_others(4, source=7)])


def test_all_classes_are_in_doubt_if_all_are_missed() -> None:
    """Three misses of the model are enough, in any classes."""
    responses = [
        (number, declared, True) for number, declared in enumerate(Declared) if declared is not Declared.NONE
    ]
    assert [0.5, 0.5, 0.5, 0.5] == class_reach(responses)


def test_the_prompts_of_one_application_may_change_alone() -> None:
    """Few of its first twenty requests are missed, and requests of the other application keep narrow bounds."""
    estimator = make_estimator(EstimatorSettings())
    rng, words = np.random.default_rng(1), ["apple", "river", "stone", "cloud", "tiger", "metal", "piano", "green"]

    def observed(limit: int, tokens: float) -> tuple[bool, float]:
        text = " ".join(rng.choice(words, int(rng.integers(100, 400))))
        facts = RequestFacts(Api.CHAT, "m", text.encode(), messages=1, max_output_tokens=limit)
        actual = round(len(text) / 6 * tokens)
        estimate = estimator.estimate(facts, f"{limit}")
        learning = estimator.observe(estimate, Usage(actual, 9))
        return learning.under_counted, estimate.prompt_bound / actual

    for _ in range(300):
        observed(256, 1.0)
        observed(8_192, 1.0)
    after = [(observed(256, 1.0), observed(8_192, 1.3)) for _ in range(20)]
    assert sum(missed for _, (missed, _) in after) <= 6
    assert not any(missed for (missed, _), _ in after)
    assert np.median([width for (_, width), _ in after]) < 1.2


def test_no_doubt_widens_a_bound_beyond_the_physical_limit() -> None:
    """Whatever was missed, no prompt has more tokens than its bytes and what is added to them."""
    estimator = Traffic().estimator
    text = b"some text" * 100
    asked = facts(text)
    estimator.observe(estimator.estimate(asked, ""), Usage(len(text) // 4))
    misses = estimator._known.model("m").misses
    misses.in_doubt, misses._all.reach = True, 20.0
    outside = structure_tokens(features(asked, look(text)), estimator.prices("m"))
    bound = estimator.estimate(asked, "").prompt_bound
    assert len(text) < bound <= len(text) + 4 * max(outside, 8) + 256
