"""The chart in deploy/helm, rendered by the real helm."""

import json
from itertools import permutations
from typing import Any

import pytest

from extproc.config.loading import parse
from extproc.gateways.render.numbers import Numbers
from extproc.server.app import LAST_STREAMS_S
from tests.unit.chart import (
    CHART,
    EVERYTHING,
    HELM,
    KUBERNETES,
    MOUNTED,
    NO_HELM,
    PROVIDERS,
    ROOT,
    STORE,
    documents,
    helm,
    provider,
    rendered,
)

pytestmark = pytest.mark.skipif(HELM is None, reason=NO_HELM)


def bare(document: Any) -> Any:
    """Return a document without what only the chart adds: labels of a release, checksum of the configuration."""
    ours = {
        "app.kubernetes.io/instance",
        "app.kubernetes.io/version",
        "app.kubernetes.io/managed-by",
        "helm.sh/chart",
    }
    match document:
        case dict():
            return {key: bare(each) for key, each in document.items() if key not in {*ours, "checksum/config"}}
        case list():
            return [bare(each) for each in document]
        case _:
            return document


@pytest.mark.parametrize("name", PROVIDERS)
def test_helm_lint_reports_nothing(name: str) -> None:
    """`helm lint --strict` passes for every provider, with every option switched on."""
    sets = [word for setting in (*provider(name), *EVERYTHING) for word in ("--set", setting)]
    ran = helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, *sets)
    assert 0 == ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", PROVIDERS)
def test_kubernetes_knows_every_field(name: str) -> None:
    """The manifests of Kubernetes' own kinds are valid against its published schemas, without unknown fields."""
    validator = pytest.importorskip("kubernetes_validate")
    everything = rendered(*provider(name), *EVERYTHING)
    known = 0
    for document in everything.values():
        group = document["apiVersion"].partition("/")[0]
        if group in {"v1", "apps", "policy", "autoscaling", "networking.k8s.io"}:
            validator.validate(document, KUBERNETES, strict=True)
            known += 1
    assert 8 == known


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_renders_the_files_in_deploy(name: str) -> None:
    """With the names used in deploy/, the chart renders exactly those files."""
    files = PROVIDERS[name][1]
    expected = [document for file in files for document in documents(ROOT / "deploy" / file)]
    ours = {"Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"}
    made = [each for (kind, _), each in rendered(*provider(name)).items() if kind not in ours]
    by_name = json.dumps
    assert sorted(map(by_name, expected)) == sorted(map(by_name, made))


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "none"])
def test_a_provider_takes_other_names(name: str) -> None:
    """If namespace, gateway, host and pools have other names, none of the files' own names is left."""
    sets = (
        *provider(name),
        "provider.gateway.name=edge",
        "provider.gateway.namespace=mesh",
        "provider.gateway.selector.istio=edge",
        "provider.host=ai.example.org",
        "provider.pools.short=small",
        "provider.pools.long=big",
        "provider.pools.port=9999",
        *(["provider.istio.sidecar.namespace=apps"] if "sidecars" in name else []),
    )
    others = rendered(*sets, "provider.envoyGateway.patches=true", namespace="inference")
    ours = {"Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"}
    text = json.dumps([each for (kind, _), each in others.items() if kind not in ours])
    old_names = (
        "vllm-",
        "8000",
        "llm.example.com",
        "ingressgateway",
        "istio-system",
        ".dualpool.svc",
        '"name": "llm"}]',
        '"callers"',
    )
    assert [] == [name for name in old_names if name in text]
    assert "small.inference" in text or '"small"' in text
    assert '"namespace": "dualpool"' not in text


@pytest.mark.parametrize("name", ["istio", "istio, Gateway API", "istio-inferencepool"])
def test_hosts_may_have_a_wildcard(name: str) -> None:
    """A * begins a reference in YAML; the host keeps it."""
    made = rendered(*provider(name), "provider.host=*.example.org")
    specs = [each["spec"] for (kind, _), each in made.items() if kind in {"VirtualService", "HTTPRoute"}]
    assert specs
    assert all(["*.example.org"] == spec.get("hosts", spec.get("hostnames")) for spec in specs)


