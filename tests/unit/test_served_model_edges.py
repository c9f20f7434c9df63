"""When the responses of a served model raise an alarm, and what a replacement keeps."""

import numpy as np
import pytest

from extproc.core.estimator.change import ModelChange
from extproc.core.estimator.prices import prior
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, MediaTokens
from extproc.core.estimator.tables import model_columns

PRIOR = prior(MediaTokens())


def new() -> ServedModel:
    """Return a model that has learned nothing."""
    return ServedModel(PRIOR, ByteClassSettings(), Residual())


def test_surprises_alarm_when_they_are_most_and_of_most_sources() -> None:
    """Neither many sources with few surprises nor many surprises from one source raise an alarm."""
    few_of_many, many_of_one = new(), new()
    for source in range(6):
        few_of_many.observe(source, surprised=True)
        many_of_one.observe(source, surprised=False)
    assert not any(few_of_many.observe(99, surprised=False) for _ in range(20))
    assert not any(many_of_one.observe(99, surprised=True) for _ in range(20))
    assert [many_of_one.observe(source, surprised=True) for source in range(30)][-1]


def test_a_replacement_keeps_the_counts_and_is_not_alarmed() -> None:
    """Counts belong to the name, whatever model is behind it; the surprises belonged to the former model, and
    missed bounds to the time before it was replaced.
    """
    former, follower = new(), new()
    former.clipped, former.truncated_by_pool, former.used_at = 3, 2, 7
    for source in range(30):
        alarmed = former.observe(source, surprised=True)
        follower.observe(source, surprised=True)
        follower.miss(source, None, 0.3, missed=True)
    assert follower.misses.in_doubt
    follower.follow(former)
    assert not follower.misses.in_doubt
    assert alarmed
    assert (3, 2, 7) == (follower.clipped, follower.truncated_by_pool, follower.used_at)
    assert follower.voices is former.voices
    assert not follower.observe(0, surprised=True)


def test_scores_of_another_generation_are_not_used_for_this_one() -> None:
    """A replica that follows the others to new prices takes over their q and starts counting; what it knows of
    continued conversations was relative to the former prices.
    """
    model = new()
    model.bound.observe(9.0)
    continued = model.continued
    sums = np.zeros(sum(model_columns(PRIOR.mean.size)))
    model.shift(ModelChange("m", 0, 1, 0, 0, 0.0, 0.25, sums))
    assert (1, 0, b"") == (model.generation, model.state("m").scored, model.state("m").scores)
    assert 4.0 + 0.5 * 0.99 + 0.25 == pytest.approx(model.bound.q)
    assert model.continued is not continued


def test_counts_continue_from_a_state() -> None:
    """Counts of clipped, refused and pool-truncated responses continue after a restart."""
    before, after = new(), new()
    before.clipped, before.truncated_by_pool, before.prices.refused = 3, 2, 1
    after.load(before.state("m"))
    assert (3, 2, 1) == (after.clipped, after.truncated_by_pool, after.prices.refused)
