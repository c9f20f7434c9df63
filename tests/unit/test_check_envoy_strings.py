"""Evaluation of the string matchers of Envoy's routes and filters."""

from typing import Any

import pytest
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from google.protobuf.json_format import ParseDict

from extproc.gateways.matching.headers import HeaderMatch
from extproc.gateways.matching.paths import PathMatch
from extproc.gateways.matching.strings import regex_matches, string_matches


@pytest.mark.parametrize(
    ("matcher", "texts"),
    [
        ({"exact": "ab"}, {"ab"}),
        ({"prefix": "a"}, {"a", "ab", "aB"}),
        ({"suffix": "b"}, {"ab", "b", "bb"}),
        ({"contains": "B"}, {"aB"}),
        ({"contains": "B", "ignore_case": True}, {"aB", "ab", "b", "bb"}),
        ({"exact": "AB", "ignore_case": True}, {"aB", "ab"}),
        ({"safe_regex": {"regex": "a.?"}}, {"a", "ab", "aB"}),
        ({"safe_regex": {"regex": "A.?"}, "ignore_case": True}, set()),  # Envoy does not apply it to expressions
        ({"safe_regex": {"regex": "("}}, set()),
        ({"custom": {"name": "x"}}, set()),
        ({}, set()),
    ],
)
def test_string_matchers(matcher: dict[str, Any], texts: set[str]) -> None:
    """Each kind matches what Envoy's documentation says; what cannot be evaluated matches nothing."""
    parsed = ParseDict(matcher, StringMatcher())
    assert texts == {text for text in ("a", "ab", "aB", "b", "bb", "c") if string_matches(parsed, text)}


@pytest.mark.parametrize("pattern", ["(?<", "a{99999999999}", "(" * 9999 + ")" * 9999, "[[:alpha:]]+"])
@pytest.mark.filterwarnings("error")
def test_an_expression_that_cannot_be_read(pattern: str) -> None:
    """It matches nothing, without an error or a warning of Python's."""
    assert not regex_matches(pattern, "a")


def test_an_expression_is_for_a_whole_text() -> None:
    """What has more in it does not match."""
    assert regex_matches("a+", "aa")
    assert not regex_matches("a", "aa")


@pytest.mark.parametrize(
    ("match", "values", "absent"),
    [
        (HeaderMatch("n", exact="5"), {"5"}, False),
        (HeaderMatch("n", exact="5", inverted=True), {"1", "9", "x", ""}, False),
        (HeaderMatch("n", exact="5", inverted=True, empty_if_absent=True), {"1", "9", "x", ""}, True),
        (HeaderMatch("n", exact="", empty_if_absent=True), {""}, True),
        (HeaderMatch("n", numbers=(1, 9)), {"1", "5"}, False),
        (HeaderMatch("n", numbers=(1, 9), inverted=True), {"9", "x", ""}, False),
        (HeaderMatch("n", regex="[0-9]*"), {"1", "5", "9", ""}, False),
        (HeaderMatch("n", regex="[0-9]*", empty_if_absent=True), {"1", "5", "9", ""}, True),
        (HeaderMatch("n"), {"1", "5", "9", "x", ""}, False),
        (HeaderMatch("n", present=True), {"1", "5", "9", "x", ""}, False),
        (HeaderMatch("n", present=True, inverted=True), set(), True),
        (HeaderMatch("n", present=False), set(), True),
        (HeaderMatch("n", present=False, inverted=True), {"1", "5", "9", "x", ""}, False),
    ],
)
def test_conditions_on_a_header(match: HeaderMatch, values: set[str], absent: bool) -> None:  # noqa: FBT001
    """Which values match, and whether a request without the header does."""
    assert values == {value for value in ("1", "5", "9", "x", "") if match.matches(value)}
    assert absent == match.matches_absent
    assert not match.matches_known({"other": "5"})
    assert match.matches_known({"n": "5"}) == ("5" in values)


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        (("prefix", "/v1"), ("prefix", "/v1beta"), True),
        (("prefix", "/v1"), ("path_separated_prefix", "/v1"), True),
        (("path_separated_prefix", "/v1"), ("prefix", "/v1"), False),
        (("path_separated_prefix", "/v1"), ("prefix", "/v1/"), True),
        (("path_separated_prefix", "/v1"), ("path_separated_prefix", "/v1beta"), False),
        (("path_separated_prefix", "/v1"), ("path_separated_prefix", "/v1/a"), True),
        (("path_separated_prefix", "/v1"), ("path", "/v1"), True),
        (("path", "/v1"), ("path_separated_prefix", "/v1"), False),
        (("path", "/v1"), ("path", "/v1"), True),
        (("path", "/v1"), ("path", "/v1/a"), False),
        (("safe_regex", "/v1.*"), ("prefix", "/v1"), True),
        (("safe_regex", "/v1"), ("prefix", "/v1"), False),
        (("safe_regex", "/v1"), ("path", "/v1"), True),
        (("safe_regex", "/v1\\.*"), ("prefix", "/v1"), False),
        (("safe_regex", "/v1|/v2.*"), ("prefix", "/v2"), False),
        (("safe_regex", "/(v1|v2).*"), ("prefix", "/v2"), True),
        (("safe_regex", "/v1.*$"), ("prefix", "/v1"), True),
        (("prefix", "/"), ("safe_regex", "/v1.*"), True),
        (("prefix", "/v1"), ("safe_regex", "/v1.*"), False),
        (("prefix", "/"), ("connect_matcher", ""), True),
    ],
)
def test_paths_of_two_conditions(one: tuple[str, str], other: tuple[str, str], covers: bool) -> None:  # noqa: FBT001
    """One takes all paths of another one only if that is certain."""
    assert covers == PathMatch(*one).covers(PathMatch(*other))


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        (PathMatch("prefix", "/V1", any_case=True), PathMatch("prefix", "/v1/a"), True),
        (PathMatch("prefix", "/v1"), PathMatch("prefix", "/v1", any_case=True), False),
        (PathMatch("prefix", "/"), PathMatch("prefix", "/v1", any_case=True), True),
        (PathMatch("path", "/V1", any_case=True), PathMatch("path", "/v1", any_case=True), True),
        (PathMatch("path_separated_prefix", "/V1", any_case=True), PathMatch("path", "/v1/a"), True),
    ],
)
def test_paths_in_any_case(one: PathMatch, other: PathMatch, covers: bool) -> None:  # noqa: FBT001
    """A condition that minds the case does not take all that one takes that ignores it."""
    assert covers == one.covers(other)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (PathMatch("prefix", "/v1"), PathMatch("prefix", "/v2"), False),
        (PathMatch("prefix", "/v1"), PathMatch("prefix", "/"), True),
        (PathMatch("path_separated_prefix", "/v1"), PathMatch("prefix", "/v1b"), False),
        (PathMatch("prefix", "/V1"), PathMatch("path", "/v1", any_case=True), True),
        (PathMatch("prefix", "/V1"), PathMatch("path", "/v1"), False),
        (PathMatch("safe_regex", "/v1"), PathMatch("prefix", "/v2"), True),  # not known
        (PathMatch("prefix", "/v2"), PathMatch("safe_regex", "/v1"), True),
    ],
)
def test_paths_that_both_match(one: PathMatch, other: PathMatch, overlap: bool) -> None:  # noqa: FBT001
    """Two conditions may match the same path, or are known not to."""
    assert overlap == one.may_overlap(other) == other.may_overlap(one)
