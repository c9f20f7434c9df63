"""Prompt tokens from classes of bytes: prices by least squares, a residual per category, a bound with a promise.

The problem. A router must know a prompt's tokens before any tokenizer sees it, for models whose vocabulary it does
not have. The response's usage tells, afterwards and for some requests, what the prompt really cost.

The idea. Tokens are a sum over what stands in the text: so much for a Han character, so much for each word that
begins. What differs between models is the prices. So, with x the features of a request (features.py: counts of
byte classes, of transitions between them, of scripts, letter pairs and runs, and of structure):

    1. priced   = w.x                       w: least squares on relative error, one per model (least_squares.py)
    2. estimate = priced * exp(r)           r: exponential mean of log(actual / priced) per category (residual.py)
    3. bound    = estimate * exp(q * s)     q: adaptive conformal inference, one per model (bound.py)
       s^2      = s0^2 exp(t.f)             t: log-linear in size, leverage, ... of this request (scale.py)
       s0^2     = spread^2 + doubt          what the category scatters; what the prices do not know yet (leverage)
                                            and the grain of counting: k tokens scatter by sqrt(GRAIN k)
    4. each lies within physical limits: no tokenizer in use makes more than one token of a byte of text, or fewer
       than one of 16 (of padding, of 128); what is not text costs at most OVERHEAD times its price, prior or
       learned, and TEMPLATE_TOKENS. (belief.py does these four.)

After a response with k prompt tokens the request is estimated once more, by the model as it is now: hundreds of
requests may be on their way at a time, and what the first responses taught must not be learned again from each of
the others. With the error e = log(k / estimate): the bound hears whether k was above it, r and the spread take in
e + r, the prices take in (x, k). An error beyond CLIP_SCALES standard deviations, or a factor of 2, is clipped to
that, k with it, and the response is believed by as much less (Huber's weight on a clipped target: influence
falls as errors grow). So usage that is off by ten times, from a wrong counter or a prompt cut by the server,
moves next to nothing; usage that no tokenizer could make of the text is refused. Where most of the last responses
are beyond belief, and of most sources (sources.py), it is the model that is wrong (another tokenizer or template
behind the same name): prices, residuals, scale and bound start anew, and responses are believed as they are. A
miss does not count where no q could have helped: of an error beyond WILD, as from a broken counter, or of a bound
at its physical limit.

The units are tokens and bytes throughout; errors are natural logarithms of ratios. Time and space for each request
are constant: the text is looked at once, in at most 32 KB of samples, and a model is a 119 x 119 matrix.

Prior art, and what was rejected. One EMA of bytes per token (the paper, ema.py): text of mixed kinds has no one
ratio, and 20 % of requests exceed its margin. The same for each kind of text, even if told: wrong in every mixed
prompt. Byte classes without transitions: blind to the length of words, two to four times the error. Byte classes
without scripts and letter pairs: four times the error where scripts are mixed (docs/estimator.md). NLMS and
Sherman-Morrison RLS: see least_squares.py. A small neural network, untried: nothing to explain a decision with,
and no sums to merge.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import exp, log

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.aliases import Aliases
from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import Change, ModelChange, RowChange, in_bites
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.extra import Extra
from extproc.core.estimator.features import FEATURE_NAMES, Features, features
from extproc.core.estimator.output_lengths import OutputLengths, Outputs, states_of
from extproc.core.estimator.prefixes import Known, PrefixMemory, Recalled
from extproc.core.estimator.prices import prior
from extproc.core.estimator.protocol import (
    CategoryKey,
    CategoryState,
    Estimate,
    LearnedState,
    Learning,
    Refused,
    Source,
)
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel, need_finite
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.text import TEXT_FEATURES, Counts, TextKind, look, main_script, text_kind
from extproc.core.facts import RequestFacts
from extproc.core.names import bounded_name
from extproc.core.usage import Overflow, Usage

__all__ = ["ByteClassEstimator"]

CLIP_SCALES = 5.0
MIN_CLIP = 0.1
MAX_CLIP = log(2)
WILD = log(4)
# The prices of a model are taught after so many responses; until then residuals keep their mean.
TAUGHT_RESPONSES = 100


class ByteClassEstimator:
    """`estimator.kind: byteclass`; see the module for the algorithm. `text_prices` replace the prior's."""

    KIND = "byteclass"

    def __init__(self, settings: EstimatorSettings, text_prices: Features | None = None) -> None:
        self._settings = settings
        self._prior = prior(settings.media_tokens, text_prices)
        self._all_models = Residual()
        self._models: CappedMap[str, ServedModel] = CappedMap(settings.max_models, self._new_model)
        self._aliases = Aliases(self._models, settings.max_models)
        # What is looked at of models that no response made known: those are not kept, since names are clients'.
        self._untaught = ServedModel(self._prior, settings.byteclass, self._all_models)
        self._residuals: CappedMap[CategoryKey, Residual] = CappedMap(
            settings.max_categories, lambda key: self._parent(key.model).child()
        )
        self._extras: CappedMap[CategoryKey, Extra] = CappedMap(settings.max_categories, lambda _: Extra())
        self._outputs = OutputLengths(settings)
        self._prefixes = PrefixMemory(settings.byteclass.max_prefixes)
        self._remembers = settings.byteclass.max_prefixes > 0

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate a request: exact for token ids, else by the prices of its model."""
        model, recalled = self._models.get(facts.model) or self._aliases.get(facts.model) or self._untaught, None
        if facts.turns and self._remembers and facts.exact_prompt_tokens is None:
            recalled = self._prefixes.recall(facts, tenant, model.generation)
        if recalled is None or recalled.known is None:
            counts = look(facts.text)
        else:
            known = recalled.known
            new_text = facts.text[known.messages_bytes : recalled.messages_bytes]
            counts = known.x[:TEXT_FEATURES] + look(new_text)
        category = CategoryKey(facts.model, bounded_name(tenant) if tenant else _kind(counts))
        declared = facts.max_output_tokens
        output, mean = self._outputs.tokens(declared, category), self._outputs.mean(category)
        if facts.exact_prompt_tokens is not None:
            exact = float(facts.exact_prompt_tokens)
            evidence = Evidence.of(facts, exact)
            return Estimate(exact, exact, output, declared is not None, Source.EXACT, category, evidence, mean)
        x, residual = features(facts, counts), self._residuals.get(category)
        if recalled is None or recalled.known is None:
            parent, extra = residual or self._parent(facts.model), self._extras.get(category) if tenant else None
            belief = believe(x, len(facts.text), model, parent, self._prior.mean)
            tokens, bound = belief.tokens, belief.bound
            if extra is not None:
                tokens, bound = tokens + extra.tokens, bound + extra.tokens
        else:
            belief = self._believe_new(model, recalled, recalled.known, x)
            tokens, bound = recalled.known.tokens + belief.tokens, recalled.known.tokens + belief.bound
        evidence = Evidence.of(facts, tokens, x=x, recalled=recalled, tenant=tenant)
        source = self._source(model, residual)
        return Estimate(tokens, bound, output, declared is not None, source, category, evidence, mean)

    def prices(self, model: str) -> Features:
        """Return the prices of a model's features as they are now, learned or prior, in tokens."""
        return (self._aliases.get(model) or self._untaught).prices.weights

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Take in the base models of adapters, as pools report them; may be called on any thread."""
        self._aliases.parents = parents

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn prices, residual, bound and output length; the error in the result is that of before."""
        evidence, actual = estimate.evidence, usage.prompt_tokens
        if not isinstance(evidence, Evidence) or not evidence.accepts(usage, pool_tokens):
            return Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)
        if evidence.tells_output(usage):
            self._outputs.observe(estimate.category, usage.completion_tokens, cut=usage.cut_by_length)
        truncated = evidence.truncated_by_pool(usage, pool_tokens)
        if truncated:
            self._aliases.use(estimate.category.model).truncated_by_pool += 1
        clipped, started_anew, refused = False, False, evidence.refused
        if evidence.x is not None and refused is None:
            recalled = evidence.recalled
            on_bound = recalled is None or recalled.known is None
            model = self._aliases.use(estimate.category.model)
            generation = model.generation
            clipped, refused = self._learn(model, estimate.category, evidence, actual, on_bound=on_bound)
            started_anew = model.generation != generation
            recalled = self._prefixes.at_hand(recalled)
            if recalled is not None:
                self._learn_prefix(model, recalled, evidence.x, actual, clipped=clipped)
        return Learning(
            ratio=estimate.prompt_tokens / actual,
            under_counted=actual > estimate.prompt_bound,
            bytes_per_token=evidence.text_bytes / actual,
            clipped=clipped,
            refused=refused,
            truncated_by_pool=truncated,
            started_anew=started_anew,
        )

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: where it names more tokens than are believed, the truth is at least that."""
        evidence, at_least = estimate.evidence, overflow.at_least_prompt_tokens
        if not isinstance(evidence, Evidence) or evidence.refused or evidence.x is None or at_least is None:
            return
        extra = self._extras.get(estimate.category)
        believed = self._believe(estimate.category, evidence.x, evidence.text_bytes).tokens
        if at_least > believed + (0.0 if extra is None else extra.tokens):
            self._learn(self._aliases.use(estimate.category.model), estimate.category, evidence, at_least)

    def state(self) -> LearnedState:
        """Return all that is learned; the category with an empty model is the parent of all models."""
        return LearnedState.joined([make() for make in self.parts()])

    def parts(self) -> list[Callable[[], LearnedState]]:
        """Return calls that each make a part of `state`: a model, or some rows."""
        residuals = list(self._residuals)
        if self._all_models.responses:
            residuals.append((CategoryKey("", ""), self._all_models))
        return [
            self._part,
            *(partial(self._part_of_model, name, model) for name, model in self._models),
            *(partial(self._part, residuals=rows) for rows in in_bites(residuals)),
            *(partial(self._part, outputs=rows) for rows in in_bites(self._outputs.rows())),
        ]

    def _part(self, residuals: Sequence[tuple[CategoryKey, Residual]] = (), outputs: Outputs = ()) -> LearnedState:
        rows = (CategoryState(k, r.bytes_per_token, 0.0, r.responses, r.mean, r.spread) for k, r in residuals)
        return LearnedState(self.KIND, tuple(rows), FEATURE_NAMES, outputs=states_of(outputs))

    def _part_of_model(self, name: str, model: ServedModel) -> LearnedState:
        return LearnedState(self.KIND, features=FEATURE_NAMES, models=(model.state(name),))

    def load(self, state: LearnedState) -> None:
        """Go on from what another byte-class estimator learned.

        Raises ConfigurationError for a state of another kind of estimator, over other features, or of numbers that
        are none; then nothing was taken over.
        """
        if state.estimator_kind != self.KIND:
            raise ConfigurationError(
                f"learned state is of kind {state.estimator_kind!r}; this router has {self.KIND!r}"
            )
        if state.features != FEATURE_NAMES:
            raise ConfigurationError(f"learned state is over {len(state.features)} other features")
        for category in state.categories:
            need_finite(category.category.model, category.residual, category.spread, category.bytes_per_token)
        models = [(row, self._new_model(row.model)) for row in state.models]
        for row, model in models:
            model.load(row)
        self._outputs.load(state.outputs)
        for row, model in models:
            self._models.put(row.model, model)
        for category in state.categories:
            residual = Residual(
                category.residual, category.spread, category.bytes_per_token, category.observations
            )
            if category.category.key:
                self._residuals.put(category.category, residual)
            elif not category.category.model:
                self._all_models = residual

    def shift(self, change: Change) -> Change:
        """Add what others have learned; return what of it could not be, because its row is another by now."""
        return Change(
            tuple(row for row in change.models if not self._shift_model(row)),
            tuple(row for row in change.categories if not self._shift_residual(row)),
            tuple(row for row in change.outputs if not self._outputs.shift(row)),
        )

    def _shift_model(self, change: ModelChange) -> bool:
        model = self._models.get(change.model)
        if model is None:
            if change.since or len(self._models) >= self._settings.max_models:
                return False
            model = self._new_model(change.model)
            self._models.put(change.model, model)
            model.generation = change.from_generation
        if model.generation != change.from_generation or model.prices.responses < change.since:
            return False
        model.shift(change)
        return True

    def _shift_residual(self, change: RowChange) -> bool:
        residual = self._residual_to_shift(change)
        if residual is None or residual.responses < change.since:
            return False
        bytes_per_token, _, mean, variance = change.values.tolist()
        residual.shift(mean, variance, bytes_per_token, change.responses, change.since)
        return True

    def _residual_to_shift(self, change: RowChange) -> Residual | None:
        key = change.key
        if not key.key:  # a model's, or that of all models
            model = self._models.get(key.model)
            return self._all_models if not key.model else None if model is None else model.residual
        residual = self._residuals.get(key)
        if residual is None and not change.since and len(self._residuals) < self._settings.max_categories:
            residual = Residual(spread=0.0)
            self._residuals.put(key, residual)
        return residual

    def _learn(
        self,
        model: ServedModel,
        category: CategoryKey,
        evidence: Evidence,
        actual: float,
        *,
        on_bound: bool = True,
    ) -> tuple[bool, Refused | None]:
        """Take in one response; return whether its error was clipped, and why the prices refused it, if so.

        Without `on_bound` the request was not routed on the bound of the whole, whose q hears nothing of it.
        """
        x, text_bytes = evidence.x, evidence.text_bytes
        assert x is not None, "what is learned from was looked at"
        now = self._believe(category, x, text_bytes)
        extra = self._extras.use(category) if evidence.of_tenant else None
        if extra is not None:
            extra.learn(now.tokens / exp(now.residual), actual)
            actual = max(actual - extra.tokens, 1.0)
        error = log(actual / now.tokens)
        missed = actual > now.bound
        if on_bound and abs(error) <= WILD and not (missed and now.bound >= now.highest):
            model.bound.observe(missed=missed)
        limit = min(max(MIN_CLIP, CLIP_SCALES * now.scale), MAX_CLIP)
        clipped = abs(error) > limit
        model.clipped += clipped
        if model.observe(evidence.source, clipped=clipped):
            self._start_anew(category.model, model)
            now = self._believe(category, x, text_bytes)
            error = log(actual / now.tokens)
        elif clipped and extra is not None and extra.is_open and not model.is_wrong:
            return True, None  # a constant of the tenant's, perhaps
        believed = error if model.is_wrong else min(max(error, -limit), limit)
        taught = model.prices.responses >= TAUGHT_RESPONSES
        for part in (self._residuals.use(category), model.residual, self._all_models):
            part.learn(believed + now.residual, now.doubt, text_bytes / actual, move_mean=taught)
        if on_bound:
            model.scale.learn(now.variance, now.factors, believed)
        weight = 1.0 if believed == error else believed / error
        sound = model.prices.learn(x, now.tokens * exp(believed), weight)
        return clipped, None if sound else Refused.NUMBERS

    def _learn_prefix(
        self, model: ServedModel, recalled: Recalled, x: Features, actual: int, *, clipped: bool
    ) -> None:
        """Take in how long the new part of a conversation was, and remember the whole."""
        known = recalled.known
        if known is not None:
            now = self._believe_new(model, recalled, known, x)
            new_tokens = actual - known.tokens
            error = log(max(new_tokens, 1) / now.tokens)
            if new_tokens <= 0 or abs(error) > WILD:
                self._prefixes.forget(recalled.known_key)
            new_bytes = recalled.messages_bytes - known.messages_bytes
            bytes_per_token, missed = new_bytes / max(new_tokens, 1), new_tokens > now.bound
            model.continued.learn(now, error, bytes_per_token, model.residual, missed=missed)
        if not clipped:
            self._prefixes.learn(recalled, actual, x)

    def _believe_new(self, model: ServedModel, recalled: Recalled, known: Known, x: Features) -> Belief:
        new_bytes = recalled.messages_bytes - known.messages_bytes
        continued = model.continued
        return believe(x - known.x, new_bytes, continued, continued.residual or model.residual, self._prior.mean)

    def _start_anew(self, name: str, model: ServedModel) -> None:
        model.start_anew()
        key = self._aliases.key(name)
        for categories in (self._residuals, self._extras):
            categories.drop(lambda of: self._aliases.key(of.model) == key)

    def _believe(self, category: CategoryKey, x: Features, text_bytes: int) -> Belief:
        model = self._aliases.get(category.model) or self._untaught
        residual = self._residuals.get(category) or self._parent(category.model)
        return believe(x, text_bytes, model, residual, self._prior.mean)

    def _parent(self, model: str) -> Residual:
        """Return what a new category of the model starts from."""
        known = self._aliases.get(model)
        return self._all_models.child() if known is None else known.residual

    def _new_model(self, _name: str) -> ServedModel:
        return ServedModel(self._prior, self._settings.byteclass, self._all_models.child())

    def _source(self, model: ServedModel, residual: Residual | None) -> Source:
        if model.prices.responses == 0:
            return Source.PRIOR
        young = residual is None or residual.responses < self._settings.young_observations
        return Source.YOUNG if young else Source.LEARNED


def _kind(counts: Counts) -> str:
    """Return the kind of a text as a category: its script where that is most of it, else Latin or markup."""
    return _OF_LATIN.get(text_kind(counts)) or main_script(counts).name.lower()


_OF_LATIN = {kind: kind.value for kind in (TextKind.LATIN, TextKind.MARKUP, TextKind.NONE)}
