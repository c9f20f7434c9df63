"""Our server without learning: entries of the access log are opened and reported, but the estimator sees none.

What it costs more than a released request is everything except learning: sealing and opening decisions, the larger
replies, decoding the log, and metrics. Run like the router itself: python -m bench.unlearned serve --config FILE.
"""

import sys

from extproc.cli.main import main
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Estimate, Learning
from extproc.core.usage import Usage

__all__: list[str] = []

_CONSTANT = Learning(ratio=1.0, under_counted=False, bytes_per_token=4.0)


def _nothing(
    _estimator: ByteClassEstimator, _estimate: Estimate, _usage: Usage, _pool_tokens: int | None = None
) -> Learning:
    return _CONSTANT


if __name__ == "__main__":
    ByteClassEstimator.observe = _nothing  # type: ignore[assignment, method-assign]
    sys.exit(main())
