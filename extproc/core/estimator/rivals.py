"""Rivals: detection of a changed tokenizer behind a model's name, and recovery if there was no change.

The problem. Sums over two tokenizers fit neither, so after a change the old prices have to go. But dropping them
at the first implausible responses is a trap: seven odd prompts in a row would erase what hundreds have taught. And
a similar tokenizer is off by only a tenth, which is not implausible, yet the old prices stay wrong for thousands
of responses.

The idea. When most of the last responses surprise (errors of more than SURPRISE scales), and so do the last ones
of most sources (sources.py), a rival starts next to the model: prior prices, which learn the same responses
without clipping, while the model keeps learning as before and is used for decisions. For each response the two
errors are compared, and

    S <- max(0, S + w (|e of the model| - |e of the rival|))      each difference at most MOST_AT_ONCE

where w is how much the source counts (voices.py). When S reaches ENOUGH, and the rival was better at the last
response of most sources, the two change places. The model that was set aside stops learning, and becomes the
rival: if it predicts better by the same measure, it comes back with everything that it knew. So if odd prompts
have replaced a model, the new one stays only until ordinary prompts come again. A rival that does not win within
TRIAL responses is dropped; a model that was set aside is compared for KEPT responses. If responses surprise again
while the one set aside has no lead, a new rival replaces the latter.

Usage may contradict itself: a pool behind one name may count at random, or two pools may count with two
tokenizers. Then neither of the two models is better, S wanders, and they would change places again and again. So
ENOUGH applies to a change and the return from it; with n recent changes (a fading count), the threshold is ENOUGH
2^(n - 1), at most MOST_ENOUGH. A wandering S takes four times as long to reach twice the height, while a model
that predicts better by a tenth reaches even MOST_ENOUGH within hundreds of responses.

An operator may know better: the model set aside last is kept without a time limit, and `undo` restores it. After
that nothing changes places for HELD responses; otherwise the same responses would cause the same change again.

A rival belongs to one process, at most one for each model, and is not shared. It is as large as the model, and
learning takes twice the time while there is a rival that learns. Replicas share the model with its generation,
which goes up when a new model takes over and back when the old one returns (sharing.py).

Prior art: cumulative sums (Page, 1954); champion and challenger; tracking the best expert (Herbster and Warmuth,
1998). Rejected, with figures in docs/estimator.md: starting over at once; permanent rivals, which double the time
for learning.
"""

from collections.abc import Callable, Mapping
from math import exp, log

import msgspec

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.clipping import WILD
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import Features
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.residual import TAUGHT_RESPONSES, Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.sources import Sources

__all__ = ["Contest", "Observed", "Rival"]

MOST = 0.5
MOST_AT_ONCE = 0.25
ENOUGH, MOST_ENOUGH = 1.5, 12.0
REMEMBERED = 0.9995  # share of a past change kept with each response: the same memory as the prices'
TRIAL = 200  # responses
KEPT = 1_000
HELD = 1_000


class Observed(msgspec.Struct, frozen=True, gc=False):
    """A response, the model's log error on it, and how much its source counts (voices.py)."""

    evidence: Evidence
    actual: float
    error: float
    weight: float


class Contest:
    """The comparison of one model with others.

    `rival` may take the model's place; `aside` is the model that was in that place before. Either may be None.
    """

    def __init__(self) -> None:
        self.rival: Rival | None = None
        self.aside: Rival | None = None
        self._changes = 0.0  # recent ones, faded
        self._held = 0  # responses for which nothing changes places
        self._undone = 0  # the generation set aside by an operator

    @property
    def is_held(self) -> bool:
        """Whether an operator recently put the model in its place."""
        return self._held > 0

    def refuses(self, generation: int) -> bool:
        """Return whether an operator recently set this generation aside."""
        return self.is_held and generation == self._undone

    def observe(
        self,
        category: CategoryKey,
        observed: Observed,
        fresh: Callable[[], ServedModel] | None = None,
    ) -> "Rival | None":
        """Compare a response with the rival's estimate; return the rival if it is to take the model's place.

        `fresh` creates a new rival's model. It is passed only if a rival is due, and called unless the current
        rival may still win.
        """
        self._changes *= REMEMBERED
        if self._held:
            self._held -= 1
            return None
        rival = self.rival
        if rival is not None and rival.is_over:
            rival = None
        if fresh is not None and (rival is None or (not rival.learns and rival.is_behind)):
            rival = Rival(fresh())
        self.rival = rival
        if rival is None:
            return None
        rival.compare(category, observed)
        return rival if rival.is_ahead_by(min(ENOUGH * 2 ** max(self._changes - 1, 0), MOST_ENOUGH)) else None

    def changed(self, former: "Rival") -> None:
        """Called after the rival has replaced the model, which was `former`."""
        self.rival = self.aside = former
        self._changes += 1

    def hold(self, undone: int) -> None:
        """Let nothing change places for HELD responses, after the generation `undone` was set aside."""
        self.rival, self._held, self._undone = None, HELD, undone

    def end(self) -> None:
        """Called when the model was replaced by one from elsewhere."""
        self.rival = self.aside = None
        self._held = 0


class Rival:
    """A candidate for a model's place: a new model that learns, or a former one with its categories."""

    def __init__(self, model: ServedModel, categories: Mapping[CategoryKey, Residual] | None = None) -> None:
        self.model = model
        self.categories = categories or {}
        self.learns = categories is None
        self._sources = Sources()
        self._score = 0.0
        self._responses = 0

    def is_ahead_by(self, enough: float) -> bool:
        """Return whether it has predicted better by this much, and for most sources."""
        return self._score >= enough and self._sources.share > MOST

    @property
    def is_over(self) -> bool:
        """Whether its time is up."""
        return self._responses >= (TRIAL if self.learns else KEPT)

    @property
    def is_behind(self) -> bool:
        """Whether it has no lead at present."""
        return self._score == 0

    def compare(self, category: CategoryKey, observed: Observed) -> None:
        """Compare the rival's estimate of a response with the model's; a new rival also learns from it."""
        evidence, model = observed.evidence, self.model
        assert evidence.x is not None, "what is learned from was looked at"
        residual = self.categories.get(category, model.residual)
        now = believe(evidence.x, evidence.text_bytes, model, residual)
        error = log(observed.actual / now.tokens)
        better = abs(observed.error) - abs(error)
        self._score = max(0.0, self._score + observed.weight * min(max(better, -MOST_AT_ONCE), MOST_AT_ONCE))
        self._sources.observe(evidence.source, held=better > 0)
        self._responses += 1
        if self.learns:
            self._learn(now, evidence.x, error, evidence.text_bytes / observed.actual, observed.weight)

    def _learn(self, now: Belief, x: Features, error: float, bytes_per_token: float, weight: float) -> None:
        """Take in a response without clipping: implausible responses are the reason why the rival exists."""
        model = self.model
        if abs(error) <= WILD:
            now.q.observe(error / now.scale)
        taught = model.prices.responses >= TAUGHT_RESPONSES
        model.residual.learn(error + now.residual, now.doubt, bytes_per_token, move_mean=taught, weight=weight)
        model.scale.learn(now.variance, now.factors, error, weight)
        model.prices.learn(x, now.tokens * exp(error), share=weight)
