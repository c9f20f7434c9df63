"""Prompt tokens from classes of bytes: prices by least squares, a residual per category, a bound with a promise.

The problem. A router must know a prompt's tokens before any tokenizer sees it, for models whose vocabulary it does
not have. The answer's usage tells, afterwards and for some requests, what the prompt really cost.

The idea. Tokens are a sum over what stands in the text: so much for a Han character, so much for each word that
begins. What differs between models is the prices. So, with x the features of a request (features.py: counts of
byte classes, of transitions between them, and of structure):

    1. priced   = w.x                       w: least squares on relative error, one per model (least_squares.py)
    2. estimate = priced * exp(r)           r: exponential mean of log(actual / priced) per category (residual.py)
    3. bound    = estimate * exp(q * s)     q: adaptive conformal inference, one per model (bound.py)
       s^2      = spread^2 + doubt          what the category scatters; what the prices do not know yet (leverage)
                                            and the grain of counting: k tokens scatter by sqrt(GRAIN k)
    4. each lies within physical limits: no tokenizer in use makes more than one token of a byte of text, or fewer
       than one of 16; what is not text costs at most OVERHEAD times its price, prior or learned, and
       TEMPLATE_TOKENS.

After an answer with k prompt tokens and the error e = log(k / estimate): the bound hears whether k was above it, r
and the spread take in e + r, the prices take in (x, k). An error beyond CLIP_SCALES standard deviations, or a
factor of 2, is clipped to that, k with it, and the answer is believed by as much less (Huber's weight on a clipped
target, so that influence falls as errors grow). So usage that is off by ten times, from a wrong counter or a
prompt cut by the server, moves next to nothing. Where most of the last answers are beyond belief, it is the model
that is wrong (another tokenizer or template behind the same name): its prices start anew, and answers are believed
as they are. An error beyond WILD does not count as a miss of the bound: no bound holds against a broken counter.

The units are tokens and bytes throughout; errors are natural logarithms of ratios. Time and space for each request
are constant: the text is looked at once, in at most 32 KB of samples, and a model is a 45 x 45 matrix.

Prior art, and what was rejected. One EMA of bytes per token (the paper, ema.py): text of mixed kinds has no one
ratio, and 20 % of requests exceed its margin. The same for each kind of text, even if told: wrong in every mixed
prompt. Byte classes without transitions: blind to the length of words, two to four times the error. NLMS and
Sherman-Morrison RLS: see least_squares.py. A small neural network, untried: nothing to explain a decision with,
and no sums to merge.
"""

from dataclasses import dataclass, field
from math import exp, log, sqrt

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.categories import MAX_KEY_CHARS, CappedMap
from extproc.core.estimator.features import FEATURE_NAMES, Features, features, prior, structure_tokens
from extproc.core.estimator.protocol import (
    CategoryKey,
    CategoryState,
    Estimate,
    LearnedState,
    Learning,
    Source,
)
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import RequestFacts
from extproc.core.output_lengths import OutputLengths, truncated_by_pool
from extproc.core.text import digrams, text_kind
from extproc.core.usage import Overflow, Usage

__all__ = ["ByteClassEstimator"]

