"""Prompt tokens from classes of bytes: prices by least squares, residuals by category, a bound that holds.

The problem. A router must know a prompt's tokens before any tokenizer sees the prompt, for models whose vocabulary
it does not have. Only the usage in the response, afterwards and for some requests, says what the prompt really
cost.

The idea. The token count is a sum over what the text contains: so much for a Han character, so much for each word
that begins. Models differ only in the prices. So, with x the features of a request (features.py: counts of byte
classes, of transitions between them, of scripts, letter pairs and runs, and of structure):

    1. priced   = w.x                       w: least squares on relative error, one per model (least_squares.py)
    2. estimate = priced * exp(r)           r: exponential mean of log(actual / priced) per category (residual.py)
    3. bound    = estimate * exp(q * s)     q: adaptive conformal inference, one per model for text, one for
                                            requests with media (bound.py)
       s^2      = s0^2 exp(t.f)             t: log-linear in size, leverage, ... of this request (scale.py)
       s0^2     = spread^2 + doubt          spread: how much the category scatters; doubt: what the prices do not
                                            know yet (leverage) plus the granularity of counting: k tokens
                                            scatter by sqrt(GRAIN k)
    4. all stay within physical limits: no tokenizer in use makes more than one token per byte of text, or fewer
       than one per 16 bytes (of padding, 128); everything that is not text costs at most OVERHEAD times its
       price, prior or learned, plus TEMPLATE_TOKENS. (belief.py implements these four steps.)

After a response with k prompt tokens the request is estimated again, by the model in its current state: hundreds
of requests may be in flight at a time, and what the first responses taught must not be learned again from each of
the others. With the error e = log(k / estimate): q learns whether k exceeded the bound, r and the spread take in e
+ r, the prices take in (x, k). An error of more than CLIP_SCALES standard deviations, or of a factor of 2, is
clipped to that, and k with it; the weight of the response is reduced by the same ratio (Huber's weight on a
clipped target: influence falls as errors grow). So usage that is off by ten times, from a wrong counter or a
prompt cut by the server, has almost no effect; usage that no tokenizer could make of the text is refused. If one
source sends much of the traffic, each of its errors is split between the shared parameters and its own
(voices.py). If most of the latest responses have surprisingly large errors, and most sources agree (sources.py),
the tokenizer or template behind the name may have changed: a rival with prior prices learns alongside the model,
and replaces it when it predicts better (rivals.py). A miss does not count if no q could have prevented it: an
error beyond WILD, as from a broken counter, or a bound at its physical limit.

The units are tokens and bytes throughout; errors are natural logarithms of ratios. Time and space per request are
constant: the text is scanned once, in at most 32 KB of samples, and a model is a 122 x 122 matrix.

Prior art, and what was rejected. One EMA of bytes per token (the paper, ema.py): text of mixed kinds has no single
ratio, and 20 % of requests exceed its margin. One EMA for each kind of text, even if the kind is given: wrong for
every mixed prompt. Byte classes without transitions: blind to the length of words, two to four times the error.
Byte classes without scripts and letter pairs: four times the error on mixed scripts (docs/estimator.md). NLMS and
Sherman-Morrison RLS: see least_squares.py. A small neural network, untried: nothing to explain a decision with,
and no sums to merge.
"""

from collections.abc import Callable, Mapping
from math import exp, log

import numpy as np

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.change import Change
from extproc.core.estimator.clipping import WILD
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import OF_KIND, Features, features
from extproc.core.estimator.kinds import SCRIPT_KEYS, tenant_key
from extproc.core.estimator.knowledge import Knowledge
from extproc.core.estimator.lessons import Lesson, teach
from extproc.core.estimator.prefixes import Known, PrefixMemory, Recalled
from extproc.core.estimator.protocol import CategoryKey, Estimate, LearnedState, Learning, Refused, Source
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import source_of
from extproc.core.estimator.text import TEXT_FEATURES, TextKind, kind_of, look, main_script
from extproc.core.estimator.voices import SMALL
from extproc.core.facts import RequestFacts
from extproc.core.placing.stratum import declared_class
from extproc.core.usage import Overflow, Usage

__all__ = ["ByteClassEstimator"]


