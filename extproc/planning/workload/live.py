"""Request lengths and rate from a router's own metrics, in Prometheus text format.

A router in shadow mode counts prompt and completion tokens in histograms with fixed buckets. Of busy traffic it
reads only some responses, of streams the fewest; each counts for the requests of its stratum, so the lengths are
those of the traffic. They do not say which prompt had which completion, nor where in its bucket a length lies.
Lengths are spread evenly within a bucket; prompts and completions are paired so that their totals match the
histogram of actual totals, or at random if the router has none. The histogram of budgets shows the share that the
router would really send to a short pool, with the max_tokens that clients really declare: it becomes
`Lengths.budget`, from which alpha is computed.

Only requests that the router estimated are in the histograms. Those that it decided without, most of them early
because of their size, are counted by reason: they become `Lengths.left_out`.
"""

from collections import defaultdict
from dataclasses import dataclass
from math import inf

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import ConfigurationError, shown
from extproc.core.placing.policy import Reason
from extproc.planning.workload.lengths import MAX_TOKENS, Floats, LeftOut, Lengths, Tokens
from extproc.planning.workload.live_notes import MODELS_NAMED, budget_note, models_note, pairing_note, read_note

__all__ = ["Scrape", "lengths_between", "parse_scrape", "rate_between"]

PROMPT = "dualpool_actual_prompt_tokens"
COMPLETION = "dualpool_actual_completion_tokens"
TOTAL = "dualpool_actual_total_tokens"
BUDGET = "dualpool_budget_tokens"
READ = "dualpool_estimate_ratio"  # each response that was read and compared with its estimate, counted once
REQUESTS = "dualpool_requests_total"
# Reasons of decisions without an estimate: the router had not read the request, or not all of it.
UNREAD = frozenset({Reason.EARLY, Reason.NOT_UNDERSTOOD, Reason.CUT_OFF, Reason.DEADLINE, Reason.SHED})
STARTED = "process_start_time_seconds"
WORKERS = "dualpool_workers_serving"
MAX_REQUESTS = 100_000
PAIRING_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Scrape:
    """Cumulative counts of one scrape: buckets by upper bound (tokens) of each histogram, and all requests.

    `models` are the models that were added up, most responses first. Requests that were not estimated have no
    model: they are in `left_out` whichever model is asked for, but then not in `requests`. `started` is when the
    process that counts did (Unix time); None if the text does not say, or has the sums of several workers.
    """

    buckets: dict[str, dict[float, float]]
    requests: float
    name: str
    models: tuple[str, ...]
    left_out: LeftOut
    started: float | None = None


def parse_scrape(text: str, name: str, model: str | None = None) -> Scrape:
    """Parse one scrape, of one model or of all models added up; pools are always added up.

    Raises ConfigurationError if it is not Prometheus text, or lacks the router's histograms or the model.
    """
    buckets: dict[str, dict[float, float]] = {
        key: defaultdict(float) for key in (PROMPT, COMPLETION, TOTAL, BUDGET, READ)
    }
    requests = 0.0
    unread: dict[str, float] = defaultdict(float)
    responses: dict[str, float] = defaultdict(float)
    last: dict[str, float] = {}
    announced: set[str] = set()  # a router that has seen no response lists its histograms without samples
    try:
        for family in text_string_to_metric_families(text):
            announced.add(family.name)
            for sample in family.samples:
                of, reason = sample.labels.get("model", ""), sample.labels.get("reason", "")
                last[sample.name] = sample.value
                if sample.name == f"{PROMPT}_count":
                    responses[of] += _count(sample.value)
                if sample.name == REQUESTS and reason in UNREAD:
                    unread[reason] += _count(sample.value)
                if model not in {None, of}:
                    continue
                histogram = buckets.get(sample.name.removesuffix("_bucket"))
                if histogram is not None and sample.name.endswith("_bucket"):
                    histogram[_edge(sample.labels["le"])] += _count(sample.value)
                elif sample.name == REQUESTS:
                    requests += _count(sample.value)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{name}: not the Prometheus text of a router: {error}") from error
    models = _models(responses, model, name) if responses else ()
    missing = [key for key in (PROMPT, COMPLETION) if not buckets[key] and key not in announced]
    if missing:
        raise ConfigurationError(
            f"{name}: the histogram {' and '.join(missing)} is not in it; is this a router's /metrics?"
        )
    early, all_unread = unread[Reason.EARLY], sum(unread.values())
    counted = requests if model is None else requests + all_unread
    left_out = LeftOut(round(early), round(all_unread - early), round(counted))
    counted_by = None if WORKERS in last else last.get(STARTED)  # workers' sums outlive each of them
    return Scrape(
        {key: dict(value) for key, value in buckets.items()}, requests, name, models, left_out, counted_by
    )


def _models(responses: dict[str, float], wanted: str | None, name: str) -> tuple[str, ...]:
    """Return the models that were counted, most responses first."""
    models = tuple(sorted(responses, key=lambda each: -responses[each]))
    if wanted is not None and wanted not in models:
        found = ", ".join(map(shown, models[:MODELS_NAMED])) or "none"
        raise ConfigurationError(f"{name}: no model {shown(wanted)}; it has {found}")
    return models if wanted is None else (wanted,)


def _edge(text: str) -> float:
    edge = float(text)
    if not (0 < edge <= MAX_TOKENS or edge == inf):
        raise ValueError(f"a bucket up to {text} tokens")
    return edge


