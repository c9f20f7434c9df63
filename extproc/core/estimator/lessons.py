"""Learning from one response; the part of byteclass.py that runs after the estimate.

The lesson of a source is split (voices.py): a share, by the source's weight, goes to what all requests are
estimated by; the rest goes to the source's own parameters.
"""

from math import exp, log

import msgspec

from extproc.core.estimator.clipping import WILD, clipped_error
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.knowledge import Knowledge
from extproc.core.estimator.protocol import CategoryKey, Refused
from extproc.core.estimator.residual import TAUGHT_RESPONSES
from extproc.core.estimator.rivals import Observed
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.voices import Voice

__all__ = ["Lesson", "teach"]

# An error of more scales is a surprise: about one in twenty under ordinary conditions.
SURPRISE = 2.5


class Lesson(msgspec.Struct, frozen=True, gc=False):
    """The result of one response, for Learning (protocol.py), which has fields of the same names."""

    clipped: bool = False
    refused: Refused | None = None
    started_anew: bool = False
    returned: bool = False


def teach(
    known: Knowledge, model: ServedModel, category: CategoryKey, evidence: Evidence, actual: float
) -> Lesson:
    """Take in one response.

    The bound's q does not change if the request was routed on another one, that of a conversation's new part.
    """
    x, text_bytes, source, of_tenant = evidence.x, evidence.text_bytes, evidence.source, evidence.of_tenant
    assert x is not None, "what is learned from was looked at"
    on_bound = evidence.recalled is None or evidence.recalled.known is None
    voice = model.voices.observe(source)
    share = voice.weight
    now = known.believe(model, category, x, text_bytes, source)
    extra = known.extras.use(category) if of_tenant else None
    if extra is not None:
        extra.learn(now.tokens / exp(now.residual), actual)
        actual = max(actual - extra.tokens, 1.0)
    error = log(actual / now.tokens)
    missed = actual > now.bound
    if on_bound and abs(error) <= WILD and not (missed and now.bound >= now.highest):
        voice.score(now.q, error / now.scale)
    believed = clipped_error(error, now.scale)
    clipped = believed != error
    model.clipped += clipped
    alarm = model.observe(source, surprised=abs(error) > SURPRISE * now.scale)
    if on_bound:
        model.miss(source, evidence.output_limit, error, missed=missed)
    switched = known.compare(category, Observed(evidence, actual, error, share), alarm=alarm)
    if switched is not None:
        return Lesson(clipped, started_anew=switched.learns, returned=not switched.learns)
    if clipped and extra is not None and extra.is_open:
        return Lesson(clipped=True)  # possibly a constant of the tenant's
    deviation = voice.deviation
    own = (1 - share) * now.residual if of_tenant else deviation
    # A source's own parameters affect nobody else: its error is believed in full, unless a counter is broken.
    alone = share * believed + (1 - share) * (error if abs(error) <= WILD else believed)
    errors = _Errors(believed + now.residual - deviation, alone, now.residual, now.doubt, text_bytes / actual)
    _learn_residuals(known, model, category, voice, errors, of_tenant=of_tenant)
    if on_bound:
        model.scale.learn(now.variance, now.factors, believed, share)
    weight = now.trust(model.residual.spread) * (1.0 if believed == error else believed / error)
    sound = model.prices.learn(x, now.tokens * exp(believed - own), weight, share)
    return Lesson(clipped, None if sound else Refused.NUMBERS)


class _Errors(msgspec.Struct, frozen=True, gc=False):
    """The errors that one response teaches residuals: `of_prices` the shared ones, `alone` the source's own.

    `of_prices` is log(actual / priced) without the source's deviation, `alone` the error of the estimate as the
    source believes it; `residual` was part of that estimate.
    """

    of_prices: float
    alone: float
    residual: float
    doubt: float
    bytes_per_token: float


def _learn_residuals(
    known: Knowledge, model: ServedModel, category: CategoryKey, voice: Voice, errors: _Errors, *, of_tenant: bool
) -> None:
    """Teach the category, the model, and all models; a tenant is a category by itself."""
    taught = model.prices.responses >= TAUGHT_RESPONSES
    parts, of_category = [model.residual, known.all_models], known.residuals.use(category)
    if of_tenant:
        of_category.learn(errors.alone + errors.residual, errors.doubt, errors.bytes_per_token, move_mean=taught)
    else:
        voice.learn(errors.alone, errors.doubt, of_category, move_mean=taught)
        parts.append(of_category)
    for part in parts:
        part.learn(errors.of_prices, errors.doubt, errors.bytes_per_token, move_mean=taught, weight=voice.weight)
