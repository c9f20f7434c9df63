"""Exact counts where they decide: the text of a request near a pool's limit, by its model's own tokenizer.

The idea. It is the width of the bound that sends a request which would fit to the larger pool, and where the
tokenizer's file is at hand (`estimator.exact`), a count is as narrow as the template allows. So a request that may
fit a smaller pool than its bound sends it to is counted, no other: then, with

    c = tokens of messages, of tools and documents, of reasoning that templates drop; and structure (prices.py)
    tokens = w.c        bound = tokens exp(q s)        s^2 = spread^2 + doubt

w is learned from usage as prices are (least_squares.py). What is counted starts at a price of 1, structure at that
of prices.py: what a chat template adds, and how it writes tools, is learned and never configured. So is a file
that is not quite the model's: its prices leave 1, and the bound gets wider. A counted request errs in another way
than an estimated one, so spread and q are its own (Mondrian conformal prediction, as of prefixes), one for each
tokenizer that is configured. They learn from the counted alone; prices, scale and q of all requests learn from
each response as ever, from what was estimated before the count. Constants of tenants are as in extra.py. All this
is of one process and not shared: it is learned within some tens of responses, as few numbers are.

Which text. A request's facts hold it until it is placed, and nothing of it is kept after. Each message is counted
by itself, since templates put a token that nothing merges with between them, and those tokens are w's; what stands
behind the messages, tools and documents, is written anew by templates and has a price of its own. Only what is
text is counted: with media, with several prompts, or of what is not in the body the estimate stands, and token ids
are exact as they are.

When it takes too long the estimate stands (`given_up`). A count is made at once, on the thread that decides, and
it is bounded: in time, asked for between pieces of the text (exact/tokenizers.py). Another thread would be no
help: 32 KB, the text at a limit of 8,192 tokens, take a third of a millisecond, while a reply from another thread
waits up to 20 ms until the loop looks for it.

Rejected: to count all requests (four times the work, and of a body without limits); to teach w by counts of
requests far from a limit, which would cost what was saved; the narrower of both bounds, which is missed as often
as both together.
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

# Prices of a counted token and their deviations. Templates write tools as JSON with a space after each mark, which
# is a fifth more; reasoning of earlier turns is dropped or kept.
MESSAGES, TOOLS, DROPPED = (1.0, 0.02), (1.1, 0.15), (0.5, 0.5)
NOISE: Final = 0.003  # 25 tokens of 8,192: what contents that a template trims or writes anew come to, a guess
FORGETTING: Final = 0.995  # templates do not change, but with a server; a memory of 200 counted responses
START_SPREAD, MIN_SPREAD = 0.005, 0.0005
SLOWEST_STEP, FIRST_STEPS = 0.02, 10  # as the residual's
CLIP_SCALES, MIN_CLIP, MAX_CLIP = 5.0, 0.02, log(2)
WILD: Final = log(4)  # beyond it a usage is no usage, and tells nothing of the bound


class Count(msgspec.Struct, frozen=True, gc=False):
    """What came of counting: the tokens of each text, or () when it was given up; and how long it took."""

    tokens: tuple[int, ...]
    seconds: float


class Counted(msgspec.Struct, frozen=True, gc=False):
    """What a decision says of a count: the vector c, () when it was given up; and how long it took."""

    features: tuple[int, ...]
    seconds: float = 0.0

    @property
    def text_tokens(self) -> int | None:
        """Tokens of all text that was counted, but for what a template may drop; None when it was given up."""
        return sum(self.features[:2]) if self.features else None


class Counter(Protocol):
    """The tokenizers that are configured, and how long a count may take."""

    def tokenizer_of(self, model: str) -> str | None:
        """Return the name of a model's tokenizer, of as many as are configured; None when there is none."""
        ...

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:
        """Count the tokens of each text, of UTF-8, without those that begin or end a prompt."""
        ...


class Counting:
    """Counts, and learns what each tokenizer's templates add; owned by one event loop.

    `epsilon` is the share of counted prompts that may exceed their bound.
    """

    def __init__(self, counter: Counter, epsilon: float, max_categories: int) -> None:
        self._counter = counter
        self._epsilon = epsilon
        self._templates: dict[str, _Template] = {}
        self._extras: CappedMap[CategoryKey, Extra] = CappedMap(max_categories, lambda _: Extra())

    def narrow(self, facts: RequestFacts, estimate: Estimate) -> tuple[Estimate, Counted | None]:
        """Count a request's text; return the estimate made of it, and what was counted.

        The estimate stands where there is no tokenizer, where not all is text (None), and where it takes too long.
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
        """Learn what templates add from the usage of a request that was counted."""
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
                return  # a constant of the tenant's, perhaps
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
    limit: float  # of errors that are believed as they are


class _Template:
    """What the prompts of one tokenizer cost beside their text, and how far that is true."""

    def __init__(self, epsilon: float) -> None:
        self._prices = RelativeLeastSquares(_PRIOR, FORGETTING, NOISE)
        self._bound = AdaptiveBound(epsilon)
        self._variance = START_SPREAD * START_SPREAD

    def believe(self, features: Sequence[int]) -> _Believed:
        """Return tokens and bound of a request by what was counted of it, as it is believed now."""
        x = np.array(features, np.float64)
        tokens = max(self._prices.predict(x), 1.0)
        doubt = self._prices.leverage(x) / (tokens * tokens)
        scale = sqrt(self._variance + doubt)
        limit = min(max(CLIP_SCALES * scale, MIN_CLIP), MAX_CLIP)
        return _Believed(tokens, self._bound.above(tokens, scale), doubt, scale, limit)

    def learn(self, features: Sequence[int], now: _Believed, actual: float) -> None:
        """Take in a response, of which `now` was believed; what is far off teaches in part, as in byteclass.py."""
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
    )


def _texts(facts: RequestFacts) -> list[bytes]:
    """Return the text of each message, of what stands behind them, and what a template may drop."""
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
