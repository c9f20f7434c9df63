"""Functions that run the checker on a text or a document."""

import json

from extproc.gateways.findings import Finding, find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document

__all__ = ["found_in", "names_in"]


def found_in(text: str, router: Router | None = None) -> tuple[Finding, ...]:
    """Return the traps in a text."""
    router = router or Router()
    gateways = read_gateways(read(text, "file.yaml"), router)
    return find_traps(gateways.gateways, router, gateways.unchecked).found


def names_in(document: Document, router: Router | None = None) -> set[str]:
    """Return the names of the traps in a document."""
    return {each.trap.name for each in found_in(json.dumps(document), router)}
