"""Exact counts for requests near a pool's limit, by their model's own tokenizer.

The idea. It is the width of the bound that sends a request that would fit to the larger pool. If the tokenizer's
file is available (`estimator.exact`), a count is as precise as the template allows. So only those requests are
counted that may fit a smaller pool than the one that their bound selects. Then, with

    c = tokens of messages, of tools and documents, of reasoning that templates drop; and structure (prices.py)
    tokens = w.c        bound = tokens exp(q s)        s^2 = spread^2 + doubt

w is learned from usage like prices (least_squares.py). Counted tokens start at a price of 1, structure at the
prices of prices.py: what a chat template adds, and how it writes tools, is learned and never configured. A file
that is not quite the model's is handled the same way: its prices move away from 1, and the bound widens. Counted
requests err differently from estimated ones, so they have a spread and q of their own, one pair per configured
tokenizer (Mondrian conformal prediction, as in prefixes.py). These learn from counted requests alone; prices,
scale and q of all requests learn from every response as usual, from the estimate made before the count. Constants
of tenants are as in extra.py. All of this belongs to one process and is not shared: there are few numbers, so tens
of responses are enough to learn them.

Which text. The facts of a request hold its text until it is placed; none of it is kept afterwards. Each message is
counted separately, since templates put a token that merges with nothing between messages, and those tokens are
part of w. What follows the messages, tools and documents, is reformatted by templates and has a separate price.
Only text is counted: for requests with media, with several prompts, or with content that is not in the body, the
estimate stands; token ids are exact already.

If a count takes too long, the estimate stands (`given_up`). A count runs synchronously, on the thread that
decides, and its time is bounded: the clock is checked between pieces of the text (exact/tokenizers.py). Another
thread would not help: 32 KB, the text at a limit of 8,192 tokens, take a third of a millisecond, while the loop
may take up to 20 ms to notice a result from another thread.

Rejected: counting all requests (four times the work, on bodies without a size limit); teaching w by counts of
requests far from a limit (costs what was saved); the narrower of the two bounds (missed as often as both
together).
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Final, Protocol

import msgspec
import numpy as np
from msgspec.structs import replace

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.change import CategoryKey
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.extra import Extra
from extproc.core.estimator.least_squares import RelativeLeastSquares
from extproc.core.estimator.prices import STRUCTURE, Prior
from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import NO_MEDIA, RequestFacts

__all__ = ["Count", "Counted", "Counter", "Counting"]

# Prices of a counted token and their deviations. Templates write tools as JSON with a space after each punctuation
# mark, which costs a fifth more; reasoning of earlier turns is dropped or kept.
MESSAGES, TOOLS, DROPPED = (1.0, 0.02), (1.1, 0.15), (0.5, 0.5)
NOISE: Final = 0.003  # 25 tokens of 8,192, for contents that a template trims or reformats; a guess
FORGETTING: Final = 0.995  # a memory of 200 counted responses; templates change only when a server does
START_SPREAD, MIN_SPREAD = 0.005, 0.0005
SLOWEST_STEP, FIRST_STEPS = 0.02, 10  # as the residual's
CLIP_SCALES, MIN_CLIP, MAX_CLIP = 5.0, 0.02, log(2)
WILD: Final = log(4)  # a larger log error is a broken usage, which says nothing about the bound


class Count(msgspec.Struct, frozen=True, gc=False):
    """The result of counting: the tokens of each text, or () if it was given up; and the time that it took."""

    tokens: tuple[int, ...]
    seconds: float


class Counted(msgspec.Struct, frozen=True, gc=False):
    """The count in a decision: the vector c, or () if counting was given up; and the time that it took."""

    features: tuple[int, ...]
    seconds: float = 0.0

    @property
    def text_tokens(self) -> int | None:
        """Tokens of all counted text except what a template may drop; None if counting was given up."""
        return sum(self.features[:2]) if self.features else None


class Counter(Protocol):
    """The configured tokenizers, and the time limit of a count."""

    def tokenizer_of(self, model: str) -> str | None:
        """Return the name of the tokenizer configured for a model, or None."""
        ...

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:
        """Count the tokens of each UTF-8 text, without those that begin or end a prompt."""
        ...


class Counting:
    """Counts requests, and learns what each tokenizer's templates add; owned by one event loop.

    `epsilon` is the share of counted prompts that may exceed their bound.
    """

    def __init__(self, counter: Counter, epsilon: float, max_categories: int) -> None:
        self._counter = counter
        self._epsilon = epsilon
        self._templates: dict[str, _Template] = {}
        self._extras: CappedMap[CategoryKey, Extra] = CappedMap(max_categories, lambda _: Extra())

    def narrow(self, facts: RequestFacts, estimate: Estimate) -> tuple[Estimate, Counted | None]:
        """Count a request's text; return the estimate based on the count, and what was counted.

        The estimate stands if there is no tokenizer, if not everything is text (None), or if counting takes too
        long.
        """
        tokenizer = self._counter.tokenizer_of(facts.model) if _is_text_of_one_prompt(facts) else None
        if tokenizer is None:
            return estimate, None
        count = self._counter.count(tokenizer, _texts(facts))
        if not count.tokens:
            return estimate, Counted((), count.seconds)
        counted = Counted(_features(facts, count.tokens), count.seconds)
        now = self._template(tokenizer).believe(counted.features)
        extra = self._extras.get(estimate.category) if _is_of_tenant(estimate) else None
        added = 0.0 if extra is None else extra.tokens
        return replace(estimate, prompt_tokens=now.tokens + added, prompt_bound=now.bound + added), counted

    def observe(self, estimate: Estimate, counted: Counted, prompt_tokens: int) -> None:
        """Learn what templates add from the usage of a counted request."""
        tokenizer = self._counter.tokenizer_of(estimate.category.model)
        if tokenizer is None or not counted.features:
            return
        template, actual = self._template(tokenizer), float(prompt_tokens)
        now = template.believe(counted.features)
        if _is_of_tenant(estimate):
            extra = self._extras.use(estimate.category)
            extra.learn(now.tokens, actual)
            actual = max(actual - extra.tokens, 1.0)
            if extra.is_open and abs(log(actual / now.tokens)) > now.limit:
                return  # possibly a constant of the tenant's
        template.learn(counted.features, now, actual)

    def _template(self, tokenizer: str) -> "_Template":
        template = self._templates.get(tokenizer)
        if template is None:
            template = self._templates[tokenizer] = _Template(self._epsilon)
        return template


class _Believed(msgspec.Struct, frozen=True, gc=False):
    tokens: float
    bound: float
    doubt: float
    scale: float
    limit: float  # errors up to this are believed in full


class _Template:
    """What the prompts of one tokenizer cost in addition to their text, and how precise that is."""

    def __init__(self, epsilon: float) -> None:
        self._prices = RelativeLeastSquares(_PRIOR, FORGETTING, NOISE)
        self._bound = AdaptiveBound(epsilon)
        self._variance = START_SPREAD * START_SPREAD

    def believe(self, features: Sequence[int]) -> _Believed:
        """Return the tokens and the bound that a request with these counts is believed to have now."""
        x = np.array(features, np.float64)
        tokens = max(self._prices.predict(x), 1.0)
        doubt = self._prices.leverage(x) / (tokens * tokens)
        scale = sqrt(self._variance + doubt)
        limit = min(max(CLIP_SCALES * scale, MIN_CLIP), MAX_CLIP)
        return _Believed(tokens, self._bound.above(tokens, scale), doubt, scale, limit)

    def learn(self, features: Sequence[int], now: _Believed, actual: float) -> None:
        """Take in a response believed to be `now`; a large error is believed only in part, as in byteclass.py."""
        error = log(actual / now.tokens)
        if abs(error) <= WILD:
            self._bound.observe(error / now.scale)
        believed = min(max(error, -now.limit), now.limit)
        step = max(SLOWEST_STEP, 1 / (self._prices.responses + FIRST_STEPS))
        variance = max(believed * believed - now.doubt, MIN_SPREAD * MIN_SPREAD)
        self._variance += step * (variance - self._variance)
        weight = 1.0 if believed == error else believed / error
        self._prices.learn(np.array(features, np.float64), now.tokens * exp(believed), weight)


_STRUCTURE: Final = ("request", "message", "tools offered", "tool", "tool call")  # in the order of _features


def _prior() -> Prior:
    of_structure = [(price, deviation) for name, price, deviation in STRUCTURE if name in _STRUCTURE]
    mean, deviation = np.array([MESSAGES, TOOLS, DROPPED, *of_structure]).T
    return Prior(mean, np.diag(deviation**2))


_PRIOR: Final = _prior()


def _is_text_of_one_prompt(facts: RequestFacts) -> bool:
    return bool(
        facts.text
        and facts.exact_prompt_tokens is None
        and facts.media == NO_MEDIA
        and facts.longest_share == 1
        and not facts.unseen_history
        and not facts.unused_tools_bytes  # the server may leave them out
    )


def _texts(facts: RequestFacts) -> list[bytes]:
    """Return the text of each message, the text after the messages, and what a template may drop."""
    text, texts, start = facts.text, [], 0
    for _, end in facts.turns:
        texts.append(text[start:end])
        start = end
    behind = [text[start:]] if facts.turns else [text, b""]
    return [*texts, *behind, facts.dropped_text]


def _features(facts: RequestFacts, tokens: Sequence[int]) -> tuple[int, ...]:
    *messages, behind, dropped = tokens
    structure = (1, facts.messages, int(facts.tools > 0), facts.tools, facts.tool_calls)
    return (sum(messages), behind, dropped, *structure)


def _is_of_tenant(estimate: Estimate) -> bool:
    return isinstance(estimate.evidence, Evidence) and estimate.evidence.of_tenant
