"""How much one client with long outputs decides the length that is assumed for the requests of all others.

python -m bench.output_shares
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

from extproc.core.estimator.output_lengths import OutputLengths
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.settings import EstimatorSettings

__all__: list[str] = []

RESPONSES, WARM_UP = 12_000, 2_000
LONG_TOKENS, SHORT_TOKENS = 16_000, (50, 400)
ASSUMED_LONG_TOKENS = 1_000
SHARES = (0.012, 0.05, 0.2, 0.4, 0.6)
CATEGORY = CategoryKey("model", "latin")
LONG_CLIENT = 0


def main() -> None:
    """Print the share of the others' requests that are assumed to be long, for each share of the long client."""
    print("| share of the long one | all different | 300 | 100 | 20 clients | all as one source |")
    print("|---|---|---|---|---|---|")
    for share in SHARES:
        row = [_assumed_long(share, others) for others in _crowds()]
        print(f"| {100 * share:g} % | {' | '.join(f'{100 * each:.0f} %' for each in row)} |")


def _crowds() -> Iterator[Callable[[int], int]]:
    """Yield functions from the number of a request to its source, which is not LONG_CLIENT unless all are one."""
    yield lambda number: 1 + number
    for clients in (300, 100, 20):
        yield partial(_one_of, clients, random.Random(clients))  # noqa: S311
    yield lambda _number: LONG_CLIENT


def _one_of(clients: int, drawn: random.Random, _number: int) -> int:
    return drawn.randint(1, clients)


def _assumed_long(share: float, source_of: Callable[[int], int]) -> float:
    lengths, drawn = OutputLengths(EstimatorSettings()), random.Random(1)  # noqa: S311
    long = asked = 0
    for number in range(RESPONSES):
        is_long = drawn.random() < share
        source = LONG_CLIENT if is_long else source_of(number)
        assumed = lengths.tokens(None, CATEGORY, source)
        if not is_long and number >= WARM_UP:
            asked += 1
            long += assumed > ASSUMED_LONG_TOKENS
        tokens = LONG_TOKENS if is_long else drawn.randint(*SHORT_TOKENS)
        lengths.observe(CATEGORY, tokens, cut=False, number=lengths.number, source=source)
    return long / asked


if __name__ == "__main__":
    main()
