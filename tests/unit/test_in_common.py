"""Whether two states hold what was learned from the same responses."""

from dataclasses import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.in_common import in_common
from extproc.core.estimator.packing import packed
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from tests.unit.test_state_file import taught


def test_what_is_the_same_by_itself_is_not_in_common() -> None:
    """States without knowledge; exact estimates, each of which has the score 0; and another generation of a model,
    of which a merge keeps one.
    """
    assert in_common([LearnedState("")] * 2) is None
    assert in_common([ByteClassEstimator(EstimatorSettings()).state()] * 2) is None
    state = taught(30).state()
    named = tuple(replace(row, observations=0, scores=b"", scored=0) for row in state.models)
    assert in_common([replace(state, models=named, categories=(), outputs=())] * 2) is None
    exact = [
        replace(state, models=tuple(replace(row, scores=packed([0.0] * 100), scored=100) for row in state.models))
        for state in (taught(30, seed).state() for seed in range(2))
    ]
    assert in_common(exact) is None
    one = taught(300).state()
    later = replace(one, models=tuple(replace(row, generation=row.generation + 1) for row in one.models))
    assert (in_common([one, later]), in_common([exact[0], one, one])) == (None, (1, 2))


def test_scores_of_different_times_show_nothing() -> None:
    """Of a state that is fifty responses older no score is kept in the later one, so nothing is compared."""
    early = taught(40).state()
    (row,) = early.models
    late = replace(early, models=(replace(row, scored=row.scored + 50),))
    assert in_common([early, late]) is None
    assert in_common([early, replace(early, models=(replace(row, weight=row.weight + 1),))]) == (0, 1)
