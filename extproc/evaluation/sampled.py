"""Learning under a budget that covers only some responses: four applications with different limits, one router.

Requests arrive as a Poisson process, a quarter of them from each application, and pass through the router's own
Placer, Learner and learning budget with default settings. Each application has a quarter of the ordinary kinds of
text to itself, and declares 256, 1,024, 8,192 or no output tokens. Responses are streams with one message per
token; their lengths are those of a trace, cut at the declared limit. A response that the budget keeps is learned
from when it ends. From the middle on, prompts of the application that declares 8,192 cost 30 % more tokens, up to
one per byte of text, the most that any tokenizer makes. Times are those of a virtual clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import nan

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace as with_fields

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import RequestFacts, ResponseHead
from extproc.core.listener import Listener, Observation
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.usage import Usage
from extproc.evaluation.cases import Plan
from extproc.evaluation.chats import Chat, Turn
from extproc.evaluation.mixes import Material, bytes_per_token
from extproc.evaluation.outputs import FIRST_S, SECONDS_PER_TOKEN
from extproc.evaluation.requests import Request, make_request
from extproc.evaluation.texts import ordinary, window
from extproc.evaluation.tokenizers import Tokenizer

__all__ = [
    "DECLARED",
    "MOVED",
    "RATES",
    "TIMES_AS_MANY",
    "Half",
    "Sampled",
    "Samples",
    "applications",
    "back_after",
    "sampled",
    "samples",
]

DECLARED = (256, 1_024, 8_192, None)
MOVED = 2  # the application whose prompts cost more from the middle on: the one that declares 8,192
COST_FACTOR = 1.3
RATES = (20, 100)  # requests a second
TIMES_AS_MANY = 8  # requests as in the streams of the other scenarios
WINDOW = 100
BACK = 0.02
POOLS = Pools((Pool("short", 1 << 20), Pool("long", 1 << 21)))  # large enough that every request is estimated
STREAM = ResponseHead(200, "text/event-stream")
HEAD_AND_END = 3  # messages in addition to those of the tokens
MOST_BYTES = 4 << 20


Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AppRequest:
    """One request of an application, and its true tokens."""

    application: int
    facts: RequestFacts
    tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Half:
    """Half of a run.

    By application: the number of `responses` learned from, the share of requests `learned` from, and the share
    `missed`, after a warm-up. `all_missed` is the share of all requests that exceeded their bound. `weighted` and
    `unweighted` are the same share by the router's metrics: with each judged bound weighted by the number of
    requests that it stands for, and unweighted.
    """

    responses: tuple[int, ...]
    learned: tuple[float, ...]
    missed: tuple[float, ...]
    all_missed: float
    weighted: float
    unweighted: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """A run: its halves, and how many requests and seconds the bound of the application MOVED took to recover."""

    before: Half
    after: Half
    back_requests: float
    back_s: float


Samples = Mapping[tuple[float, bool], Sequence[Sampled]]
"""The runs by rate and by whether tenants are given; one for each seed."""


def samples(material: Material, tokenizer: Tokenizer, plan: Plan, say: Callable[[str], None]) -> Samples:
    """Run everything for one tokenizer; `say` is called with progress messages."""
    say(f"{tokenizer.name}: learning under a budget")
    plan = replace(plan, left_out=tokenizer.name)
    count = TIMES_AS_MANY * plan.requests
    streams = [list(applications(material, tokenizer, count, seed)) for seed in plan.seeds]
    tokenizer.save()
    return {
        (per_s, with_tenants): [
            sampled(stream, per_s, plan, seed, with_tenants=with_tenants)
            for stream, seed in zip(streams, plan.seeds, strict=True)
        ]
        for per_s in RATES
        for with_tenants in (True, False)
    }


def applications(material: Material, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[AppRequest]:
    """Yield requests, each from a random application."""
    rng, lengths, texts = np.random.default_rng(seed), material.lengths, ordinary(material.texts)
    kinds = sorted(texts)
    ratios = {kind: bytes_per_token(texts[kind], tokenizer) for kind in kinds}
    for number in range(count):
        application = int(rng.integers(len(DECLARED)))
        own = kinds[application % len(kinds) :: len(DECLARED)]
        kind = own[int(rng.integers(len(own)))]
        prompt, output = lengths[int(rng.integers(len(lengths)))]
        text = window(texts[kind], max(16, round(prompt * ratios[kind])), rng)
        request = make_request(kind, Chat((Turn("user", text),)), tokenizer, output, rng)
        declared = DECLARED[application]
        has_moved = application == MOVED and number >= count // 2
        yield AppRequest(
            application,
            with_fields(request.facts, max_output_tokens=declared, stream=True),
            _costlier_tokens(request) if has_moved else request.tokens,
            output if declared is None else min(output, declared),
        )


def _costlier_tokens(request: Request) -> int:
    """Return the tokens of a request after the change."""
    return max(request.tokens, min(round(request.tokens * COST_FACTOR), request.facts.text_bytes))


def sampled(stream: Sequence[AppRequest], per_s: float, plan: Plan, seed: int, *, with_tenants: bool) -> Sampled:
    """Run a stream through a new router; each application is a tenant, if `with_tenants`."""
    router = _Router(ByteClassEstimator(EstimatorSettings(), plan.left_out))
    arrivals = np.random.default_rng(seed).exponential(1 / per_s, len(stream)).cumsum()
    rows = []
    for number, (now_s, request) in enumerate(zip(arrivals.tolist(), stream, strict=True)):
        if number == len(stream) // 2:
            router.judged.append([])
        rows.append(router.take(request, f"{request.application}" if with_tenants else "", now_s))
    application_of = np.array([request.application for request in stream])
    learned, missed = np.array(rows).T
    middle = len(stream) // 2
    before, after = (
        _half(application_of[part], learned[part], missed[part], judged, plan.warm_up)
        for part, judged in zip((slice(middle), slice(middle, None)), router.judged, strict=True)
    )
    moved = middle + np.flatnonzero(application_of[middle:] == MOVED)
    back = back_after(missed[moved])
    back_s = float("inf") if back is None else float(arrivals[moved[back]] - arrivals[moved[0]])
    return Sampled(before, after, float("inf") if back is None else back, back_s)


def back_after(missed: Flags) -> int | None:
    """Return after how many requests at most the share BACK of the next WINDOW is missed; None if never."""
    shares = np.convolve(missed, np.ones(WINDOW) / WINDOW, "valid")
    found = np.flatnonzero(shares <= BACK + 1e-9)
    return int(found[0]) if found.size else None


class _Router(Listener):
    """A router on the clock of the arrivals; `judged` has the bounds that its metrics would count in each half."""

    def __init__(self, estimator: ByteClassEstimator) -> None:
        self.judged: list[list[tuple[bool, int]]] = [[]]
        self._placer = Placer(Mode.ENFORCE, POOLS, estimator, MOST_BYTES)
        self._learner = Learner(POOLS, estimator, LearningBudget(LearningSettings()), self, MOST_BYTES)
        self._in_flight: list[tuple[float, int, Decision, AppRequest]] = []
        self._number = 0

    def take(self, request: AppRequest, tenant: str, now_s: float) -> tuple[bool, bool]:
        """Learn from the responses that ended before, then place a request; return whether it was kept, missed."""
        while self._in_flight and self._in_flight[0][0] <= now_s:
            self._learn(*heappop(self._in_flight)[2:])
        decision = self._placer.place(request.facts, tenant)
        assert decision.estimate is not None, "the pools are large enough that every request is estimated"
        self._learner.unjudged[decision.stratum] += 1
        kept = self._learner.keeps(decision, now_s)
        if kept:
            self._number += 1
            end_s = now_s + FIRST_S + SECONDS_PER_TOKEN * request.output_tokens
            heappush(self._in_flight, (end_s, self._number, decision, request))
        return kept, request.tokens > decision.estimate.prompt_bound

    def observed(self, observation: Observation) -> None:
        """Count as the metrics do."""
        if observation.learning.is_judged:
            self.judged[-1].append((observation.learning.under_counted, observation.stands_for))

    def _learn(self, decision: Decision, request: AppRequest) -> None:
        cut = request.output_tokens == request.facts.max_output_tokens
        self._learner.learn(decision, STREAM, Usage(request.tokens, request.output_tokens, cut_by_length=cut))
        self._learner.settle(decision, request.output_tokens + HEAD_AND_END)


def _half(
    application_of: npt.NDArray[np.int_],
    learned: Flags,
    missed: Flags,
    judged: Sequence[tuple[bool, int]],
    warm_up: int,
) -> Half:
    under, stands_for = np.array(judged, np.float64).reshape(-1, 2).T
    parts = [application_of == application for application in range(len(DECLARED))]
    return Half(
        responses=tuple(int(learned[part].sum()) for part in parts),
        learned=tuple(_share(learned[part]) for part in parts),
        missed=tuple(_share(missed[part][warm_up:]) for part in parts),
        all_missed=_share(missed),
        weighted=float(under @ stands_for / stands_for.sum()) if under.size else nan,
        unweighted=float(under.mean()) if under.size else nan,
    )


def _share(flags: Flags) -> float:
    """Return the share of flags that are set; NaN if there are none."""
    return float(flags.mean()) if flags.size else nan
