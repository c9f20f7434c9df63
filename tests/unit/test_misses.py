"""What bounds reach to while all of them are missed, and that chance or one client does not bring that about."""

from collections.abc import Sequence

import numpy as np
import pytest

from extproc.core.estimator.misses import Misses
from tests.unit.test_rivals import Traffic


def reach(told: Sequence[tuple[int, float, bool]], sources: int = 10) -> float:
    """Return how far bounds reach after responses: source, log error, and whether the bound was missed."""
    misses = Misses()
    for source, error, missed in told:
        misses.observe(source, sources, error, missed=missed)
    return misses.reach


def test_three_misses_in_a_row_are_no_chance() -> None:
    """Bounds then reach as far as the largest of them, and those of two do not."""
    assert 0 == reach([(1, 0.3, True), (2, 0.5, True)])
    assert 0.5 == reach([(1, 0.3, True), (2, 0.5, True), (3, 0.4, True)])
    assert 0.5 == reach([(1, 0.3, True), (2, 0.5, True), (0, 0.0, False), (3, 0.4, True), (4, 0.3, True)])


def test_it_ends_soon() -> None:
    """However many were missed, two bounds that held end it, and four forget how far it went."""
    missed = [(source, 0.5, True) for source in range(20)]
    held = [(0, 0.0, False)]
    assert 0.5 == reach(missed + held)
    assert 0 == reach(missed + 2 * held)
    assert 0.2 == reach(missed + 4 * held + [(source, 0.2, True) for source in range(3)])


@pytest.mark.parametrize(("sources", "expected"), [(1, 0.5), (2, 0.0), (10, 0.0)])
def test_one_client_is_not_everybody(sources: int, expected: float) -> None:
    """Misses of one source move bounds only where there is no other."""
    assert expected == reach([(7, 0.5, True)] * 10, sources)


def test_misses_by_chance_do_not_widen_bounds() -> None:
    """At twice the promised rate of misses, one response in ten thousand or fewer meets a wider bound."""
    misses, rng, wider = Misses(), np.random.default_rng(1), 0
    for number, missed in enumerate((rng.random(50_000) < 0.02).tolist()):
        misses.observe(number, 10, 0.5, missed=missed)
        wider += misses.reach > 0
    assert wider <= 5


def test_few_requests_are_missed_while_a_tokenizer_changes() -> None:
    """Of the first twenty requests at twice the tokens at most eight are above their bounds."""
    traffic = Traffic()
    traffic.many(500, 4.0)
    assert sum(learning.under_counted for _, learning in traffic.many(20, 2.0)) <= 8
    assert sum(learning.under_counted for _, learning in traffic.many(30, 2.0)) <= 3


@pytest.mark.parametrize(("misses", "expected"), [(0, 0.0), (2, 0.0), (3, 0.5)])
def test_where_there_is_one_client_three_of_its_misses_do(misses: int, expected: float) -> None:
    """It is all that there is to go by; two are as much of a chance as anybody's."""
    assert expected == reach([(7, 0.5, True)] * misses, 1)
