"""Durations and sizes as manifests write them."""

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.kubernetes.manifests import bytes_of, items_of, seconds_of, used
from extproc.gateways.parsing.sources import Place, read

HERE = Place("file.yaml", line=1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7", 7),
        ("3k", 3_000),
        ("3M", 3_000_000),
        ("3G", 3_000_000_000),
        ("3Ki", 3 << 10),
        ("3Mi", 3 << 20),
        ("3Gi", 3 << 30),
        ("0.5Mi", 1 << 19),
    ],
)
def test_sizes(text: str, found: int) -> None:
    """Kubernetes' units are powers of 1,000, or of 1,024."""
    assert found == bytes_of(text, HERE)


@pytest.mark.parametrize(
    ("text", "found"),
    [("500ms", "0.5s"), ("90s", "90s"), ("1m30s", "90s"), ("1h1m", "3660s"), ("1.5s", "1.5s"), ("0s", "0s")],
)
def test_durations(text: str, found: str) -> None:
    """They are written as Go's, and read by Envoy in seconds."""
    assert found == seconds_of(text, HERE)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "1d", "-5s"])
def test_durations_that_are_none(text: str) -> None:
    """They are refused with their place."""
    with pytest.raises(ConfigurationError, match=r"file\.yaml:1: .* is not a duration"):
        seconds_of(text, HERE)


@pytest.mark.parametrize("text", ["", "Mi", "5 Mi", "5Ti", "-5"])
def test_sizes_that_are_none(text: str) -> None:
    """They are refused with their place."""
    with pytest.raises(ConfigurationError, match=r"file\.yaml:1: .* is not a quantity"):
        bytes_of(text, HERE)


@pytest.mark.parametrize("text", ["4Gi", "4294967296", "9" * 400])
def test_sizes_that_envoy_does_not_have(text: str) -> None:
    """So are those that its messages cannot hold."""
    assert 4_294_967_295 == bytes_of("4294967295", HERE)
    with pytest.raises(ConfigurationError, match=r"file\.yaml:1: .* given; allowed: up to 4,294,967,295 bytes"):
        bytes_of(text, HERE)


def test_weights() -> None:
    """A backend of weight 0 gets nothing, and one that says none gets its share."""
    (given,) = read("refs: [{name: a, weight: 0}, {name: b, weight: 1}, {name: c}]", "file.yaml")
    assert ["b", "c"] == [each["name"] for each in used(items_of(given, "refs"))]
