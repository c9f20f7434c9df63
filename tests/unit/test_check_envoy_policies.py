"""`dualpool check envoy` on Envoy Gateway's policies: which of them is in force on a route, whole or merged."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.unit.test_check_envoy_manifests import names_of

Changes = dict[str, str]
# A route of a Gateway, and another processor for it.
GUARDED: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec: {parentRefs: [{name: %s}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: guard}
spec:
  targetRefs: [{kind: HTTPRoute, name: web}]
  extProc: [{backendRefs: [{name: guard, port: 9000}], processingMode: {request: {}}}]
"""
RETRIES: Final = "retries-on-default-route"
FULL_DUPLEX: Final = {"request: {body: Buffered}": "request: {body: FullDuplexStreamed}"}
RULE: Final = "    - matches: [{path: {type: PathPrefix, value: /}}]\n"
UNLIMITED: Final = "      # No limit on the whole response: a generation may take minutes.\n"
FALLBACK: Final = "        - {group: gateway.envoyproxy.io, kind: Backend, name: vllm-long-fallback}\n"
LONG_POLICY: Final = (
    "metadata: {name: llm}\nspec:\n  targetRefs:\n    - {group: gateway.networking.k8s.io, kind: HTTPRoute"
)
ROUTES: Final = """    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-very"""
NO_ROUTE: Final = {ROUTES: "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-very"}
EXTENSION: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: checks}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, %s}]
  %s
"""
GUARD: Final = "extProc: [{backendRefs: [{name: guard, port: 9000}], processingMode: {request: {}}}]"
MERGED: Final = "mergeType: StrategicMerge"


def traffic(target: str, spec: str = "retry: {numRetries: 2}", name: str = "all", namespace: str = "") -> str:
    """Return a BackendTrafficPolicy."""
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: {name}, namespace: {namespace or "''"}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  {spec}
"""


def changed(changes: Changes) -> Callable[[str], str]:
    """Return a function that makes these changes in a text."""

    def change(text: str) -> str:
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    return change


def traps(*more: str, changes: Changes | None = None, first: bool = False) -> set[str]:
    """Return the traps in our manifests with changes, and with other objects after or before them."""
    return names_of("envoy gateway", *more, change=changed(changes or {}), first=first)


@pytest.mark.parametrize("retry", ["{attempts: 3, codes: [503]}", "{attempts: 0}", "{backoff: 1s}"])
def test_retry_of_a_rule_on_the_default_route(retry: str) -> None:
    """An HTTPRoute's own `retry` is a policy, even with no attempts, and corrupts bodies; null is none."""
    assert RETRIES not in traps(changes={**FULL_DUPLEX, UNLIMITED: "      retry:\n"})
    assert RETRIES in traps(changes={**FULL_DUPLEX, UNLIMITED: f"      retry: {retry}\n"})


def test_retry_of_a_rule_replaces_the_policy_s() -> None:
    """On the pool's route a rule's `retry` leaves nothing of the policy's: neither its statuses nor priorities."""
    rule = {FALLBACK: f"{FALLBACK}      retry: {{attempts: 1, codes: [503]}}\n"}
    assert {"repair-missing", "repair-same-pool"} == traps(changes=rule)


def test_conditions_without_statuses_retry_none() -> None:
    """The default status, 503, does not count beside conditions that list none."""
    conditions = "triggers: [retriable-status-codes, refused-stream]"
    given = "triggers: [retriable-status-codes, connect-failure, refused-stream, reset]"
    only_400 = {given: conditions, "[400, 404, 413, 422, 503]": "[400]"}
    assert {"repair-missing"} == traps(changes=only_400)
    assert {"repair-missing"} == traps(changes={given: conditions, "      httpStatusCodes: [400": "      # [400"})