class ByteClassEstimator:
    """`estimator.kind: byteclass`; see the module for the algorithm.

    The vocabulary `left_out` is excluded from the prior, so that an evaluation can treat it as a new one.
    """

    def __init__(self, settings: EstimatorSettings, left_out: str = "") -> None:
        self._settings = settings
        self._known = Knowledge(settings, left_out)
        self._outputs = self._known.outputs
        self._prefixes = PrefixMemory(settings.byteclass.max_prefixes)
        self._remembers = settings.byteclass.max_prefixes > 0

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate a request: exactly for token ids, otherwise by the prices of its model."""
        model, recalled, other = self._known.aliases.get(facts.model) or self._known.untaught, None, None
        if facts.unused_tools_bytes:
            facts, other = model.unused_tools.both_ways(facts)
        if facts.turns and self._remembers and facts.exact_prompt_tokens is None:
            recalled = self._prefixes.recall(facts, tenant, model.generation)
        if recalled is None or recalled.known is None:
            counts = look(facts.text)
        else:
            known = recalled.known
            new_text = facts.text[known.messages_bytes : recalled.messages_bytes]
            counts = known.x[:TEXT_FEATURES] + look(new_text)
        x = features(facts, counts)
        sums = model.views.of(x, model.prices.weights)
        kind = None if tenant else kind_of(sums[OF_KIND])
        key = tenant_key(tenant) if kind is None else _LATIN.get(kind) or SCRIPT_KEYS[main_script(counts)]
        category = CategoryKey(facts.model, key)
        declared = facts.max_output_tokens
        source = source_of(tenant, facts.text)
        output = self._outputs.tokens(declared, category, source)
        mean = self._outputs.mean(category, source, declared=declared is not None)
        number = self._outputs.number
        if facts.exact_prompt_tokens is not None:
            exact = float(facts.exact_prompt_tokens)
            evidence = Evidence.of(facts, exact, source=source, number=number)
            return Estimate(exact, exact, output, declared is not None, Source.EXACT, category, evidence, mean)
        if recalled is None or recalled.known is None:
            belief = self._known.believe(model, category, x, len(facts.text), source, sums=sums)
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
            *(facts, tokens), x=x, recalled=recalled, of_tenant=bool(tenant), source=source, number=number,
            other_tokens=0.0 if other is None else self._known.tokens(other, category, source),
        )  # fmt: skip
        come_from = self._known.come_from(model, category)
        return Estimate(tokens, bound, output, declared is not None, come_from, category, evidence, mean)

    def prices(self, model: str) -> Features:
        """Return the current prices of a model's features, learned or prior, in tokens."""
        return self._known.model(model).prices.weights

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Store the base models of adapters, as pools report them; may be called on any thread."""
        self._known.aliases.parents = parents

    def undo(self, model: str) -> bool:
        """Restore the model that new prices replaced, and keep it in place for a thousand responses (rivals.py).

        Return False if nothing was replaced since this process started.
        """
        return self._known.undo(model)

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn prices, residual, bound and output length; the returned error is the one before learning."""
        evidence, actual = estimate.evidence, usage.prompt_tokens
        if not isinstance(evidence, Evidence) or not evidence.accepts(usage, pool_tokens):
            return Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)
        if evidence.shows_length(usage):
            self._outputs.observe(
                estimate.category,
                usage.completion_tokens,
                cut=usage.cut_by_length,
                declared=estimate.output_declared,
                number=evidence.number,
                source=evidence.source,
            )
        truncated = evidence.truncated_by_pool(usage, pool_tokens)
        if truncated:
            self._known.aliases.use(estimate.category.model).truncated_by_pool += 1
        lesson = Lesson(refused=evidence.refusal(usage, pool_tokens))
        if evidence.other_tokens:
            self._known.aliases.use(estimate.category.model).unused_tools.observe(evidence, usage)
        if evidence.x is not None and lesson.refused is None:
            model = self._known.aliases.use(estimate.category.model)
            lesson = teach(self._known, model, estimate.category, evidence, actual)
            recalled = self._prefixes.at_hand(evidence.recalled)
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
        """Learn from a refusal if it states more prompt tokens than estimated: that number is a lower bound."""
        evidence, at_least = estimate.evidence, overflow.at_least_prompt_tokens
        if not isinstance(evidence, Evidence) or evidence.refused or evidence.x is None or at_least is None:
            return
        category = estimate.category
        if evidence.shows_kept(overflow):
            self._known.aliases.use(category.model).unused_tools.are_kept(evidence.source)
            return
        extra = self._known.extras.get(category)
        model = self._known.model(category.model)
        believed = self._known.believe(model, category, evidence.x, evidence.text_bytes, evidence.source).tokens
        if at_least > believed + (0.0 if extra is None else extra.tokens):
            teach(self._known, self._known.aliases.use(category.model), category, evidence, at_least)

    def state(self) -> LearnedState:
        """Return everything learned; the category ALL_MODELS (change.py) is the parent of all models."""
        return LearnedState.joined([make() for make in self.parts()])

    def parts(self) -> list[Callable[[], LearnedState]]:
        """Return functions that each build a part of `state`: one model, or some rows."""
        return self._known.parts()

    def load(self, state: LearnedState) -> None:
        """Continue from what another byte-class estimator learned.

        Raises ConfigurationError for a state of another kind of estimator, over other features, or with numbers
        that are not finite; nothing is loaded then.
        """
        self._known.load(state)

    def shift(self, change: Change) -> Change:
        """Add what others learned; return the changes that could not be applied because their rows changed."""
        return self._known.shift(change)

    def _learn_prefix(
        self, model: ServedModel, recalled: Recalled, evidence: Evidence, actual: int, *, clipped: bool
    ) -> None:
        """Learn from the tokens of a conversation's new part, and remember the count of the whole conversation."""
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
        residual = voice.adjusted(continued.residual or model.residual)
        # Clients may stop sending earlier reasoning; the known tokens include it only if the template kept it.
        new = np.maximum(x - known.x, 0)
        return believe(new, new_bytes, continued, residual, more_q=voice.q)


# The kind of a text as a category: Latin, markup, or the script of most of the text.
_LATIN = {kind: kind.value for kind in (TextKind.LATIN, TextKind.MARKUP, TextKind.NONE)}
