import json
from collections import Counter

import pytest

from extproc.core.apis import api_of, read_request
from extproc.core.errors import ConfigurationError
from extproc.demo.workload import Endpoint, workload
from extproc.emulator.tokenizers import ByteRule

LONG = 65_536
KINDS = {
    *("JSON and logs", "chat", "code", "cold start", "completions", "embeddings", "images", "languages"),
    *("long texts", "near the limit", "responses", "short pool fails", "streaming", "too large", "tools"),
}


@pytest.mark.parametrize("requests", [40, 41, 100, 300, 1000])
def test_a_run_of_any_length_has_every_kind(requests: int) -> None:
    """A run has exactly as many requests as asked for, of every kind; no pool holds one, and one fails."""
    asks = workload(requests, LONG)
    assert len(asks) == requests
    assert {ask.kind for ask in asks} == KINDS
    assert sum(ask.no_pool_holds_it for ask in asks) == 1
    assert [ask.kind for ask in asks if ask.headers] == ["short pool fails"]


def test_a_run_can_be_repeated() -> None:
    """The same length gives the same requests in the same order."""
    assert workload(60, LONG) == workload(60, LONG)


def test_numbers_are_unique() -> None:
    """Each request has a unique number, which identifies it in the access log."""
    numbers = Counter(ask.number for ask in workload(300, LONG))
    assert set(numbers.values()) == {1}
    assert set(numbers) == set(range(300))


def test_too_few_requests_are_rejected() -> None:
    """A run that is too short to show all kinds is a configuration error that names the minimum."""
    with pytest.raises(ConfigurationError, match="39 are too few; at least 40 are needed to show all"):
        workload(39, LONG)


def test_all_requests_are_understood_and_declare_what_they_say() -> None:
    """The router understands every body, and the recorded limits are those in the bodies."""
    for ask in workload(60, LONG):
        api = api_of("POST", f"/v1/{ask.endpoint}")
        assert api is not None
        facts = read_request(api, json.dumps(ask.arguments).encode())
        assert facts.stream == ask.stream
        if ask.endpoint is not Endpoint.EMBEDDINGS:
            assert facts.max_output_tokens == ask.output_tokens


def test_the_one_too_large_is_too_large_for_any_tokenizer() -> None:
    """The text that no pool holds has 12 characters per token of the long pool, and is ordinary English."""
    large = next(ask for ask in workload(60, LONG) if ask.no_pool_holds_it)
    text = large.arguments["messages"][0]["content"]
    assert len(text) == 12 * LONG
    assert len(text) / ByteRule().count(text) < 6
