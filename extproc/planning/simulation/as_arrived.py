"""One run of a fleet, found with Poisson arrivals, under the arrival times of the trace itself.

Real traffic comes in bursts. The smallest fleet for 8 req/s of Azure's traffic at random has a P99 TTFT of .76 s;
with that trace's own times, at the same rate, it has 17.6 s (.62 and 7.6 s with a spare). The plan's figures are
for Poisson arrivals, because a short trace stretched to another rate is no better a forecast; but who builds the
fleet should know what the difference is.
"""

from dataclasses import dataclass, replace

from extproc.core.errors import ConfigurationError
from extproc.planning.simulation.options import MIN_REQUESTS
from extproc.planning.simulation.task import SearchTask, make_workload, run_fleet
from extproc.planning.simulation.verdict import not_judged, verdict
from extproc.planning.workload.arrivals import check_arrivals
from extproc.planning.workload.lengths import Lengths

__all__ = ["ArrivedRun", "run_as_arrived"]

MOST_REQUESTS = 100_000  # a few seconds of computing; more rarely change the verdict


@dataclass(frozen=True, slots=True)
class ArrivedRun:
    """A run of `requests` at the trace's own times, which pass `times_faster` than in the trace: the parts of the
    objective that were missed, and the classes too rare in it to be judged.
    """

    instances: tuple[int, ...]
    requests: int
    times_faster: float
    misses: tuple[str, ...]
    not_judged: tuple[str, ...] = ()

    @property
    def pace(self) -> str:
        """How fast the trace's time passes, as part of a sentence; empty at its own pace."""
        pace = self.times_faster
        return "" if round(pace, 1) == 1 else f", {pace:.2g} times as fast as they were"


def run_as_arrived(task: SearchTask, instances: tuple[int, ...]) -> ArrivedRun | None:
    """Simulate one fleet under the trace's own arrivals; None if it has none that tell anything, or if the fleet
    was already found with them.
    """
    lengths = _beginning(task.lengths)
    try:
        arrival_s = check_arrivals(lengths)
    except ConfigurationError:
        return None
    if task.arrivals == "trace" or len(lengths) < MIN_REQUESTS:
        return None
    own = replace(task, lengths=lengths, arrivals="trace")
    summary = run_fleet(own, make_workload(own, 1), instances)
    if summary.too_short:
        return None
    objective = task.setup.objective
    misses = tuple(map(str, verdict(summary, objective).misses))
    rare = not_judged(summary, objective, lengths.total)
    times_faster = task.rate * float(arrival_s[-1]) / len(lengths)
    return ArrivedRun(instances, len(lengths), times_faster, misses, rare)


def _beginning(lengths: Lengths) -> Lengths:
    """Return the first MOST_REQUESTS, with their arrival times."""
    first = slice(MOST_REQUESTS)
    if len(lengths) <= MOST_REQUESTS or lengths.arrival_s is None:
        return lengths
    return replace(
        lengths,
        prompt=lengths.prompt[first],
        output=lengths.output[first],
        arrival_s=lengths.arrival_s[first],
        budget=None if lengths.budget is None else lengths.budget[first],
        cached=None if lengths.cached is None else lengths.cached[first],
    )
