"""How many calls of ours an exchange takes: what is counted is the same on every machine."""

import pytest

from bench.inside import BARS, Exchanges, calls


@pytest.mark.parametrize("part", BARS)
def test_an_exchange_takes_no_more_calls_than_its_bar(part: str) -> None:
    """Released, learned, and one event of a stream: at most so many calls of our functions each."""
    exchanges = Exchanges("byteclass")
    once = exchanges.counted()[part]
    once()  # what is made ahead at the first is made
    assert calls(once) <= BARS[part]