def test_a_release_may_be_a_number() -> None:
    """Labels are text."""
    labels = rendered(release="123")["Deployment", "123-dualpool"]["spec"]["selector"]["matchLabels"]
    assert "123" == labels["app.kubernetes.io/instance"]


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "none"])
def test_two_releases_share_a_gateway(name: str) -> None:
    """What a release adds to a namespace or to a proxy has no name that another release's has."""
    both = [
        rendered(
            *provider(name),
            "provider.envoyGateway.patches=true",
            *(f"provider.pools.short={release}-s", f"provider.pools.long={release}-l"),
            release=release,
        )
        for release in ("dualpool", "dualpool-b", "b")
    ]
    for one, other in permutations(both, 2):
        assert set() == set(one) & set(other)
        assert set() == names_in_a_proxy(one) & names_in_a_proxy(other)


def test_the_access_log_has_one_name_in_all_releases() -> None:
    """A Gateway refers to it: Envoy Gateway has no proxies for one that refers to what an upgrade has renamed."""
    settings = (*provider("envoy-gateway"), "provider.envoyGateway.accessLog=true")
    one, other = (rendered(*settings, release=release) for release in ("dualpool", "b"))
    assert one["EnvoyProxy", "llm"] == other["EnvoyProxy", "llm"]


def names_in_a_proxy(made: dict[tuple[str, str], dict[str, Any]]) -> set[str]:
    """Return the names of filters, clusters and routes that an EnvoyFilter adds or patches; they are its own."""
    patches = [
        each
        for (kind, _), document in made.items()
        if kind == "EnvoyFilter"
        for each in document["spec"]["configPatches"]
    ]
    added = [each["patch"]["value"] for each in patches if each["applyTo"] in {"HTTP_FILTER", "CLUSTER"}]
    changed = [each for each in patches if each["applyTo"] == "HTTP_ROUTE"]
    routes = {each["match"]["routeConfiguration"]["vhost"]["route"]["name"] for each in changed}
    asked = {name for each in changed for name in each["patch"]["value"]["typed_per_filter_config"]}
    filters = {each["name"] for each in added if "name" in each}
    ours = {
        rule["name"]
        for (kind, _), document in made.items()
        if kind in {"VirtualService", "HTTPRoute"}
        for rule in document["spec"].get("http", document["spec"].get("rules"))
        if "name" in rule
    }
    assert routes <= ours | {""}
    assert asked <= filters
    return routes | filters


@pytest.mark.parametrize(
    ("settings", "proxies", "namespace"),
    [
        (("provider.name=istio", "provider.gateway.namespace=mesh"), "mesh", "istio-system"),
        ((*provider("istio, sidecars"), "provider.istio.sidecar.namespace=mesh"), "mesh", "callers"),
        (("provider.name=istio", "provider.gateway.namespace=dualpool"), "dualpool", "inference"),
    ],
)
def test_a_new_name_may_be_an_old_one(settings: tuple[str, ...], proxies: str, namespace: str) -> None:
    """A release in a namespace that the files name for something else stays there, and so does its filter."""
    made = rendered(*settings, "provider.pools.short=vllm-long", "provider.pools.long=big", namespace=namespace)
    placed = {kind: each["metadata"].get("namespace") for (kind, _), each in made.items()}
    assert (proxies, namespace, namespace) == tuple(
        placed[kind] for kind in ("EnvoyFilter", "VirtualService", "DestinationRule")
    )
    route = made["VirtualService", "llm"]["spec"]["http"][1]
    assert f"vllm-long.{namespace}.svc.cluster.local" == route["route"][0]["destination"]["host"]