@pytest.mark.parametrize(
    ("target", "changes", "found"),
    [
        ("kind: Gateway, name: llm", {}, False),  # the route's own policy is in force
        ("kind: Gateway, name: llm", NO_ROUTE, True),
        ("kind: Gateway, name: other", NO_ROUTE, False),
        ("kind: Gateway, name: llm, sectionName: https", NO_ROUTE, True),
        (
            "kind: Gateway, name: llm, sectionName: https",
            {**NO_ROUTE, "parentRefs: [{name: llm}]": "parentRefs: [{name: llm, sectionName: http}]"},
            False,
        ),
        ("kind: HTTPRoute, name: llm, sectionName: main", {}, False),  # no such rule
        (
            "kind: HTTPRoute, name: llm, sectionName: main",
            {RULE: RULE.replace("- ", "- name: main\n      ", 1)},
            True,
        ),
        ("kind: Gateway, name: llm", {LONG_POLICY: LONG_POLICY.replace("spec:\n", f"spec:\n  {MERGED}\n")}, True),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_retries_of_another_policy(target: str, changes: Changes, found: bool, first: bool) -> None:  # noqa: FBT001
    """The most specific policy is in force as a whole, unless it is merged into that of its Gateway."""
    assert found == (RETRIES in traps(traffic(target), changes={**FULL_DUPLEX, **changes}, first=first))


def test_a_policy_of_another_namespace() -> None:
    """A policy targets routes of its own namespace."""
    ours = {**FULL_DUPLEX, **NO_ROUTE, "metadata: {name: llm}": "metadata: {name: llm, namespace: models}"}
    policy = traffic("kind: HTTPRoute, name: llm", namespace="shop")
    assert RETRIES not in traps(policy, changes=ours)
    assert RETRIES in traps(policy.replace("shop", "models"), changes=ours)


@pytest.mark.parametrize(
    ("timeouts", "found"),
    [
        ("timeouts: {request: 0s, backendRequest: 60s}", {"response-cut"}),
        ("timeouts: {backendRequest: 0s}", set()),
        ("timeouts: {request: 0s, backendRequest: 60s}\n      retry: {attempts: 0}", {"response-cut"}),
    ],
)
def test_timeouts_of_the_backend(timeouts: str, found: set[str]) -> None:
    """The timeout of the backend is that of the whole response, or of one try."""
    rule = "      timeouts: {request: 0s}\n"
    assert found == traps(changes={UNLIMITED + rule: f"      {timeouts}\n"})


def test_idle_timeout_of_a_policy() -> None:
    """A route's idle timeout replaces the listener's."""
    given = "    tcp: {connectTimeout: 1s}"
    assert {"response-cut"} == traps(changes={given: f"    http: {{streamIdleTimeout: 20s}}\n{given}"})


@pytest.mark.parametrize(
    ("target", "limit", "found"),
    [
        ("kind: HTTPRoute, name: llm", "global: {rules: [{limit: {requests: 9, unit: Hour}}]}", True),
        ("kind: HTTPRoute, name: llm", "local: {rules: [{limit: {requests: 9, unit: Hour}}]}", False),
        ("kind: HTTPRoute, name: llm-upgrade", "global: {rules: [{limit: {requests: 9, unit: Hour}}]}", False),
    ],
)
def test_limits_of_a_rate(target: str, limit: str, found: bool) -> None:  # noqa: FBT001
    """Envoy Gateway asks its rate limit service after the router: in full duplex that cuts bodies."""
    policy = traffic(target, f"rateLimit: {{{limit}}}")
    assert found == ("waiting-filter-after" in traps(policy, changes=FULL_DUPLEX, first=True))
    assert set() == traps(policy, first=True)


def test_shadow_mode() -> None:
    """Envoy Gateway's name for a processor that is only told of requests."""
    assert "only-observed" in traps(
        changes={"      failOpen: true": "      failOpen: true\n      shadowMode: true"}
    )


@pytest.mark.parametrize(
    ("target", "spec", "found"),
    [
        # On the Gateway: the router's own policy is in force on the routes, and the other one is not.
        ("kind: Gateway, name: llm", GUARD, set()),
        ("kind: Gateway, name: llm", "wasm: [{name: x}]", set()),
        # On a rule: the other policy is in force there, and the router is not asked.
        ("kind: HTTPRoute, name: llm, sectionName: main", "lua: [{inline: x}]", {"pool-without-route"}),
        # Merged into the Gateway's, which is not the router's.
        ("kind: HTTPRoute, name: llm, sectionName: main", f"lua: []\n  {MERGED}", {"pool-without-route"}),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_another_extension_policy(target: str, spec: str, found: set[str], first: bool) -> None:  # noqa: FBT001
    """Of several EnvoyExtensionPolicies only the most specific one is in force on a route."""
    named = {RULE: RULE.replace("- ", "- name: main\n      ", 1)}
    assert found == traps(EXTENSION % (target, spec), changes=named, first=first)


def test_the_router_s_policy_on_the_gateway() -> None:
    """A route's own extension policy displaces that of the Gateway, unless it is merged into it."""
    refs = "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}\n"
    short = "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-short}\n  extProc:"
    gateway = {refs + short: "    - {group: gateway.networking.k8s.io, kind: Gateway, name: llm}\n  extProc:"}
    # The router is asked for the largest bodies and for upgrades, too.
    assert {"buffer-below-body-cap", "upgrade-hangs"} == traps(changes=gateway)
    retried = {**gateway, **FULL_DUPLEX, UNLIMITED: "      retry: {attempts: 1}\n"}
    lua = "lua: [{inline: x}]"
    assert RETRIES in traps(changes=retried)
    assert RETRIES not in traps(EXTENSION % ("kind: HTTPRoute, name: llm", lua), changes=retried)
    assert RETRIES in traps(EXTENSION % ("kind: HTTPRoute, name: llm", f"{lua}\n  {MERGED}"), changes=retried)


@pytest.mark.parametrize("first", [False, True])
def test_another_gateway_of_the_cluster(first: bool) -> None:  # noqa: FBT001
    """Routes and settings of another Gateway are none of ours, even if they are for all hosts and paths."""
    web = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: web}
        spec:
          parentRefs: [{name: web}]
          rules:
            - matches: [{path: {value: /}, headers: [{name: a, value: b}, {name: c, value: d}]}]
              backendRefs: [{name: web, port: 80}]
            - matches: [{path: {value: /v1}}]
              backendRefs: [{name: web, port: 80}]
    """
    policy = """
        apiVersion: gateway.envoyproxy.io/v1alpha1
        kind: ClientTrafficPolicy
        metadata: {name: web}
        spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]}
    """
    assert set() == traps(web, policy, first=first)


def test_the_settings_of_one_listener() -> None:
    """A listener's ClientTrafficPolicy replaces that of its Gateway, for requests that come by that listener."""
    policy = """
        apiVersion: gateway.envoyproxy.io/v1alpha1
        kind: ClientTrafficPolicy
        metadata: {name: plain}
        spec:
          targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: llm, sectionName: http}]
    """
    https = {"parentRefs: [{name: llm}]": "parentRefs: [{name: llm, sectionName: https}]"}
    assert {"spoofable-header", "buffer-below-body-cap"} <= traps(policy)
    assert set() == traps(policy, changes=https)


def test_a_route_of_a_listener_set() -> None:
    """A ListenerSet's routes have the policies of its Gateway."""
    set_ = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: ListenerSet
        metadata: {name: models}
        spec: {parentRef: {name: llm}}
    """
    assert set() == traps(set_, changes={"[{name: llm}]": "[{kind: ListenerSet, name: models}]"})
