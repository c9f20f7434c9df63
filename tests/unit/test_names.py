import json
import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.apis import read_request
from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, RequestFacts
from extproc.core.names import MAX_NAME_CHARS, bounded_name
from extproc.core.usage import Usage

KINDS: tuple[Literal["byteclass", "ema"], ...] = ("byteclass", "ema")


def request(model: str) -> RequestFacts:
    """Return the facts of a request to a model."""
    body = {"model": model, "messages": [{"role": "user", "content": "the same words to each of them " * 20}]}
    return read_request(Api.CHAT, json.dumps(body).encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("characters", [132, 1_000])
def test_models_whose_names_differ_only_at_the_end_share_nothing(
    kind: Literal["byteclass", "ema"], characters: int
) -> None:
    """What is learned about one long name is not used for another, however late the two differ."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    one, other = request("m" * (characters - 1) + "1"), request("m" * (characters - 1) + "2")
    estimator.observe(estimator.estimate(one, ""), Usage(100))
    assert Source.YOUNG is estimator.estimate(one, "").source
    assert Source.PRIOR is estimator.estimate(other, "").source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("characters", [132, 1_000])
def test_tenants_whose_names_differ_only_at_the_end_are_two_categories(
    kind: Literal["byteclass", "ema"], characters: int
) -> None:
    """Long tenant names have separate categories, too."""
    estimator = make_estimator(EstimatorSettings(kind=kind))
    for end in "12":
        estimator.observe(estimator.estimate(request("m"), "t" * (characters - 1) + end), Usage(100))
    keys = {row.category.key for row in estimator.state().categories if row.category.model}
    assert 2 == len(keys)
    assert max(map(len, keys)) <= MAX_NAME_CHARS


@given(st.text(alphabet=st.characters(), max_size=3 * MAX_NAME_CHARS))
def test_a_name_is_kept_whole_or_cut_to_the_cap(name: str) -> None:
    """Names up to the limit are kept, even with lone surrogates; longer ones become as long as the limit."""
    bounded = bounded_name(name)
    assert bounded == name or len(name) > MAX_NAME_CHARS == len(bounded)
    assert bounded == bounded_name(bounded)


def test_the_longest_name_stays_and_a_longer_one_ends_in_128_bits_of_digest() -> None:
    """128 bits make a collision of two names sufficiently unlikely."""
    longest = "m" * 256
    assert longest is bounded_name(longest)
    assert re.fullmatch(r"m{223}~[0-9a-f]{32}", bounded_name(longest + "m"))


def test_a_very_long_name_is_digested_by_its_ends_and_length() -> None:
    """The middle of a name above 8,192 characters is not digested, which bounds the time for very long ones."""
    start, middle, end = "a" * 4096, "b" * 100, "c" * 4096
    name = bounded_name(start + middle + end)
    assert MAX_NAME_CHARS == len(name)
    assert name == bounded_name(start + middle.replace("b", "d") + end)
    others = {
        bounded_name(start + middle + "b" + end),
        bounded_name("x" + name),
        bounded_name(start + end[:-1] + "d"),
    }
    assert name not in others
    assert bounded_name("a" * 8192) != bounded_name("a" * 4000 + "b" + "a" * 4191)