@pytest.mark.parametrize(
    ("settings", "namespace"),
    [
        (provider("istio, sidecars"), "callers"),
        (("provider.name=istio", "provider.gateway.namespace=istio-ingress"), "istio-ingress"),
        (("provider.istio.sidecar.namespace=callers",), "callers"),
    ],
    ids=["sidecars", "a gateway elsewhere", "sidecars with a filter of the user's own"],
)
def test_whoever_asks_the_router_reaches_it(settings: tuple[str, ...], namespace: str) -> None:
    """The network policy admits the namespace of the proxies that are to ask the router, besides the others."""
    made = rendered(*settings)["NetworkPolicy", "dualpool"]["spec"]["ingress"][0]["from"]
    (expression,) = made[0]["namespaceSelector"]["matchExpressions"]
    assert {namespace, "istio-system", "dualpool"} <= set(expression["values"])


def test_plain_manifests_are_the_charts_defaults() -> None:
    """The manifests in deploy/kubernetes are what the chart renders by default, except for what a release adds."""
    made = {key: bare(each) for key, each in rendered().items()}
    plain = {}
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml")):
        for document in documents(path):
            if document["kind"] != "Kustomization":
                plain[document["kind"], document["metadata"]["name"]] = document
    configurations = [each["ConfigMap", "dualpool"]["data"].pop("dualpool.yaml") for each in (plain, made)]
    assert plain == made
    assert parse(configurations[0]) == parse(configurations[1])


def test_an_upgrade_spreads_its_own_pods() -> None:
    """Pods that an upgrade is about to remove do not count when its own are spread over nodes and zones."""
    made = rendered("topologySpread.zone=DoNotSchedule")["Deployment", "dualpool"]["spec"]["template"]["spec"]
    keys = [each["matchLabelKeys"] for each in made["topologySpreadConstraints"]]
    assert [["pod-template-hash"]] * 2 == keys


@pytest.mark.parametrize("seconds", [0, 15, 120])
def test_drain_and_termination_agree(seconds: int) -> None:
    """However long the drain is, the pod may live longer than the drain and the last streams."""
    made = rendered(f"drainSeconds={seconds}")
    configuration = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"])
    pod = made["Deployment", "dualpool"]["spec"]["template"]["spec"]
    assert seconds == configuration.drain_s
    assert configuration.drain_s + LAST_STREAMS_S + 5 <= pod["terminationGracePeriodSeconds"]


def test_a_changed_configuration_replaces_the_pods() -> None:
    """The pod's annotation changes with the configuration, and with nothing else."""

    def checksum(*settings: str) -> str:
        pod = rendered(*settings)["Deployment", "dualpool"]["spec"]["template"]
        annotation: str = pod["metadata"]["annotations"]["checksum/config"]
        return annotation

    assert checksum() == checksum("replicas=5")
    assert checksum() != checksum("config.mode=enforce")


def test_every_worker_has_a_port() -> None:
    """Each process of a pod has a port of the container and of the headless Service."""
    made = rendered("workers=3")
    container = made["Deployment", "dualpool"]["spec"]["template"]["spec"]["containers"][0]
    assert ["--workers", "3"] == container["args"][-2:]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert [9002, 9003, 9004, 9090] == list(ports.values())
    assert all(len(name) <= 15 for name in ports)
    service = made["Service", "dualpool-endpoints"]["spec"]
    assert "None" == service["clusterIP"]
    assert [(port["port"], ports[port["targetPort"]]) for port in service["ports"]] == [
        (9002, 9002),
        (9003, 9003),
        (9004, 9004),
    ]


