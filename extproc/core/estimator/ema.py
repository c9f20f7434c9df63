"""The paper's estimator: one exponential mean of bytes per token for each category.

The idea (arXiv 2604.08075, algorithm 1). A tokenizer is too slow for a router, but usage says what the prompt
really cost. For category k keep the mean c_k of observed bytes per token and the mean absolute deviation sigma_k,
and divide by the conservative ratio:

    tokens = ceil(bytes / (c_k - gamma sigma_k))
    c_obs  = bytes / usage.prompt_tokens
    sigma_k <- beta sigma_k + (1 - beta) |c_obs - c_k|
    c_k     <- beta c_k     + (1 - beta) c_obs

Our decisions, because the paper does not say: bytes are those of the decoded prompt text, not of the body; a
category is the served model with the tenant or, without a tenant, with the kind of text (by its dominant bytes);
the first observation sets c_k, the second sigma_k; the conservative ratio stays within the physical limits of 1 to
16 bytes per token; without a declared limit the output is estimated as in output_lengths.py.

Its limits: the deviation is that of single prompts, so gamma = 1 leaves about 20 % of them under-counted, and a
category that mixes kinds of text has no single ratio. Kept because it is what the paper measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import Change, RowChange, in_bites
from extproc.core.estimator.evidence import MAX_BYTES_PER_TOKEN, Evidence
from extproc.core.estimator.kinds import tenant_key
from extproc.core.estimator.output_lengths import OutputLengths, Outputs, states_of
from extproc.core.estimator.protocol import (
    CategoryKey,
    CategoryState,
    Estimate,
    LearnedState,
    Learning,
    Refused,
    Source,
)
from extproc.core.estimator.settings import EmaSettings, EstimatorSettings, MediaTokens
from extproc.core.estimator.sources import source_of
from extproc.core.estimator.text import look, text_kind
from extproc.core.facts import MediaCount, RequestFacts
from extproc.core.usage import Overflow, Usage

__all__ = ["EmaEstimator"]

# No tokenizer in use makes more than one token per byte.
MIN_BYTES_PER_TOKEN = 1.0


@dataclass(slots=True)
class Ratio:
    """Bytes per token of one category: the mean, the mean absolute deviation, and the number of responses."""

    mean: float
    deviation: float = 0.0
    observations: int = 0

    def conservative(self, margin_deviations: float) -> float:
        """Return c - gamma sigma, within physical bounds."""
        return _physical(self.mean - margin_deviations * self.deviation)

    def learn(self, observed: float, decay: float) -> None:
        """Take in one observed ratio, in bytes per token."""
        distance = abs(observed - self.mean)
        if self.observations == 0:
            self.mean = observed
        else:
            self.deviation = (
                distance if self.observations == 1 else decay * self.deviation + (1 - decay) * distance
            )
            self.mean = decay * self.mean + (1 - decay) * observed
        self.observations += 1


class EmaEstimator:
    """`estimator.kind: ema`; see the module for the algorithm."""

    KIND = "ema"

    def __init__(self, settings: EstimatorSettings) -> None:
        self._settings = settings
        self._ema: EmaSettings = settings.ema
        self._ratios: CappedMap[CategoryKey, Ratio] = CappedMap(
            settings.max_categories, lambda _: Ratio(self._ema.initial_bytes_per_token)
        )
        self._outputs = OutputLengths(settings)

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate a request: exactly for token ids, otherwise by the ratio of its category."""
        category = category_of(facts, tenant)
        media = media_tokens(facts.media, self._settings.media_tokens)
        declared = facts.max_output_tokens
        source = source_of(tenant, facts.text)
        output = self._outputs.tokens(declared, category, source)
        mean = self._outputs.mean(category, source, declared=declared is not None)
        number = self._outputs.number
        if facts.exact_prompt_tokens is not None:
            exact = float(facts.exact_prompt_tokens)
            evidence = Evidence.of(facts, exact, source=source, number=number)
            return Estimate(exact, exact, output, declared is not None, Source.EXACT, category, evidence, mean)
        ratio = self._ratios.get(category) or Ratio(self._ema.initial_bytes_per_token)
        text_bytes = facts.text_bytes + len(facts.dropped_text)  # as in the paper, which ignores templates
        likely = text_bytes / ratio.mean + media
        bound = text_bytes / ratio.conservative(self._ema.margin_deviations) + media
        evidence = Evidence.of(facts, likely, media_tokens=media, source=source, number=number)
        return Estimate(likely, bound, output, declared is not None, self._source(ratio), category, evidence, mean)

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn the observed ratio and the output length; the returned error is the one before learning."""
        evidence = estimate.evidence
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
        observed, refused = _observed_ratio(evidence, usage, pool_tokens)
        if refused is None:
            self._ratios.use(estimate.category).learn(observed, self._ema.decay)
        return Learning(
            ratio=estimate.prompt_tokens / usage.prompt_tokens,
            under_counted=usage.prompt_tokens > estimate.prompt_bound,
            bytes_per_token=observed,
            refused=refused,
            truncated_by_pool=evidence.truncated_by_pool(usage, pool_tokens),
        )

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn nothing: the paper's mean cannot use a lower bound."""

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Do nothing: in the paper, each model has its own ratios."""

    def undo(self, model: str) -> bool:  # noqa: ARG002  (the protocol's signature)
        """Return False: nothing ever replaces a ratio."""
        return False

    def state(self) -> LearnedState:
        """Return every category's ratio."""
        return LearnedState.joined([make() for make in self.parts()])

    def parts(self) -> list[Callable[[], LearnedState]]:
        """Return functions that each build some rows of `state`."""
        return [
            self._part,
            *(partial(self._part, ratios=rows) for rows in in_bites(list(self._ratios))),
            *(partial(self._part, outputs=rows) for rows in in_bites(self._outputs.rows())),
        ]

    def _part(self, ratios: Sequence[tuple[CategoryKey, Ratio]] = (), outputs: Outputs = ()) -> LearnedState:
        rows = (CategoryState(key, r.mean, r.deviation, r.observations) for key, r in ratios)
        return LearnedState(self.KIND, tuple(rows), outputs=states_of(outputs))

    def load(self, state: LearnedState) -> None:
        """Load every category's ratio.

        Raises ConfigurationError for a state of another kind of estimator, or with ratios that no text has;
        nothing is loaded then.
        """
        if state.estimator_kind != self.KIND:
            raise ConfigurationError(f"learned state is of kind {state.estimator_kind!r}; this router has 'ema'")
        for row in state.categories:
            if row.bytes_per_token != _physical(row.bytes_per_token) or not 0 <= row.deviation < inf:
                raise ConfigurationError(
                    f"learned ratio of {row.category} is {row.bytes_per_token} bytes per token"
                )
        self._outputs.load(state.outputs)
        for row in state.categories:
            self._ratios.put(row.category, Ratio(row.bytes_per_token, row.deviation, row.observations))

    def shift(self, change: Change) -> Change:
        """Add what others learned; return the changes that could not be applied because their rows changed."""
        return Change(
            change.models,
            tuple(row for row in change.categories if not self._shift_ratio(row)),
            tuple(row for row in change.outputs if not self._outputs.shift(row)),
        )

    def _shift_ratio(self, change: RowChange) -> bool:
        ratio = self._ratios.get(change.key)
        if ratio is None:
            if change.since or len(self._ratios) >= self._settings.max_categories:
                return False
            ratio = Ratio(0.0)
            self._ratios.put(change.key, ratio)
        elif ratio.observations < change.since:
            return False
        mean, deviation, _, _ = change.values.tolist()
        kept = self._ema.decay ** (ratio.observations - change.since)
        ratio.mean = _physical(ratio.mean + kept * mean)
        ratio.deviation = max(ratio.deviation + kept * deviation, 0.0)
        ratio.observations = max(ratio.observations + change.responses, 0)
        return True

    def _source(self, ratio: Ratio) -> Source:
        if ratio.observations == 0:
            return Source.PRIOR
        return Source.YOUNG if ratio.observations < self._settings.young_observations else Source.LEARNED


