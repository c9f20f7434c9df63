"""Of what a replica has told, the version that is folded is others' knowledge; the rest stays its own."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from extproc.core.estimator.ageing import MAX_TOLD
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.merging import merged
from extproc.core.estimator.protocol import Estimator, LearnedState
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of
from extproc.core.estimator.tables import Tables
from tests.unit.sharing_fleet import SETTINGS, TERMS, Fleet, guess, lesson
from tests.unit.test_sharing_changes import restart

REPLICAS = 3


@dataclass
class Member:
    """One replica, and the name that it publishes under."""

    name: str
    estimator: Estimator = field(default_factory=lambda: ByteClassEstimator(SETTINGS))
    share: Share = field(default_factory=lambda: Share(TERMS))
    is_new: bool = True


class Stored:
    """A store as the sharer uses it: names, versions and a base, without a network that could fail by itself."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[bytes, Tables]] = {}
        self.base, self.folded = LearnedState(""), dict[str, bytes]()
        self.members = [Member(str(number)) for number in range(REPLICAS)]
        self._versions = 0

    def fold(self, name: str) -> None:
        """Take a replica for dead, if it has published anything."""
        if name in self.keys:
            version, own = self.keys.pop(name)
            if name not in self.folded:
                self.base, self.folded[name] = merged([self.base, state_of(own)], TERMS), version

    def exchange(self, member: Member, fault: str = "", folded: str = "") -> None:
        """Exchange; meanwhile `folded` is taken for dead. The publication may be `unsent`, its reply `lost`."""
        peers = [own for name, (_, own) in self.keys.items() if name != member.name and name not in self.folded]
        self._versions += 1
        version = b"%d" % self._versions
        if member.name in self.folded:
            member.share.give_up(self.folded[member.name])
            member.name, member.is_new = f"new name at {self._versions}", True
        else:
            member.share.holds(self.keys.get(member.name, (b"",))[0])
        exchanged = member.share.exchange(member.estimator.state(), peers, self.base)
        for bite in exchanged.change.bites():
            member.share.skipped(member.estimator.shift(bite))
        member.share.tell(version)
        self.fold(folded)
        if fault == "unsent":
            return
        done = member.name in self.keys or member.is_new
        if done:
            self.keys[member.name] = version, exchanged.own
        if fault != "lost":
            member.is_new = not done


def seen_by(estimator: Estimator) -> int:
    """Return how many responses an estimator has learned from, with all that it was told of."""
    return sum(row.observations for row in estimator.state().models)


STEPS = st.tuples(
    st.integers(0, REPLICAS - 1),
    st.integers(0, 6),
    st.sampled_from(["", "unsent", "lost"]),
    st.none() | st.integers(0, REPLICAS - 1),
)


@given(st.lists(STEPS, min_size=3, max_size=25))
@example(
    [(0, count, "", None) for count in (1, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5, 6, 6)]
    + [(2, 2, "", None), (2, 4, "", None)]
)
@settings(max_examples=40, deadline=None)
def test_once_the_store_is_well_again_each_response_counts_once_everywhere(
    steps: list[tuple[int, int, str, int | None]],
) -> None:
    """Whatever became of publications, and whoever was folded during whose exchange."""
    stored, one, rng, total = Stored(), ByteClassEstimator(SETTINGS), np.random.default_rng(1), 0
    for number, responses, fault, folded in steps:
        known = seen_by(stored.members[number].estimator)
        for _ in range(responses):
            lesson(rng, [one, stored.members[number].estimator])
        total += responses
        # Both have to believe every response; one that knows more may believe what the other does not.
        assume(total == seen_by(one) and known + responses == seen_by(stored.members[number].estimator))
        stored.exchange(stored.members[number], fault, "" if folded is None else stored.members[folded].name)
    for member in stored.members * 3:
        stored.exchange(member)
    for member in stored.members:
        state = member.estimator.state()
        assert total == seen_by(member.estimator)
        for rows in (state.categories, state.outputs):
            of_tenants = [row.observations for row in rows if row.category.key.startswith("tenant")]
            assert total == sum(of_tenants)
        assert sum(row.weight for row in state.models) == pytest.approx(
            sum(row.weight for row in one.state().models), rel=0.05
        )
        assert guess(member.estimator).prompt_tokens == pytest.approx(guess(one).prompt_tokens, rel=0.05)


def test_a_store_that_never_confirms_costs_no_memory() -> None:
    """The version that it holds is remembered, and the last few that it may have got since."""
    stored, rng = Stored(), np.random.default_rng(2)
    member = stored.members[0]
    lesson(rng, [member.estimator])
    stored.exchange(member)
    for _ in range(3 * MAX_TOLD):
        lesson(rng, [member.estimator])
        stored.exchange(member, "unsent")
    assert [b"1", b"11", b"12", b"13"] == list(member.share._models.told)
    stored.fold(member.name)
    stored.exchange(member)
    assert 3 * MAX_TOLD == state_of(stored.keys[member.name][1]).models[0].observations


@pytest.mark.parametrize(("fault", "own"), [("unsent", 7), ("", 47)])
def test_a_restored_model_that_was_folded_meanwhile_counts_once(fault: str, own: int) -> None:
    """A model was published, replaced and restored: what the base has of it is others' knowledge, all else is own.
    The base has nothing of it if the publication that was folded came after its replacement.
    """
    stored, rng = Stored(), np.random.default_rng(3)
    member = stored.members[0]
    estimator = member.estimator
    assert isinstance(estimator, ByteClassEstimator)
    for _ in range(40):
        lesson(rng, [estimator])
    stored.exchange(member)
    known = estimator._known.models.use("m")
    restart(estimator, "m")
    stored.exchange(member, fault)
    estimator._known.models.put("m", known)
    for _ in range(7):
        lesson(rng, [estimator])
    stored.fold(member.name)
    stored.exchange(member)
    assert own == state_of(stored.keys[member.name][1]).models[0].observations
    assert [47] == [row.observations for row in estimator.state().models]


def test_what_is_folded_after_a_reset_of_the_model_takes_nothing_from_the_new_one() -> None:
    """A version that has responses which the replica has dropped since is not subtracted from its later ones."""
    fleet, rng = Fleet(1), np.random.default_rng(4)
    for _ in range(20):
        lesson(rng, fleet.estimators)
    share = fleet.shares[0]
    share.exchange(fleet.estimators[0].state(), [])
    share.tell(b"1")
    anew = ByteClassEstimator(SETTINGS)
    for _ in range(12):
        lesson(rng, [anew])
    for _ in range(2):
        own = state_of(share.exchange(anew.state(), []).own)
        share.tell(b"2")
    share.give_up(b"1")
    own = state_of(share.exchange(anew.state(), []).own)
    assert 12 == own.models[0].observations
