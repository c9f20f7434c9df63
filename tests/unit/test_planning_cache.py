"""What a cached result of the planner depends on besides its task."""

from importlib.metadata import PackageNotFoundError

import pytest

from extproc.planning.simulation import cache


def test_results_depend_on_where_iteration_times_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version of the package of measured times, or without it, nothing is taken from the cache."""

    def missing(_: str) -> str:
        raise PackageNotFoundError

    codes = []
    for version in (lambda _: "1", lambda _: "2", missing, missing):
        monkeypatch.setattr(cache, "version", version)
        codes.append(cache._code_hash())
    assert len(set(codes)) == 3
    assert codes[2] == codes[3]
