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
that, k with it, and the response is believed by as much less (Huber's weight on a clipped target: influence falls
as errors grow). So usage that is off by ten times, from a wrong counter or a prompt cut by the server, moves next
to nothing; usage that no tokenizer could make of the text is refused. Of a source that sends much, all this is
shared out between what is common and what is its own (voices.py). Where most of the last responses surprise, and
of most sources (sources.py), the tokenizer or template behind the name may be another: a rival with prior prices
learns beside the model, and takes its place when it predicts better (rivals.py). A miss does not count where no q
could have helped: of an error beyond WILD, as from a broken counter, or of a bound at its physical limit.

The units are tokens and bytes throughout; errors are natural logarithms of ratios. Time and space for each request
are constant: the text is looked at once, in at most 32 KB of samples, and a model is a 122 x 122 matrix.

Prior art, and what was rejected. One EMA of bytes per token (the paper, ema.py): text of mixed kinds has no one
ratio, and 20 % of requests exceed its margin. The same for each kind of text, even if told: wrong in every mixed
prompt. Byte classes without transitions: blind to the length of words, two to four times the error. Byte classes
without scripts and letter pairs: four times the error where scripts are mixed (docs/estimator.md). NLMS and
Sherman-Morrison RLS: see least_squares.py. A small neural network, untried: nothing to explain a decision with,
and no sums to merge.
"""

from collections.abc import Callable, Mapping
from math import exp, log

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.change import Change
from extproc.core.estimator.clipping import WILD
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import Features, features
from extproc.core.estimator.knowledge import KIND, Knowledge
from extproc.core.estimator.lessons import Lesson, teach
from extproc.core.estimator.prefixes import Known, PrefixMemory, Recalled
from extproc.core.estimator.protocol import CategoryKey, Estimate, LearnedState, Learning, Refused, Source
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import HEAD_BYTES
from extproc.core.estimator.text import TEXT_FEATURES, Counts, TextKind, look, main_script, text_kind
from extproc.core.estimator.voices import SMALL
from extproc.core.facts import RequestFacts
from extproc.core.names import bounded_name
from extproc.core.placing.stratum import declared_class
from extproc.core.usage import Overflow, Usage

__all__ = ["ByteClassEstimator"]


class ByteClassEstimator:
    """`estimator.kind: byteclass`; see the module for the algorithm.

    The vocabulary `left_out` is no part of the prior: so a new one is evaluated.
    """

    KIND = KIND

    def __init__(self, settings: EstimatorSettings, left_out: str = "") -> None:
        self._settings = settings
        self._known = Knowledge(settings, left_out)
        self._outputs = self._known.outputs
        self._prefixes = PrefixMemory(settings.byteclass.max_prefixes)
        self._remembers = settings.byteclass.max_prefixes > 0

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate a request: exact for token ids, else by the prices of its model."""
        model, recalled = self._known.aliases.get(facts.model) or self._known.untaught, None
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
        output = self._outputs.tokens(declared, category)
        mean = self._outputs.mean(category, declared=declared is not None)
        number = self._outputs.estimates
        if facts.exact_prompt_tokens is not None:
            exact = float(facts.exact_prompt_tokens)
            evidence = Evidence.of(facts, exact, number=number)
            return Estimate(exact, exact, output, declared is not None, Source.EXACT, category, evidence, mean)
        x, source = features(facts, counts), hash(tenant or facts.text[:HEAD_BYTES])
        if recalled is None or recalled.known is None:
            belief = self._known.believe(model, category, x, len(facts.text), source)
            extra = self._known.extras.get(category) if tenant else None
            tokens, bound = belief.tokens, belief.bound
            if model.misses.in_doubt:
                reach = model.misses.reach(declared_class(declared))
                bound = min(max(bound, tokens * exp(reach)), belief.highest)
            if extra is not None:
                tokens, bound = tokens + extra.tokens, bound + extra.tokens
        else:
            belief = self._believe_new(model, recalled, recalled.known, x, source)
            tokens, bound = recalled.known.tokens + belief.tokens, recalled.known.tokens + belief.bound
        evidence = Evidence.of(
            facts, tokens, x=x, recalled=recalled, of_tenant=bool(tenant), source=source, number=number
        )
        come_from = self._come_from(model, category)
        return Estimate(tokens, bound, output, declared is not None, come_from, category, evidence, mean)

    def prices(self, model: str) -> Features:
        """Return the prices of a model's features as they are now, learned or prior, in tokens."""
        return self._known.model(model).prices.weights

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Take in the base models of adapters, as pools report them; may be called on any thread."""
        self._known.aliases.parents = parents

    def undo(self, model: str) -> bool:
        """Put back what new prices of a model have replaced, and keep it for a thousand responses (rivals.py).

        False where nothing was replaced in this process since it began.
        """
        return self._known.undo(model)

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn prices, residual, bound and output length; the error in the result is that of before."""
        evidence, actual = estimate.evidence, usage.prompt_tokens
        if not isinstance(evidence, Evidence) or not evidence.accepts(usage, pool_tokens):
            return Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)
        if evidence.tells_output(usage):
            self._outputs.observe(
                estimate.category,
                usage.completion_tokens,
                cut=usage.cut_by_length,
                declared=estimate.output_declared,
                number=evidence.number,
            )
        truncated = evidence.truncated_by_pool(usage, pool_tokens)
        if truncated:
            self._known.aliases.use(estimate.category.model).truncated_by_pool += 1
        lesson = Lesson(refused=evidence.refused)
        if evidence.x is not None and lesson.refused is None:
            recalled = evidence.recalled
            on_bound = recalled is None or recalled.known is None
            model = self._known.aliases.use(estimate.category.model)
            lesson = teach(self._known, model, estimate.category, evidence, actual, on_bound=on_bound)
            recalled = self._prefixes.at_hand(recalled)
            if recalled is not None and not (lesson.started_anew or lesson.returned):
                self._learn_prefix(model, recalled, evidence, actual, clipped=lesson.clipped)
        return Learning(
            ratio=estimate.prompt_tokens / actual,
            under_counted=actual > estimate.prompt_bound,
            bytes_per_token=evidence.text_bytes / actual,
            clipped=lesson.clipped,
            refused=lesson.refused,
            truncated_by_pool=truncated,
            started_anew=lesson.started_anew,
            returned=lesson.returned,
        )

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: where it names more tokens than are believed, the truth is at least that."""
        evidence, at_least = estimate.evidence, overflow.at_least_prompt_tokens
        if not isinstance(evidence, Evidence) or evidence.refused or evidence.x is None or at_least is None:
            return
        extra = self._known.extras.get(estimate.category)
        category = estimate.category
        model = self._known.model(category.model)
        believed = self._known.believe(model, category, evidence.x, evidence.text_bytes, evidence.source).tokens
        if at_least > believed + (0.0 if extra is None else extra.tokens):
            teach(self._known, self._known.aliases.use(category.model), category, evidence, at_least)

    def state(self) -> LearnedState:
        """Return all that is learned; the category with an empty model is the parent of all models."""
        return LearnedState.joined([make() for make in self.parts()])

    def parts(self) -> list[Callable[[], LearnedState]]:
        """Return calls that each make a part of `state`: a model, or some rows."""
        return self._known.parts()

    def load(self, state: LearnedState) -> None:
        """Go on from what another byte-class estimator learned.

        Raises ConfigurationError for a state of another kind of estimator, over other features, or of numbers that
        are none; then nothing was taken over.
        """
        self._known.load(state)

    def shift(self, change: Change) -> Change:
        """Add what others have learned; return what of it could not be, because its row is another by now."""
        return self._known.shift(change)

    def _learn_prefix(
        self, model: ServedModel, recalled: Recalled, evidence: Evidence, actual: int, *, clipped: bool
    ) -> None:
        """Take in how long the new part of a conversation was, and remember the whole."""
        known, x = recalled.known, evidence.x
        assert x is not None, "what is learned from was looked at"
        if known is not None:
            now = self._believe_new(model, recalled, known, x, evidence.source)
            new_tokens = actual - known.tokens
            error = log(max(new_tokens, 1) / now.tokens)
            if new_tokens <= 0 or abs(error) > WILD:
                self._prefixes.forget(recalled.known_key)
            new_bytes = recalled.messages_bytes - known.messages_bytes
            voice, bytes_per_token = model.voices.known.get(evidence.source, SMALL), new_bytes / max(new_tokens, 1)
            model.continued.learn(now, error, bytes_per_token, model.residual, voice)
        if not clipped:
            self._prefixes.learn(recalled, actual, x)

    def _believe_new(
        self, model: ServedModel, recalled: Recalled, known: Known, x: Features, source: int
    ) -> Belief:
        new_bytes = recalled.messages_bytes - known.messages_bytes
        continued, voice = model.continued, model.voices.known.get(source, SMALL)
        residual = voice.beside(continued.residual or model.residual)
        return believe(x - known.x, new_bytes, continued, residual, more_q=voice.q)

    def _come_from(self, model: ServedModel, category: CategoryKey) -> Source:
        residual = self._known.residuals.get(category)
        if model.prices.responses == 0:
            return Source.PRIOR
        young = residual is None or residual.responses < self._settings.young_observations
        return Source.YOUNG if young else Source.LEARNED


def _kind(counts: Counts) -> str:
    """Return the kind of a text as a category: its script where that is most of it, else Latin or markup."""
    return _OF_LATIN.get(text_kind(counts)) or main_script(counts).name.lower()


_OF_LATIN = {kind: kind.value for kind in (TextKind.LATIN, TextKind.MARKUP, TextKind.NONE)}
