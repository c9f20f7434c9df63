"""Our server with one part left out: every request gets the first one's decision, without a look at its body.

What it costs beyond the bare server is all that is not deciding: messages to events and back, the exchange, and
metrics. Run: python -m bench.constant serve --config FILE, as the router itself.
"""

import sys

from extproc.cli.main import main
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.decision import Decision
from extproc.core.router.router import Router

__all__: list[str] = []

_decide = Router.decide
_first: list[Decision] = []


def _constant(router: Router, api: Api, head: RequestHead, body: bytes) -> Decision:
    if not _first:
        _first.append(_decide(router, api, head, body))
    return _first[0]


if __name__ == "__main__":
    Router.decide = _constant  # type: ignore[assignment, method-assign]
    sys.exit(main())
