"""Values of the chart: which are refused, and what the error says."""

from pathlib import Path
from textwrap import indent

import pytest

from extproc.config.loading import parse
from tests.unit.chart import (
    CHART,
    HELM,
    KUBERNETES,
    NO_HELM,
    ROOT,
    STORE,
    documents,
    helm,
    provider,
    rejected,
    rendered,
)

OWN_TLS = ("config.listen.tls.certificate_file=/c", "config.listen.tls.private_key_file=/k")

pytestmark = pytest.mark.skipif(HELM is None, reason=NO_HELM)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (("store.passwordSecret=redis",), "url is not set"),
        (("tls.clientCa=true",), "tls.secretName is not set"),
        (("config.listen.address=[::]:9100",), "allowed: port 9002"),
        (("config.listen.address=unix:/run/router.sock",), "allowed: port 9002"),
        (("config.listen.address=127.0.0.1:9002",), "only the pod itself"),
        (("config.listen.address=localhost:9002",), "only the pod itself"),
        (("config.listen.address=[::1]:9002",), "only the pod itself"),
        (OWN_TLS, "config.listen.tls: given, but the probe"),
        (("tls.secretName=pair", *OWN_TLS), "config.listen.tls.certificate_file: /c given"),
        (("tls.secretName=pair", "config.listen.health_address=[::]:1"), "sets [::]:9099, from tls.secretName"),
        (("config.drain_s=0",), "config.drain_s: 0 given; the chart sets 15, from drainSeconds: leave it out"),
        (
            ("config.admin.address=[::]:9090",),
            "config.admin.address: [::]:9090 given; the chart sets 127.0.0.1:9091:",
        ),
        (("config.admin.probes_address=[::]:9091",), "the chart sets [::]:9090: leave it out"),
        (("admin.tokenSecret=token", "config.admin.token_file=/t"), "from admin.tokenSecret"),
        (("store.passwordSecret=p", STORE, "config.state.store.password_file=/p"), "from store.passwordSecret"),
        (("autoscaling.enabled=true", "autoscaling.minReplicas=9"), "at most maxReplicas, 8"),
        (("config.modus=shadow",), "modus"),
        (("config.mode=maybe",), "mode"),
        (("config.exchange.deadline_ms=0",), "deadline_ms"),
        (("replica=3",), "replica"),
        (("provider.name=nginx",), "provider"),
        (("workers=2", "provider.name=istio"), "replicas"),
        (("provider.name=istio", "config.pools[0].name=tiny", "config.pools[0].max_budget_tokens=9"), "not tiny"),
        (("provider.name=istio", "tls.secretName=pair"), "plain gRPC"),
        (("provider.name=istio", *provider("istio, sidecars"), "provider.istio.gatewayApi=true"), "either"),
        (("autoscaling.enabled=true", "autoscaling.targetCPUPercent=0"), "targetStreamsPerSecond"),
    ],
)
def test_wrong_values_are_rejected(settings: tuple[str, ...], why: str) -> None:
    """A value that is unknown, not allowed, or contradicts another is an error that names it."""
    assert why in rejected(*settings)


def test_the_configuration_of_the_plain_manifests_is_a_value(tmp_path: Path) -> None:
    """What the chart sets may be given, too, as long as it is the same."""
    configuration = documents(ROOT / "deploy" / "kubernetes" / "configmap.yaml")[0]["data"]["dualpool.yaml"]
    values = tmp_path / "values.yaml"
    values.write_text("config:\n" + indent(f"listen: {{tls: null}}\n{configuration}", "  "))
    ran = helm("template", "dualpool", CHART, "--kube-version", KUBERNETES, "--values", values)
    assert 0 == ran.returncode, ran.stderr


def test_several_processes_may_have_a_certificate_that_is_no_secret() -> None:
    """Probes do not ask their ports, so a volume of the user's own may hold it."""
    settings = parse(rendered("workers=2", *OWN_TLS)["ConfigMap", "dualpool"]["data"]["dualpool.yaml"])
    assert settings.listen.tls is not None
    assert "/c" == settings.listen.tls.certificate_file
