"""What one response teaches: what byteclass.py tells of the time after an estimate.

What a source says is shared out (voices.py): by its weight to what all requests are estimated by, the rest to what
is its own.
"""

from math import exp, log
from typing import NamedTuple

from extproc.core.estimator.clipping import WILD, clipped_error
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.knowledge import Knowledge
from extproc.core.estimator.protocol import CategoryKey, Refused
from extproc.core.estimator.residual import TAUGHT_RESPONSES
from extproc.core.estimator.rivals import Heard
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.voices import Voice

__all__ = ["Lesson", "teach"]

# An error of so many scales surprises: one in twenty or so, in ordinary times.
SURPRISE = 2.5


class Lesson(NamedTuple):
    """What came of one response, for Learning (protocol.py), which has the same words."""

    clipped: bool = False
    refused: Refused | None = None
    started_anew: bool = False
    returned: bool = False


def teach(
    known: Knowledge,
    model: ServedModel,
    category: CategoryKey,
    evidence: Evidence,
    actual: float,
    *,
    on_bound: bool = True,
) -> Lesson:
    """Take in one response.

    Without `on_bound` the request was not routed on the bound of the whole, whose q hears nothing of it.
    """
    x, text_bytes = evidence.x, evidence.text_bytes
    assert x is not None, "what is learned from was looked at"
    voice = model.voices.hear(evidence.source)
    now = known.believe(model, category, x, text_bytes, evidence.source)
    extra = known.extras.use(category) if evidence.of_tenant else None
    if extra is not None:
        extra.learn(now.tokens / exp(now.residual), actual)
        actual = max(actual - extra.tokens, 1.0)
    error = log(actual / now.tokens)
    missed = actual > now.bound
    if on_bound and abs(error) <= WILD and not (missed and now.bound >= now.highest):
        voice.score(model.bound, error / now.scale)
    believed = clipped_error(error, now.scale)
    clipped = believed != error
    model.clipped += clipped
    alarm = model.observe(evidence.source, surprised=abs(error) > SURPRISE * now.scale)
    if on_bound:
        model.miss(evidence.source, evidence.output_limit, error, missed=missed)
    switched = known.compare(category, Heard(evidence, actual, error, voice.weight), alarm=alarm)
    if switched is not None:
        return Lesson(clipped, started_anew=switched.learns, returned=not switched.learns)
    if clipped and extra is not None and extra.is_open:
        return Lesson(clipped=True)  # a constant of the tenant's, perhaps
    own = (1 - voice.weight) * now.residual if evidence.of_tenant else voice.deviation
    # What is a source's own harms nobody else, so all of its error is believed, but for broken counters.
    alone = voice.weight * believed + (1 - voice.weight) * (error if abs(error) <= WILD else believed)
    told = _Told(believed + now.residual - voice.deviation, alone, now.residual, now.doubt, text_bytes / actual)
    _learn_residuals(known, model, category, voice, told, of_tenant=evidence.of_tenant)
    if on_bound:
        model.scale.learn(now.variance, now.factors, believed, voice.weight)
    weight = now.trust(model.residual.spread) * (1.0 if believed == error else believed / error)
    sound = model.prices.learn(x, now.tokens * exp(believed - own), weight, voice.weight)
    return Lesson(clipped, None if sound else Refused.NUMBERS)


class _Told(NamedTuple):
    """What a response tells of residuals: log(actual / priced) as all are to believe it, and what is the source's.

    `alone` is the error of the estimate as the source itself is to believe it, `residual` was in that estimate.
    """

    of_prices: float
    alone: float
    residual: float
    doubt: float
    bytes_per_token: float


def _learn_residuals(
    known: Knowledge, model: ServedModel, category: CategoryKey, voice: Voice, told: _Told, *, of_tenant: bool
) -> None:
    """Teach the category, the model and all models; a tenant is its own category."""
    taught = model.prices.responses >= TAUGHT_RESPONSES
    parts, of_category = [model.residual, known.all_models], known.residuals.use(category)
    if of_tenant:
        of_category.learn(told.alone + told.residual, told.doubt, told.bytes_per_token, move_mean=taught)
    else:
        voice.learn(told.alone, told.doubt, of_category, move_mean=taught)
        parts.append(of_category)
    for part in parts:
        part.learn(told.of_prices, told.doubt, told.bytes_per_token, move_mean=taught, weight=voice.weight)
