"""One workload from several traces: whose clock their times are on, and what they are called together.

Dates, and seconds since 1970, are on one clock: the traces keep their distance. Relative times (BurstGPT,
Mooncake) may be on one clock, too, as in the parts of one trace that count on. If they overlap, nothing in the
files says whether they follow each other: they are overlaid, and a note says so.
"""

from collections.abc import Sequence

import numpy as np

from extproc.planning.workload.lengths import Floats, LeftOut, Lengths

__all__ = ["joined"]

ABSOLUTE_S = 1e8  # since 1970: March 1973; no trace is three years long
NAMED = 8


def joined(traces: Sequence[Lengths]) -> Lengths:
    """Return the requests of all traces, in order of arrival if all have times.

    A trace without prefixes leaves the whole without; prefixes are those of each trace by itself.
    """
    prompt, output = (np.concatenate([getattr(t, name) for t in traces]) for name in ("prompt", "output"))
    source = " + ".join(trace.source for trace in traces)
    notes = dict.fromkeys(trace.note for trace in traces if trace.note)
    cached = None
    if all(trace.cached is not None for trace in traces):
        cached = np.concatenate([trace.cached for trace in traces if trace.cached is not None])
    counts = [trace.left_out for trace in traces]
    left_out = LeftOut(
        sum(each.early for each in counts),
        sum(each.undecided for each in counts),
        sum(each.requests for each in counts),
    )
    timed = [trace for trace in traces if trace.arrival_s is not None]
    if len(timed) < len(traces):
        if timed:
            notes[_untimed([trace.source for trace in traces if trace.arrival_s is None])] = None
        return Lengths(prompt, output, source, None, " ".join(notes), cached=cached, left_out=left_out)
    how = _overlaid(timed)
    if how:
        source, notes = f"{source} (overlaid)", notes | {how: None}
    arrival, start_s = _on_one_clock(timed)
    order = np.argsort(arrival, kind="stable")
    return Lengths(
        prompt[order],
        output[order],
        source,
        arrival[order],
        " ".join(notes),
        cached=None if cached is None else cached[order],
        start_s=start_s,
        left_out=left_out,
    )


def _on_one_clock(traces: Sequence[Lengths]) -> tuple[Floats, float]:
    """Return all arrival times, counted from the first request of all, and the time of that request."""
    starts_s = [0.0] * len(traces) if _differ(traces) else [trace.start_s for trace in traces]
    first_s = min(starts_s)
    times = zip(traces, starts_s, strict=True)
    arrivals = [trace.arrival_s + start_s - first_s for trace, start_s in times if trace.arrival_s is not None]
    return np.concatenate(arrivals), first_s


def _differ(traces: Sequence[Lengths]) -> bool:
    """Return whether only some of the traces have absolute times."""
    return len({trace.start_s >= ABSOLUTE_S for trace in traces}) > 1


def _untimed(names: Sequence[str]) -> str:
    """Return the note about traces without times beside others that have them."""
    return f"There are no times in {_enumerated(names)}: those of the other files are not used."


def _enumerated(names: Sequence[str]) -> str:
    """Return names as they are read out, at most some of them."""
    if len(names) == 1:
        return names[0]
    last = names[-1] if len(names) <= NAMED + 1 else f"{len(names) - NAMED} more"
    return f"{', '.join(names[: min(NAMED, len(names) - 1)])} and {last}"


def _overlaid(traces: Sequence[Lengths]) -> str:
    """Return the note about traces that are overlaid although that is not known to be right, or ''."""
    names = _enumerated([trace.source for trace in traces])
    if _differ(traces):
        return (
            f"Some times of {names} are dates and others are relative: each file is counted from its first "
            "request, so their requests are taken to arrive in the same period."
        )
    spans = sorted(
        (each.start_s, each.start_s + each.arrival_s[-1]) for each in traces if each.arrival_s is not None
    )
    overlap = any(
        start_s < max(end for _, end in spans[:after]) for after, (start_s, _) in enumerate(spans) if after
    )
    if not overlap or traces[0].start_s >= ABSOLUTE_S:
        return ""
    return (
        f"The times of {names} are relative and overlap: their requests are taken to arrive in the same period, "
        "not one file after the other."
    )