MAX_BYTES_PER_TOKEN = 16.0
OVERHEAD = 4.0
TEMPLATE_TOKENS = 256.0
MAX_FACTOR = 1_000  # usage further from the estimate than this is no usage
GRAIN = 0.5
CLIP_SCALES = 5.0
MIN_CLIP = 0.1
MAX_CLIP = log(2)
WILD = log(4)
# The prices of a model are taught after so many answers; until then residuals keep their mean.
TAUGHT_ANSWERS = 100


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an estimate remembers of its request; where nothing can be learned, `refused` says why.

    `tokens` is the estimate, `residual` the r in it, `x` is None for prompts that need no price.
    """

    x: Features | None = field(compare=False)  # arrays have no one equality
    refused: str | None
    tokens: float
    residual: float
    doubt: float
    text_bytes: int
    sequences: int

    def scale(self, spread: float) -> float:
        """Return s, the standard deviation of log(actual / estimate) as believed."""
        return sqrt(spread * spread + self.doubt)


class ByteClassEstimator:
    """`estimator.kind: byteclass`; see the module for the algorithm. `text_prices` replace the prior's."""

    KIND = "byteclass"

    def __init__(self, settings: EstimatorSettings, text_prices: Features | None = None) -> None:
        self._settings = settings
        self._prior = prior(settings.media_tokens, text_prices)
        self._all_models = Residual()
        self._models: CappedMap[str, ServedModel] = CappedMap(settings.max_models, self._new_model)
        self._residuals: CappedMap[CategoryKey, Residual] = CappedMap(
            settings.max_categories, lambda key: self._model(key.model).residual.child()
        )
        self._outputs = OutputLengths(
            settings.output_epsilon, settings.default_output_tokens, settings.max_categories
        )

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate a request: exact for token ids, else by the prices of its model."""
        counts = digrams(facts.text)
        model_name = facts.model[:MAX_KEY_CHARS]
        category = CategoryKey(model_name, tenant[:MAX_KEY_CHARS] or text_kind(counts).value)
        output = self._output_tokens(facts, category)
        declared = facts.max_output_tokens is not None
        if facts.exact_prompt_tokens is not None:
            exact = float(facts.exact_prompt_tokens)
            evidence = Evidence(None, "exact", exact, 0.0, 0.0, facts.text_bytes, facts.sequences)
            return Estimate(exact, exact, output, declared, Source.EXACT, category, evidence)
        model = self._model(model_name)
        residual = self._residuals.get(category) or model.residual
        x = features(facts, counts)
        lowest, highest = self._limits(facts.text_bytes, x, model.prices.weights)
        tokens = min(max(model.prices.predict(x) * residual.factor, lowest), highest)
        doubt = model.prices.leverage(x / tokens) + GRAIN / tokens
        evidence = Evidence(
            x, _unteachable(facts), tokens, residual.mean, doubt, facts.text_bytes, facts.sequences
        )
        bound = min(model.bound.above(tokens, evidence.scale(residual.spread)), highest)
        return Estimate(tokens, bound, output, declared, self._source(category), category, evidence)

    def prices(self, model: str) -> Features:
        """Return the prices of a model's features as they are now, learned or prior, in tokens."""
        return self._model(model[:MAX_KEY_CHARS]).prices.weights

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn prices, residual, bound and output length; the error in the result is that of before."""
        evidence, actual = estimate.evidence, usage.prompt_tokens
        if not isinstance(evidence, Evidence) or not 0 < actual <= MAX_FACTOR * evidence.tokens:
            return Learning(0.0, under_counted=False, bytes_per_token=0.0, refused="implausible")
        truncated = truncated_by_pool(usage, pool_tokens)
        if evidence.sequences == 1:  # usage reports all sequences together
            self._outputs.observe(estimate.category, usage.completion_tokens, cut=usage.cut_by_length)
        if truncated:
            self._models.use(estimate.category.model).truncated_by_pool += 1
        clipped = evidence.refused is None and self._learn(estimate, evidence, actual)
        return Learning(
            ratio=estimate.prompt_tokens / actual,
            under_counted=actual > estimate.prompt_bound,
            bytes_per_token=evidence.text_bytes / actual,
            clipped=clipped,
            refused=evidence.refused,
            truncated_by_pool=truncated,
        )

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: where it names more tokens than were estimated, the truth is at least that."""
        evidence, at_least = estimate.evidence, overflow.at_least_prompt_tokens
        if isinstance(evidence, Evidence) and evidence.refused is None and (at_least or 0) > evidence.tokens:
            assert at_least is not None
            self._learn(estimate, evidence, at_least)

    def state(self) -> LearnedState:
        """Return all that is learned; the category with an empty model is the parent of all models."""
        residuals = list(self._residuals)
        if self._all_models.answers:
            residuals.append((CategoryKey("", ""), self._all_models))
        return LearnedState(
            self.KIND,
            tuple(CategoryState(key, r.bytes_per_token, 0.0, r.answers, r.mean, r.spread) for key, r in residuals),
            FEATURE_NAMES,
            tuple(model.state(name) for name, model in self._models),
            self._outputs.state(),
        )

    def load(self, state: LearnedState) -> None:
        """Go on from what another byte-class estimator learned.

        Raises ConfigurationError for a state of another kind of estimator, or over other features.
        """
        if state.estimator_kind != self.KIND:
            raise ConfigurationError(
                f"learned state is of kind {state.estimator_kind!r}; this router has {self.KIND!r}"
            )
        if state.features != FEATURE_NAMES:
            raise ConfigurationError(f"learned state is over {len(state.features)} other features")
        self._outputs.load(state.outputs)
        for row in state.models:
            self._models.use(row.model).load(row)
        for category in state.categories:
            residual = Residual(
                category.residual, category.spread, category.bytes_per_token, category.observations
            )
            if category.category.model:
                self._residuals.put(category.category, residual)
            else:
                self._all_models = residual

    def _learn(self, estimate: Estimate, evidence: Evidence, actual: int) -> bool:
        """Take in one answer; return whether its error was clipped."""
        assert evidence.x is not None
        model = self._models.use(estimate.category.model)
        residual = self._residuals.use(estimate.category)
        error = log(actual / evidence.tokens)
        if abs(error) <= WILD:
            model.bound.observe(missed=actual > estimate.prompt_bound)
        limit = min(max(MIN_CLIP, CLIP_SCALES * evidence.scale(residual.spread)), MAX_CLIP)
        clipped = abs(error) > limit
        believed = error
        if not model.is_wrong(clipped=clipped):
            believed = min(max(error, -limit), limit)
        taught = model.prices.answers >= TAUGHT_ANSWERS
        for part in (residual, model.residual, self._all_models):
            part.learn(
                believed + evidence.residual, evidence.doubt, evidence.text_bytes / actual, move_mean=taught
            )
        weight = believed / error if clipped else 1.0
        model.prices.learn(evidence.x, evidence.tokens * exp(believed), weight)
        model.clipped += clipped
        return clipped

    def _limits(self, text_bytes: int, x: Features, prices: Features) -> tuple[float, float]:
        """Return the fewest and the most tokens that the request can have."""
        beside_text = max(structure_tokens(x, self._prior.mean), structure_tokens(x, prices))
        return max(text_bytes / MAX_BYTES_PER_TOKEN, 1.0), text_bytes + OVERHEAD * beside_text + TEMPLATE_TOKENS

    def _model(self, name: str) -> ServedModel:
        """Return a model to look at: one that no answer made known is not kept, since names come from clients."""
        return self._models.get(name) or self._new_model(name)

    def _new_model(self, _name: str) -> ServedModel:
        return ServedModel(self._prior, self._settings.byteclass, self._all_models.child())

    def _output_tokens(self, facts: RequestFacts, category: CategoryKey) -> int:
        declared = facts.max_output_tokens
        if declared is None:
            return self._outputs.expected(category)
        learned = self._outputs.learned(category) if self._settings.cap_output_tokens else None
        return declared if learned is None else min(declared, learned)

    def _source(self, category: CategoryKey) -> Source:
        model, residual = self._models.get(category.model), self._residuals.get(category)
        if model is None or model.prices.answers == 0:
            return Source.PRIOR
        young = residual is None or residual.answers < self._settings.young_observations
        return Source.YOUNG if young else Source.LEARNED


def _unteachable(facts: RequestFacts) -> str | None:
    """Say why the usage of a request will not tell what its text costs; None when it will."""
    if facts.truncate_prompt_tokens is not None:
        return "truncated"
    return "unseen_history" if facts.unseen_history else None
