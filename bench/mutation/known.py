"""The reasons why mutants survive, from known.toml."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.mutation.mutants import Change, Mutant, Result
from bench.mutation.trial import Outcome

__all__ = ["Reason", "reason_of", "unexplained", "unneeded"]

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a mutant survives: it is `equivalent` (no test could notice it), or a test would not be worth it."""

    equivalent: bool
    text: str


def reason_of(mutant: Mutant, change: Change) -> Reason | None:
    """Return why no test notices a change, or None if known.toml does not say."""
    return _KNOWN.get(_key(mutant, change))


def unexplained(results: Iterable[Result]) -> list[Result]:
    """Return the survivors without a reason."""
    return [
        result
        for result in results
        if result.outcome is Outcome.SURVIVED and reason_of(result.mutant, result.change) is None
    ]


def unneeded(results: Iterable[Result]) -> list[Key]:
    """Return the entries of known.toml whose mutants were killed; mutants that were not tried are not included."""
    killed = (Outcome.KILLED, Outcome.TIMEOUT)
    return sorted(set(_KNOWN) & {_key(each.mutant, each.change) for each in results if each.outcome in killed})


def _key(mutant: Mutant, change: Change) -> Key:
    return mutant.module, change.before, change.after


def _known() -> dict[Key, Reason]:
    """Read known.toml: module, lines before, lines after (one mutant each) and reason of each entry."""
    rows = tomllib.loads((Path(__file__).parent / "known.toml").read_text())["mutants"]
    return {
        (f"extproc/core/{row['module']}.py", row["before"], after): Reason(row["equivalent"], row["reason"])
        for row in rows
        for after in row["after"]
    }


_KNOWN = _known()
