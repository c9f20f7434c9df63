"""The results of all mutants as bench/mutants.md."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.mutation.baseline import NEAREST_SHARE, PATIENCE, PATIENCE_S
from bench.mutation.known import reason_of
from bench.mutation.mutants import Result, room_of
from bench.mutation.trial import Outcome

__all__ = ["RESULTS", "Run", "as_markdown"]

RESULTS = Path(__file__).parents[1] / "mutants.md"


# The largest share of non-equivalent mutants that may survive.
BAR = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """A run: results, the number of mutants in core and of those chosen, the seed of the sample, and the time.

    `minutes` is wall-clock time; `cpu_minutes` is CPU time, of all processes of the run together.
    """

    results: list[Result]
    existing: int
    chosen: int
    seed: int
    workers: int
    minutes: float
    cpu_minutes: float


def as_markdown(run: Run) -> str:
    """Return the document."""
    return "\n".join([*_head(run), *_table(run.results), *_reasons(run.results)]) + "\n"


def _head(run: Run) -> Iterator[str]:
    outcomes = Counter(result.outcome for result in run.results)
    left, equivalent = outcomes[Outcome.SURVIVED], outcomes[Outcome.EQUIVALENT]
    counting = len(run.results) - equivalent
    share = left / max(counting, 1)
    yield "# Mutants of core\n"
    yield (
        "`make mutants` changes one operator, number, bound or statement of `extproc/core` at a time and runs the"
        " unit tests that reach it, the nearest first, until one fails (bench/mutation/). A mutant is killed if a"
        f" test fails, or takes {PATIENCE_S:g} s more than {PATIENCE:g} times its usual time. A mutant that the"
        f" nearest tests do not kill (up to 1/{1 / NEAREST_SHARE:g} of the time of all) has survived. A mutant"
        " that behaves like the code is equivalent: no test could notice it, so none is run.\n"
    )
    yield (
        f"Core has {run.existing:,} mutants, not counting those of the table of measured prices (vocabularies.py)."
        f" {run.chosen:,} were chosen: all mutants of the files by which requests are routed, held and learned"
        f" from, and a sample of the others in each package, drawn with seed {run.seed}. {len(run.results):,} were"
        f" tried by {run.workers} workers in {run.minutes:.0f} minutes, with {run.cpu_minutes:.0f} minutes of CPU"
        f" time. {equivalent:,} are equivalent. Of the other {counting:,}, {left:,} survived ({share:.1%}): the"
        f" bar of {BAR:.0%} is {'met' if share <= BAR else 'missed'}.\n"
    )


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield "| | mutants | killed | of these by timeout | equivalent | survived |"
    yield "|---|---:|---:|---:|---:|---:|"
    for room in sorted({room_of(result.mutant) for result in results}):
        own = [result for result in results if room_of(result.mutant) == room]
        yield _row(f"**{room}**", own)
        for module in sorted({result.mutant.module for result in own}):
            yield _row(_short(module), [result for result in own if result.mutant.module == module])


def _row(name: str, results: Sequence[Result]) -> str:
    outcomes = Counter(result.outcome for result in results)
    killed = outcomes[Outcome.KILLED] + outcomes[Outcome.TIMEOUT]
    others = (outcomes[each] for each in (Outcome.TIMEOUT, Outcome.EQUIVALENT, Outcome.SURVIVED))
    return f"| {name} | {len(results)} | {killed} | {' | '.join(map(str, others))} |"


def _reasons(results: Sequence[Result]) -> Iterator[str]:
    for title, outcome in (("Survivors", Outcome.SURVIVED), ("Equivalent", Outcome.EQUIVALENT)):
        yield f"\n## {title}\n"
        chosen = [result for result in results if result.outcome is outcome]
        for result in chosen:
            reason = reason_of(result.mutant, result.change)
            place = f"{_short(result.mutant.module)}:{result.mutant.line}"
            text = reason.text if reason else "no reason is known"
            yield f"- {place} `{result.change.before}` -> `{result.change.after}`: {text}"
        if not chosen:
            yield "None."


def _short(module: str) -> str:
    return module.removeprefix("extproc/core/")
