"""The report's section on learning under a budget, also written alone (`dualpool evaluate --only budget`)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from extproc.evaluation.bars import HEAD, means, percent, sampled_bars
from extproc.evaluation.cases import Plan
from extproc.evaluation.sampled import DECLARED, TIMES_AS_MANY, Sampled, Samples

__all__ = ["sampled_report", "sampled_section"]


def sampled_report(samples: Mapping[str, Samples], plan: Plan, command: str) -> str:
    """Return only the report's section on learning under a budget."""
    head = f"## Learning under the default budget\n\nWritten by `{command}`."
    return "\n\n".join([head, *sampled_section(samples, plan)]) + "\n"


def sampled_section(samples: Mapping[str, Samples], plan: Plan) -> Iterable[str]:
    """Yield the section's introduction and the tables of each tokenizer."""
    yield _SAMPLED.format(requests=TIMES_AS_MANY * plan.requests, first=plan.warm_up)
    for tokenizer, tokenizer_samples in samples.items():
        yield f"### {tokenizer}, under a budget"
        yield "\n".join([HEAD, *sampled_bars(tokenizer_samples)])
        yield "\n".join([_SAMPLED_HEAD, *_sampled_rows(tokenizer_samples)])


_SAMPLED = """Each of four applications sends a quarter of {requests:,} requests, which arrive as a Poisson
process. Output lengths are the trace's, cut at the declared limit; responses are streamed and take .5 s plus
20 ms per token, with one message per token. The learning budget has its defaults (500 messages a second, bursts
of 5,000, 24 streams at a time). From the middle on, prompts of the application that declares 8,192 tokens cost
30 % more tokens, up to one per byte. *Missed* is the share of an application's requests that exceeded their
bound, learned from or not, without the first {first} of each half; *all missed* is that share of all requests.
The next two columns are the same share by the router's metrics: weighted (`dualpool_bounds_of_traffic_total`),
and as counted (`dualpool_bounds_total`). *Back* is the number of requests and seconds of costlier prompts after
which at most 2 % of the next hundred are missed."""
_SAMPLED_HEAD = (
    "| requests per second, half | learned from: "
    + " / ".join("none declared" if limit is None else f"{limit:,}" for limit in DECLARED)
    + " | responses | missed | all missed | weighted | as counted | back |\n|---|---|---|---|---|---|---|---|"
)


def _sampled_rows(samples: Samples) -> Iterable[str]:
    for (per_s, with_tenants), runs in samples.items():
        for name, halves in (("before", [run.before for run in runs]), ("after", [run.after for run in runs])):
            cells = [
                f"{per_s:g}, {'with' if with_tenants else 'without'} tenants, {name}",
                " / ".join(f"{100 * share:.1f}" for share in means(half.learned for half in halves)) + " %",
                " / ".join(f"{number:.0f}" for number in means(half.responses for half in halves)),
                " / ".join(f"{100 * share:.1f}" for share in means(half.missed for half in halves)) + " %",
                *(percent(float(np.mean([getattr(h, n) for h in halves]))) for n in ("all_missed", *_BY_METRICS)),
                _back(runs) if name == "after" else "",
            ]
            yield f"| {' | '.join(cells)} |"


_BY_METRICS = ("weighted", "unweighted")


def _back(runs: Sequence[Sampled]) -> str:
    requests, seconds = np.median([(run.back_requests, run.back_s) for run in runs], axis=0).tolist()
    return f"{requests:.0f} requests, {seconds:.0f} s" if np.isfinite(requests) else "not within the run"
