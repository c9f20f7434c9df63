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
was put aside after KEPT. Where the model surprises again while what was put aside is no better, a new rival takes
that one's place.

A rival is of one process, at most one for each model, and not shared; it is as large as the model, and learning
takes twice the time while one that learns is there. What is shared is the model with its generation, which goes up
when a new one takes over and back when the old one returns (sharing.py).

Prior art: cumulative sums (Page, 1954); champion and challenger; tracking the best expert (Herbster and Warmuth,
1998). Rejected, with figures in docs/estimator.md: to start anew at once; rivals at all times, which double the
time of learning.
"""

from collections.abc import Mapping
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

__all__ = ["Heard", "Rival"]

MOST = 0.5
MOST_AT_ONCE = 0.25
ENOUGH = 1.5
TRIAL = 200  # responses
KEPT = 1_000


class Heard(NamedTuple):
    """A response, the model's log error of it, and how much its source counts (voices.py)."""

    evidence: Evidence
    actual: float
    error: float
    weight: float


class Rival:
    """What may take a model's place: a new one that learns, or a former one with its categories."""

    def __init__(self, model: ServedModel, categories: Mapping[CategoryKey, Residual] | None = None) -> None:
        self.model = model
        self.categories = categories or {}
        self.learns = categories is None
        self._sources = Sources()
        self._score = 0.0
        self._responses = 0

    @property
    def won(self) -> bool:
        """Whether it has predicted better for long enough, and for most sources."""
        return self._score >= ENOUGH and self._sources.share > MOST

    @property
    def is_over(self) -> bool:
        """Whether it had its time."""
        return self._responses >= (TRIAL if self.learns else KEPT)

    @property
    def is_behind(self) -> bool:
        """Whether nothing speaks for it at present."""
        return self._score == 0

    def compare(self, category: CategoryKey, heard: Heard, prior_prices: Features) -> None:
        """Hold a response against what the model made of it, and learn from it."""
        evidence, model = heard.evidence, self.model
        assert evidence.x is not None, "what is learned from was looked at"
        residual = self.categories.get(category, model.residual)
        now = believe(evidence.x, evidence.text_bytes, model, residual, prior_prices)
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
