"""The map of what is learned per category: the least recently used entry is evicted."""

from collections.abc import Callable

import pytest

from extproc.core.estimator.categories import CappedMap


@pytest.mark.parametrize(
    "touch", [lambda of: of.use("a"), lambda of: of.put("a", 2), lambda of: (of.get("b"), of.use("a"))]
)
def test_an_entry_that_is_used_or_set_again_is_evicted_last(
    touch: Callable[[CappedMap[str, int]], object],
) -> None:
    """To look one up is no use of it."""
    entries: CappedMap[str, int] = CappedMap(2, lambda _: 1)
    entries.use("a")
    entries.use("b")
    touch(entries)
    entries.use("c")
    assert ["a", "c"] == sorted(key for key, _ in entries)
    assert 2 == len(entries)
