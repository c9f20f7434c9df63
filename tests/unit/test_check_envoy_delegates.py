"""`dualpool check envoy` on VirtualServices whose rules leave their routes to other VirtualServices."""

import json
from typing import Any, Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.kubernetes.istio.delegates import Delegates
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.parsing.sources import read
from tests.unit.test_check_envoy_manifests import names_of

Match = dict[str, Any]
CUT: Final = "\n  http:\n"
OTHER: Final = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pools, namespace: %s}
spec:
  http:
"""


def delegating(text: str, rule: str, namespace: str) -> str:
    """Move the rules of our VirtualService into one that a rule of the first one refers to."""
    before, found, after = text.partition(CUT)
    rules, end, rest = after.partition("\n---\n")
    return f"{before}{CUT}{rule}{OTHER % namespace}{rules}{end}{rest}" if found else text


@pytest.mark.parametrize(
    ("rule", "namespace", "found"),
    [
        ("    - delegate: {name: pools}", "dualpool", set()),
        ("    - delegate: {name: pools, namespace: models}", "models", set()),
        ("    - match: [{uri: {prefix: /v1}}]\n      delegate: {name: pools}", "dualpool", set()),
        (
            "    - retries: {attempts: 1, perTryTimeout: 10s}\n      delegate: {name: pools}",
            "dualpool",
            {"response-cut"},
        ),
    ],
)
def test_pools_in_a_delegate(rule: str, namespace: str, found: set[str]) -> None:
    """The routes of the other VirtualService are in the place of the rule, with what the rule says of them."""
    assert found == names_of("istio", change=lambda text: delegating(text, rule, namespace))


def test_a_delegate_that_is_not_there() -> None:
    """Istio leaves out the rule: no request finds a route."""
    rule = "    - delegate: {name: pools}"
    assert {"pool-without-route"} == names_of("istio", change=lambda text: delegating(text, rule, "models"))


def test_a_virtual_service_without_hosts() -> None:
    """It is for others to delegate to: nothing arrives on its routes if none does."""
    alone = f"{OTHER % 'dualpool'}    - route: [{{destination: {{host: web}}}}]\n"
    assert set() == names_of("istio", alone.removeprefix("\n---"))


@pytest.mark.parametrize(
    ("gateways", "other", "found"),
    [
        ("[llm]", "", set()),
        ("[llm]", "[dualpool/llm]", set()),
        ("[./llm, mesh]", "[llm.dualpool]", set()),
        ("[llm]", "[llm]", {"pool-without-route"}),
    ],
)
def test_gateways_of_a_delegate_in_another_namespace(gateways: str, other: str, found: set[str]) -> None:
    """Short names of gateways are of the namespace of the VirtualService that says them."""
    rule = f"    - match: [{{gateways: {gateways}}}]\n      delegate: {{name: pools, namespace: models}}"

    def change(text: str) -> str:
        text = delegating(text, rule, "models")
        if not other:
            return text
        text = text.replace(
            "        - headers: {x-token", f"        - gateways: {other}\n          headers: {{x-token"
        )
        return text.replace("    - name: long\n", f"    - name: long\n      match: [{{gateways: {other}}}]\n")

    assert found == names_of("istio", change=change)


def rules_of(root: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of a VirtualService with one rule, which delegates to another one with one rule."""
    found = [
        {"kind": "VirtualService", "metadata": {"name": "a"}, "spec": {"hosts": ["a"], "http": [root]}},
        {"kind": "VirtualService", "metadata": {"name": "b"}, "spec": {"http": [other]}},
    ]
    objects = tuple(each for one in found for each in read(json.dumps(one), "file.yaml"))
    return [dict(rule) for _, rule in Delegates(Manifests(objects)).rules_of(objects[0])]


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        ({"name": "a"}, {"name": "b"}, {"name": "a-b"}),
        ({"name": "a"}, {}, {"name": "a"}),
        ({}, {"name": "b"}, {"name": "b"}),
        ({"timeout": "1s"}, {"timeout": "2s"}, {"timeout": "2s", "name": ""}),
        ({"retries": {"attempts": 1}}, {}, {"retries": {"attempts": 1}, "name": ""}),
    ],
)
def test_what_a_rule_says(one: Match, other: Match, merged: Match) -> None:
    """The other one's word counts, and names are joined."""
    assert [{"match": [], **merged}] == rules_of({**one, "delegate": {"name": "b"}}, other)