@pytest.mark.parametrize("settings", [(), ("tls.secretName=pair",)])
def test_a_pod_of_several_workers_is_ready_while_any_worker_is(settings: tuple[str, ...]) -> None:
    """The supervisor is asked, at a port that admits probes; one process is asked at its gRPC port."""
    made = rendered("workers=2", *settings)
    container = made["Deployment", "dualpool"]["spec"]["template"]["spec"]["containers"][0]
    probe = container["readinessProbe"]
    assert ("/readyz", None) == (probe["httpGet"]["path"], probe.get("grpc"))
    admin = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"]).admin
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert admin.probes_address.endswith(f":{ports[probe['httpGet']['port']]}")
    alone = rendered(*settings)["Deployment", "dualpool"]["spec"]["template"]["spec"]["containers"][0]
    assert ("readiness", None) == (
        alone["readinessProbe"]["grpc"]["service"],
        alone["readinessProbe"].get("httpGet"),
    )


def test_openshift_chooses_the_user() -> None:
    """On OpenShift no user id is set; the rest of the restricted profile stays."""
    plain, openshift = (
        rendered(*settings)["Deployment", "dualpool"]["spec"]["template"]["spec"]["securityContext"]
        for settings in ((), ("openshift=true",))
    )
    assert {"runAsUser", "runAsGroup"} == set(plain) - set(openshift)
    assert openshift["runAsNonRoot"]
    assert "RuntimeDefault" == openshift["seccompProfile"]["type"]


def test_tls_comes_from_a_secret() -> None:
    """The files that the configuration names are mounted from the Secret; probes need no TLS."""
    made = rendered("tls.secretName=pair", "tls.clientCa=true")
    settings = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"]).listen
    pod = made["Deployment", "dualpool"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert settings.tls is not None
    assert f"{mounts['tls']}/tls.crt" == settings.tls.certificate_file
    assert f"{mounts['tls']}/ca.crt" == settings.tls.client_ca_file
    assert {"secretName": "pair"} == pod["volumes"][1]["secret"]
    probe = pod["containers"][0]["readinessProbe"]["grpc"]
    assert settings.health_address.endswith(f":{probe['port']}")


def test_workers_listen_where_the_gateway_expects_them() -> None:
    """The endpoints that `dualpool render envoy --workers N` writes match the chart's ports one to one."""
    made = rendered("workers=3")
    configuration = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"])
    ports = [port for _, port in Numbers(configuration, workers=3).router_addresses]
    assert ports == [each["port"] for each in made["Service", "dualpool-endpoints"]["spec"]["ports"]]


def test_the_admin_pages_token_comes_from_a_secret() -> None:
    """The file that the configuration names is mounted from the Secret; without a Secret there is no token."""
    made = rendered("admin.tokenSecret=token")
    admin = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"]).admin
    pod = made["Deployment", "dualpool"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert f"{mounts['admin']}/token" == admin.token_file
    assert {"name": "admin", "secret": {"secretName": "token"}} in pod["volumes"]
    plain = parse(rendered()["ConfigMap", "dualpool"]["data"]["dualpool.yaml"]).admin
    assert ("", admin.address) == (plain.token_file, plain.address)


def test_a_stores_password_comes_from_a_secret() -> None:
    """The file that the configuration names is mounted from the Secret."""
    made = rendered("store.passwordSecret=redis", "config.state.store.url=redis://redis:6379/0")
    state = parse(made["ConfigMap", "dualpool"]["data"]["dualpool.yaml"]).state
    pod = made["Deployment", "dualpool"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert state.store is not None
    assert f"{mounts['store']}/password" == state.store.password_file
    assert {"secretName": "redis"} == pod["volumes"][0]["secret"]


def test_volumes_are_mounted_besides_those_of_the_chart() -> None:
    """The router's container has the volumes of the values, next to its configuration and Secrets."""
    deployment = rendered("store.passwordSecret=redis", STORE, *MOUNTED)["Deployment", "dualpool"]
    pod = deployment["spec"]["template"]["spec"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert (
        {each["name"] for each in pod["volumes"]}
        == {each["name"] for each in mounts}
        == {"store", "config", "own"}
    )
    assert {"name": "own", "mountPath": "/var/lib/dualpool"} in mounts
    assert {"name": "own", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]