def category_of(facts: RequestFacts, tenant: str) -> CategoryKey:
    """Return the category of a request: model and tenant, or model and kind of text."""
    return CategoryKey(facts.model, tenant_key(tenant) or text_kind(look(facts.text)).value)


def media_tokens(media: MediaCount, costs: MediaTokens) -> int:
    """Return the configured tokens of images, audio and video."""
    return (
        media.small_images * costs.image_small
        + media.medium_images * costs.image_medium
        + media.large_images * costs.image_large
        + media.unknown_images * costs.image_unknown
        + media.audio * costs.audio
        + media.video * costs.video
    )


def _observed_ratio(evidence: Evidence, usage: Usage, pool_tokens: int | None) -> tuple[float, Refused | None]:
    """Return the bytes per token of a response, and why it cannot be learned from (None if it can)."""
    if (refused := evidence.refusal(usage, pool_tokens)) is not None:
        return 0.0, refused
    text_tokens = usage.prompt_tokens - evidence.media_tokens
    if text_tokens <= 0 or evidence.text_bytes == 0:
        return 0.0, Refused.NO_TEXT
    observed = evidence.text_bytes / text_tokens
    return observed, None if observed == _physical(observed) else Refused.IMPLAUSIBLE


def _physical(bytes_per_token: float) -> float:
    return min(max(bytes_per_token, MIN_BYTES_PER_TOKEN), MAX_BYTES_PER_TOKEN)