PREFIX: Final[Match] = {"uri": {"prefix": "/v1"}}
EXACT: Final[Match] = {"uri": {"exact": "/v1/a"}}
REGEX: Final[Match] = {"uri": {"regex": "/v1.*"}}
ANY: Final[Match] = {"headers": {"a": {}}}
VALUE: Final[Match] = {"headers": {"a": {"exact": "1"}}}


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (PREFIX, {"uri": {"prefix": "/v1/b"}}, {"uri": {"prefix": "/v1/b"}}),
        (PREFIX, EXACT, EXACT),
        (PREFIX, {"uri": {"prefix": "/v2"}}, None),
        (PREFIX, {"uri": {"exact": "/v2"}}, None),
        (PREFIX, REGEX, None),
        (REGEX, PREFIX, None),
        (EXACT, PREFIX, None),
        (EXACT, EXACT, EXACT),
        (EXACT, {"uri": {"exact": "/v1/b"}}, None),
        (PREFIX, {"method": {"exact": "POST"}}, {**PREFIX, "method": {"exact": "POST"}}),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "POST"}}, None),
        (VALUE, {"headers": {"b": {"exact": "2"}}}, {"headers": {"a": {"exact": "1"}, "b": {"exact": "2"}}}),
        (VALUE, {"headers": {"a": {"exact": "2"}}}, None),
        (VALUE, ANY, None),
        (ANY, VALUE, None),
        ({"withoutHeaders": {"a": {"exact": "1"}}}, {"withoutHeaders": {"a": {"exact": "2"}}}, None),
        ({"queryParams": {"a": {"exact": "1"}}}, {"queryParams": {"a": {"exact": "2"}}}, None),
        ({"ignoreUriCase": True}, {}, None),
        ({"port": 80}, {}, {"port": 80}),
        ({"port": 80}, {"port": 81}, None),
        ({}, {"port": 81}, {"port": 81}),
        ({"sourceNamespace": "a"}, {}, None),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "a"}, {"sourceNamespace": "a"}),
        ({"sourceLabels": {"a": "1"}}, {"sourceLabels": {"b": "2"}}, {"sourceLabels": {"a": "1", "b": "2"}}),
        ({"sourceLabels": {"a": "1"}}, {"sourceLabels": {"a": "2"}}, None),
        ({"gateways": ["a", "b"]}, {"gateways": ["a"]}, {"gateways": ["default/a"]}),
        ({"gateways": ["a"]}, {"gateways": ["b"]}, None),
        ({"gateways": ["a"]}, {}, {"gateways": ["default/a"]}),
        ({"name": "a"}, {"name": "b"}, {"name": "a-b"}),
    ],
)
def test_conditions_of_both(one: Match, other: Match, merged: Match | None) -> None:
    """The other one's conditions have to be within those of the rule: if they are not, its route is left out."""
    found = rules_of({"match": [one], "delegate": {"name": "b"}}, {"match": [other]})
    matches = [{name: each for name, each in match.items() if each} for rule in found for match in rule["match"]]
    assert ([] if merged is None else [merged]) == matches


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        ([PREFIX, VALUE], [EXACT], [EXACT, {**VALUE, **EXACT}]),
        ([PREFIX, {"uri": {"prefix": "/v2"}}], [EXACT], [EXACT]),
        ([PREFIX], [EXACT, {"uri": {"prefix": "/v2"}}], []),  # one is outside, and so none counts
        ([PREFIX, VALUE], [], [PREFIX, VALUE]),
        ([], [EXACT, PREFIX], [EXACT, PREFIX]),
    ],
)
def test_alternatives_of_both(one: list[Match], other: list[Match], merged: list[Match]) -> None:
    """Each alternative of the one holds together with each of the other one."""
    found = rules_of({"match": one, "delegate": {"name": "b"}}, {"match": other})
    assert merged == [
        {name: each for name, each in match.items() if each} for rule in found for match in rule["match"]
    ]


@pytest.mark.parametrize("match", [{"uri": "/v1"}, {"method": ["POST"]}, {"headers": {"a": "b"}}])
def test_conditions_that_are_none(match: Match) -> None:
    """What is in the place of a condition in both rules is reported."""
    with pytest.raises(ConfigurationError, match="is not a mapping"):
        rules_of({"match": [match], "delegate": {"name": "b"}}, {"match": [match]})