def _count(value: float) -> float:
    if not 0 <= value < inf:
        raise ValueError(f"a bucket that counts {value:g}")
    return value


def rate_between(first: Scrape, second: Scrape, seconds: float) -> float:
    """Return requests per second between two scrapes.

    Raises ConfigurationError if the counter did not grow: no traffic, or the router restarted in between.
    """
    grown = second.requests - first.requests
    if grown <= 0 or seconds <= 0:
        raise ConfigurationError(
            f"{second.name}: {REQUESTS} went from {first.requests:g} to {second.requests:g} in {seconds:g} s: "
            "the rate cannot be computed; give it with --rate"
        )
    return grown / seconds


def lengths_between(first: Scrape | None, second: Scrape) -> Lengths:
    """Return the lengths that the second scrape counted in addition to the first (or all, without a first).

    Raises ConfigurationError if the scrapes are not two of one process, or nothing was counted in between.
    """
    if first is not None and None not in {first.started, second.started} and first.started != second.started:
        raise ConfigurationError(
            f"{second.name}: not of the process that {first.name} is of: the router restarted in between, or the "
            "address is that of several replicas; scrape one of them"
        )
    rng = np.random.default_rng(0)
    before = first.buckets if first is not None else {}
    counts = {key: _increase(before.get(key, {}), second.buckets[key]) for key in second.buckets}
    if fallen := [key for key, each in counts.items() if min(each.values(), default=0.0) < 0]:
        restarted = "" if first is None else f"; {first.name} is not the earlier scrape, or the router restarted"
        raise ConfigurationError(
            f"{second.name}: the buckets of {fallen[0]} have lower counts than those below{restarted}"
        )
    responses = int(min(sum(counts[PROMPT].values()), sum(counts[COMPLETION].values())))
    if responses == 0:
        since = "" if first is None else f" since {first.name}: two scrapes with traffic between them are needed"
        raise ConfigurationError(f"{second.name}: {PROMPT} has counted no response{since}")
    requests = min(responses, MAX_REQUESTS)
    prompt, output = (rng.permutation(_spread(counts[key], requests)) for key in (PROMPT, COMPLETION))
    if sum(counts[TOTAL].values()) > 0:
        prompt, output = _paired(prompt, output, counts[TOTAL])
    note = pairing_note(counts[TOTAL], prompt + output)
    note += read_note(responses, counts[READ], counts[BUDGET]) + budget_note(counts[BUDGET])
    note += models_note(second.models)
    budget = _budgets(counts[BUDGET], prompt + output)
    left_out = _grown(first.left_out if first is not None else LeftOut(), second.left_out)
    return Lengths(prompt, output, second.name, None, note, budget, left_out=left_out)


def _grown(before: LeftOut, after: LeftOut) -> LeftOut:
    return LeftOut(
        max(0, after.early - before.early),
        max(0, after.undecided - before.undecided),
        max(0, after.requests - before.requests),
    )


def _budgets(counts: dict[float, float], total: Tokens) -> Tokens | None:
    """Assign the counted budgets to requests in order of length; None if none was counted.

    The histogram does not say which request had which budget, only the share below each bucket edge.
    """
    if sum(counts.values()) == 0:
        return None
    budget = np.empty_like(total)
    budget[np.argsort(total, kind="stable")] = _spread(counts, len(total))
    return budget


def _increase(before: dict[float, float], after: dict[float, float]) -> dict[float, float]:
    """Return the count of each bucket alone, from the cumulative counts of two scrapes."""
    edges = sorted(after)
    cumulative = [after[edge] - before.get(edge, 0.0) for edge in edges]
    return {edge: now - past for edge, now, past in zip(edges, cumulative, [0.0, *cumulative], strict=False)}


def _spread(counts: dict[float, float], requests: int) -> Tokens:
    """Return ascending lengths, spread evenly in each bucket; the open bucket ends at twice its lower edge."""
    edges = sorted(counts)
    shares = np.cumsum([max(counts[edge], 0.0) for edge in edges])
    uppers = np.array(
        [edge if np.isfinite(edge) else 2 * lower for edge, lower in zip(edges, [1.0, *edges], strict=False)]
    )
    at: Floats = (np.arange(requests) + 0.5) / requests * shares[-1]
    drawn = np.interp(at, np.concatenate([[0.0], shares]), np.concatenate([[1.0], uppers]))
    whole: Tokens = np.ceil(drawn).astype(np.int64)  # a bucket includes its upper edge, but not its lower
    return whole


def _paired(prompt: Tokens, output: Tokens, totals: dict[float, float]) -> tuple[Tokens, Tokens]:
    """Pair prompts and outputs so that their sums have the counted distribution.

    The sums are ranked and assigned the counted totals in that order; outputs are then assigned by the rank of
    total minus prompt. This settles in a few rounds. No sum exceeds the last non-empty bucket.
    """
    wanted = _spread(totals, len(prompt))
    ordered = np.sort(output)
    for _ in range(PAIRING_ROUNDS):
        target = np.empty_like(wanted)
        target[np.argsort(prompt + output, kind="stable")] = wanted
        output = np.empty_like(ordered)
        output[np.argsort(target - prompt, kind="stable")] = ordered
    finite = [edge for edge, count in totals.items() if count > 0 and np.isfinite(edge)]
    if finite and totals.get(inf, 0.0) <= 0:
        over = np.maximum(prompt + output - int(max(finite)), 0)
        prompt = np.maximum(prompt - over, 1)
        output = np.maximum(np.minimum(output, int(max(finite)) - prompt), 1)
    return prompt, output
