"""Our server without deciding: every request gets the first request's decision, and its body is not read.

What it costs more than the bare server is everything except deciding: converting messages to events and back, the
exchange, and metrics. Run like the router itself: python -m bench.constant serve --config FILE.
"""

import sys

from extproc.cli.main import main
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.decision import Decision
from extproc.core.router.placer import Placer

__all__: list[str] = []

_decide = Placer.decide
_first: list[Decision] = []


def _constant(placer: Placer, api: Api, head: RequestHead, body: bytes) -> Decision:
    if not _first:
        _first.append(_decide(placer, api, head, body))
    return _first[0]


if __name__ == "__main__":
    Placer.decide = _constant  # type: ignore[assignment, method-assign]
    sys.exit(main())
