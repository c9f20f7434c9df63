"""The search for all traps in all gateways that were read."""

from collections.abc import Iterable
from dataclasses import dataclass

from extproc.gateways.model import Gateway
from extproc.gateways.parsing.sources import Place
from extproc.gateways.router import Router
from extproc.gateways.traps import TRAPS
from extproc.gateways.traps.trap import Trap

__all__ = ["Finding", "Findings", "find_traps"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A trap, its place, and what is wrong there."""

    trap: Trap
    place: Place
    what: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings, and what could not be checked."""

    found: tuple[Finding, ...]
    unchecked: tuple[str, ...]
    gateways: int


def find_traps(gateways: Iterable[Gateway], router: Router, unchecked: Iterable[str] = ()) -> Findings:
    """Look for every trap; duplicates at the same place are reported once."""
    gateways = list(gateways)
    found = [
        Finding(trap, hit.place, hit.what)
        for gateway in gateways
        for trap in TRAPS
        for hit in trap.find(gateway, router)
    ]
    by_place = {(each.trap.name, each.place, each.what): each for each in found}
    return Findings(tuple(by_place.values()), tuple(dict.fromkeys(unchecked)), len(gateways))
