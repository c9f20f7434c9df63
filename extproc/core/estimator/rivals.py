"""A rival beside a model: when the tokenizer behind a name changes, or when a change turns out to be none.

The problem. Sums over two tokenizers fit neither, so after a change old prices have to go. But to drop them at the
first responses beyond belief is a trap: seven odd prompts in a row would erase what hundreds have taught. And
another tokenizer of the same kind is off by a tenth only, which is not beyond belief, and for which old prices are
wrong for thousands of responses.

The idea. When most of the last responses surprise (errors of more than SURPRISE scales), and of most sources
(sources.py), a rival begins beside the model: prior prices, which believe the same responses as they are, while
the model stays as it is and decides. For each response the two errors are compared, and

    S <- max(0, S + w (|e of the model| - |e of the rival|))      each difference at most MOST_AT_ONCE

w being how much the source counts (voices.py). When S reaches ENOUGH, and the rival was better at the last
response of most sources, they change places. The one that was put aside learns no more, and is the rival from then
on: if it predicts better by the same measure, it comes back with all that it knew. So odd prompts that replace a
model have to go on as long as others' do not come. A rival that does not win in TRIAL responses is dropped, what
was put aside is compared for KEPT. Where the model surprises again while what was put aside is no better, a new
rival takes that one's place.

Usage may contradict itself: a pool behind one name counts at random, or two pools count with two tokenizers. Then
neither of the two is better, S wanders, and they would change places again and again. So ENOUGH is for a change
and the return from it; with n changes lately (a fading count), what is asked for is ENOUGH 2^(n - 1), at most
MOST_ENOUGH. S has to wander four times as long for twice the height, while what predicts better by a tenth reaches
even MOST_ENOUGH within hundreds of responses.

A person may know better: what was put aside last is kept however long, and `undo` puts it back. Then nothing
changes places for HELD responses, or what made the change would make it again.

A rival is of one process, at most one for each model, and not shared; it is as large as the model, and learning
takes twice the time while one that learns is there. What is shared is the model with its generation, which goes up
when a new one takes over and back when the old one returns (sharing.py).

Prior art: cumulative sums (Page, 1954); champion and challenger; tracking the best expert (Herbster and Warmuth,
1998). Rejected, with figures in docs/estimator.md: to start anew at once; rivals at all times, which double the
time of learning.
"""

from collections.abc import Callable, Mapping
from math import exp, log
from typing import NamedTuple

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.clipping import WILD
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import Features
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.residual import TAUGHT_RESPONSES, Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.sources import Sources

__all__ = ["Contest", "Heard", "Rival"]

MOST = 0.5
MOST_AT_ONCE = 0.25
ENOUGH, MOST_ENOUGH = 1.5, 12.0
REMEMBERED = 0.9995  # of a change of places, from one response to the next: as long as the prices' own memory
TRIAL = 200  # responses
KEPT = 1_000
HELD = 1_000


class Heard(NamedTuple):
    """A response, the model's log error of it, and how much its source counts (voices.py)."""

    evidence: Evidence
    actual: float
    error: float
    weight: float


class Contest:
    """What goes on beside one model. `rival` may take its place, `aside` was in it before; None where none is."""

    def __init__(self) -> None:
        self.rival: Rival | None = None
        self.aside: Rival | None = None
        self._changes = 0.0  # lately, faded
        self._held = 0  # responses, for which nothing changes places
        self._undone = 0  # a generation

    @property
    def is_held(self) -> bool:
        """Whether a person has put the model in its place, not long ago."""
        return self._held > 0

    def refuses(self, generation: int) -> bool:
        """Tell whether a person has just put this generation aside."""
        return self.is_held and generation == self._undone

    def hear(
        self,
        category: CategoryKey,
        heard: Heard,
        fresh: Callable[[], ServedModel] | None = None,
    ) -> "Rival | None":
        """Hold a response against the rival; return that when it is to take the model's place.

        `fresh` is given when it is time for a rival, and makes one, where none is there that may win.
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
        rival.compare(category, heard)
        return rival if rival.is_ahead_by(min(ENOUGH * 2 ** max(self._changes - 1, 0), MOST_ENOUGH)) else None

    def changed(self, former: "Rival") -> None:
        """Called when the rival has taken the model's place, which was `former`."""
        self.rival = self.aside = former
        self._changes += 1

    def hold(self, undone: int) -> None:
        """Let nothing change places for HELD responses, now that this generation is put aside."""
        self.rival, self._held, self._undone = None, HELD, undone

    def end(self) -> None:
        """Called when the model is another one altogether, from elsewhere."""
        self.rival = self.aside = None
        self._held = 0


class Rival:
    """What may take a model's place: a new one that learns, or a former one with its categories."""

    def __init__(self, model: ServedModel, categories: Mapping[CategoryKey, Residual] | None = None) -> None:
        self.model = model
        self.categories = categories or {}
        self.learns = categories is None
        self._sources = Sources()
        self._score = 0.0
        self._responses = 0

    def is_ahead_by(self, enough: float) -> bool:
        """Tell whether it has predicted better by so much, and for most sources."""
        return self._score >= enough and self._sources.share > MOST

    @property
    def is_over(self) -> bool:
        """Whether it had its time."""
        return self._responses >= (TRIAL if self.learns else KEPT)

    @property
    def is_behind(self) -> bool:
        """Whether nothing speaks for it at present."""
        return self._score == 0

    def compare(self, category: CategoryKey, heard: Heard) -> None:
        """Hold a response against what the model made of it, and learn from it."""
        evidence, model = heard.evidence, self.model
        assert evidence.x is not None, "what is learned from was looked at"
        residual = self.categories.get(category, model.residual)
        now = believe(evidence.x, evidence.text_bytes, model, residual)
        error = log(heard.actual / now.tokens)
        better = abs(heard.error) - abs(error)
        self._score = max(0.0, self._score + heard.weight * min(max(better, -MOST_AT_ONCE), MOST_AT_ONCE))
        self._sources.observe(evidence.source, held=better > 0)
        self._responses += 1
        if self.learns:
            self._learn(now, evidence.x, error, evidence.text_bytes / heard.actual, heard.weight)

    def _learn(self, now: Belief, x: Features, error: float, bytes_per_token: float, weight: float) -> None:
        """Take in a response as it is: that it is beyond belief is why the rival is there."""
        model = self.model
        if abs(error) <= WILD:
            model.bound.observe(error / now.scale)
        taught = model.prices.responses >= TAUGHT_RESPONSES
        model.residual.learn(error + now.residual, now.doubt, bytes_per_token, move_mean=taught, weight=weight)
        model.scale.learn(now.variance, now.factors, error, weight)
        model.prices.learn(x, now.tokens * exp(error), share=weight)
