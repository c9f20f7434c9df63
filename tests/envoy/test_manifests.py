"""The files in `deploy/`: valid and consistent, as far as that can be checked without a cluster."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.bodies import NO_RETRIES
from extproc.config.loading import parse
from extproc.config.schema import Configuration
from extproc.core.placing.decision import Mode
from extproc.server.app import LAST_STREAMS_S
from extproc.server.health import NAMES
from tests.envoy.harness.gateway import cluster, connection_manager, ext_proc, load, route, virtual_host

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent


def documents(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the documents in a file or folder, by kind and name."""
    where = DEPLOY / path
    files = sorted(where.glob("*.yaml")) if where.is_dir() else [where]
    found = [document for file in files for document in YAML(typ="safe", pure=True).load_all(file)]
    named = {(d["kind"], d.get("metadata", {}).get("name", "")): d for d in found}
    assert len(found) == len(named)
    return named


@pytest.fixture(scope="module")
def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the plain manifests."""
    return documents("kubernetes")


@pytest.fixture(scope="module")
def pod(kubernetes: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """Return the pod's specification."""
    spec: dict[str, Any] = kubernetes["Deployment", "dualpool"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def configuration(kubernetes: dict[tuple[str, str], dict[str, Any]]) -> Configuration:
    """Return the configuration in the ConfigMap, as the router parses it."""
    return parse(kubernetes["ConfigMap", "dualpool"]["data"]["dualpool.yaml"])


def test_the_manifests_start_in_shadow_mode(configuration: Configuration) -> None:
    """The manifests start in shadow mode, the first step in deploy/README.md."""
    assert Mode.SHADOW is configuration.mode


def test_pod_has_time_to_drain(pod: dict[str, Any], configuration: Configuration) -> None:
    """The grace period outlasts the drain and the last streams; the readiness probe notices the drain in time."""
    assert configuration.drain_s + LAST_STREAMS_S + 5 <= pod["terminationGracePeriodSeconds"]
    readiness = pod["containers"][0]["readinessProbe"]
    noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert noticed_s * 2 <= configuration.drain_s


def test_probes_ask_for_what_the_router_serves(pod: dict[str, Any], configuration: Configuration) -> None:
    """The ports are the configured ones, and the probed health service is one that the router answers for."""
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert configuration.listen.address.endswith(f":{ports['grpc-ext-proc']}")
    assert configuration.admin.probes_address.endswith(f":{ports['http-admin']}")
    probe = container["readinessProbe"]["grpc"]
    assert ports["grpc-ext-proc"] == probe["port"]
    assert probe["service"] in NAMES
    for name in ("startupProbe", "livenessProbe"):
        assert {"path": "/healthz", "port": "http-admin"} == container[name]["httpGet"]


def test_pod_is_confined(pod: dict[str, Any]) -> None:
    """The pod meets the restricted Pod Security Standard, and its user is the image's."""
    container = pod["containers"][0]["securityContext"]
    assert (True, "RuntimeDefault") == (
        pod["securityContext"]["runAsNonRoot"],
        pod["securityContext"]["seccompProfile"]["type"],
    )
    assert (False, ["ALL"]) == (container["allowPrivilegeEscalation"], container["capabilities"]["drop"])
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile


def test_pod_is_bounded_on_disk_as_in_memory(pod: dict[str, Any]) -> None:
    """Disk and memory are limited: a full node evicts pods without a disk limit first."""
    resources = pod["containers"][0]["resources"]
    for what in ("memory", "ephemeral-storage"):
        assert what in resources["requests"]
        assert what in resources["limits"]
    assert "cpu" not in resources["limits"]


def test_only_gateways_and_the_scraper_reach_the_router(
    kubernetes: dict[tuple[str, str], dict[str, Any]], pod: dict[str, Any]
) -> None:
    """Each port, by name, is open only to those that need it; all egress is denied."""
    policy = kubernetes["NetworkPolicy", "dualpool"]["spec"]
    assert kubernetes["Deployment", "dualpool"]["spec"]["selector"] == policy["podSelector"]
    assert (["Ingress", "Egress"], []) == (policy["policyTypes"], policy["egress"])
    opened = [rule["ports"][0]["port"] for rule in policy["ingress"]]
    assert [port["name"] for port in pod["containers"][0]["ports"]] == opened
    assert all(rule["from"] for rule in policy["ingress"])


def test_openshift_assigns_the_user() -> None:
    """The overlay only removes the user and group ids, at the paths where the manifest has them."""
    (overlay,) = documents("openshift").values()
    assert ["../kubernetes"] == overlay["resources"]
    (patch,) = overlay["patches"]
    operations = YAML(typ="safe", pure=True).load(patch["patch"])
    assert ["remove", "remove"] == [each["op"] for each in operations]
    for each in operations:
        value: Any = documents("kubernetes")["Deployment", "dualpool"]
        for part in each["path"].strip("/").split("/"):
            value = value[part]
        assert 65532 == value


def test_no_image_digest_is_invented() -> None:
    """No file contains an invented image digest; only the registry can supply one."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert ["${BASE} AS build", "${BASE}"] == re.findall(r"^FROM (.+)$", dockerfile, re.MULTILINE)
    for file in DEPLOY.rglob("*"):
        assert not file.is_file() or not re.search(r"sha256:[0-9a-f]{64}(?! )", _without_locks(file))


def _without_locks(file: Path) -> str:
    return "" if file.name == "build-requirements.txt" or file.suffix == ".pyc" else file.read_text()


def test_selectors_find_the_pods(kubernetes: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Services, disruption budget and deployment select the pods' labels; services use the pods' port names."""
    deployment = kubernetes["Deployment", "dualpool"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    budget = kubernetes["PodDisruptionBudget", "dualpool"]["spec"]["selector"]
    assert {"matchLabels": labels} == deployment["selector"] == budget
    names = {port["name"] for port in deployment["template"]["spec"]["containers"][0]["ports"]}
    for service in ("dualpool", "dualpool-endpoints"):
        spec = kubernetes["Service", service]["spec"]
        assert labels == spec["selector"]
        assert {port["targetPort"] for port in spec["ports"]} <= names


def test_kustomization_lists_every_file(kubernetes: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The kustomization lists every manifest in its folder."""
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kubernetes["Kustomization", ""]["resources"])


ISTIO = ("istio", "istio/gateway-api", "istio/sidecar", "istio/inference-pools")
REPAIRED = ISTIO[:3]
ROUTED_BY_ISTIO, ROUTED_BY_THE_API = ("istio", "istio/sidecar"), ("istio/gateway-api", "istio/inference-pools")


def istio_patches(variant: str) -> dict[str, Any]:
    """Return what Istio merges into Envoy's configuration, by name of the route or cluster, else by `applyTo`."""
    patches = documents(variant)["EnvoyFilter", "dualpool"]["spec"]["configPatches"]

    def target(patch: dict[str, Any]) -> str:
        if "cluster" in patch["match"]:
            return str(patch["match"]["cluster"]["name"])
        host = patch["match"].get("routeConfiguration", {}).get("vhost", {})
        name: str = host["route"]["name"] if "route" in host else patch["applyTo"]
        return name

    return {target(patch): patch["patch"]["value"] for patch in patches}


@pytest.mark.parametrize("variant", ISTIO)
def test_istio_merges_what_the_tests_run(variant: str) -> None:
    """Every value in the EnvoyFilter is that of envoy/streamed.yaml, which the tests run on the real Envoy."""
    patches, document = istio_patches(variant), load("streamed")
    manager = connection_manager(document)
    merged = patches["NETWORK_FILTER"]["typed_config"]
    assert {key: manager[key] for key in merged} == merged
    filter_ = patches["HTTP_FILTER"]["typed_config"]
    name = "outbound|9002||dualpool.dualpool.svc.cluster.local"
    assert ext_proc(document) | {"grpc_service": {"envoy_grpc": {"cluster_name": name}}} == filter_
    assert patches[name].items() <= cluster(document, "dualpool").items()
    for key, value in patches["VIRTUAL_HOST"].items():
        assert virtual_host(document)[key] == value
    patience = {"timeout": "0s", "idle_timeout": manager["stream_idle_timeout"]}
    assert patience.items() <= patches["short"]["route"].items()
    assert patience.items() <= patches["long"]["route"].items()


@pytest.mark.parametrize("variant", REPAIRED)
def test_istio_repairs_what_the_tests_repair(variant: str) -> None:
    """If Istio chooses endpoints, the short route's retry and its cluster are those of envoy/streamed.yaml."""
    patches, document = istio_patches(variant), load("streamed")
    short = dict(patches["short"]["route"])
    del short["idle_timeout"]
    assert route(document, "short")["route"] == short
    aggregate = cluster(document, "short_then_long")
    clusters = patches["CLUSTER"]["cluster_type"]["typed_config"].pop("clusters")
    aggregate["cluster_type"]["typed_config"].pop("clusters")
    assert aggregate == patches["CLUSTER"]
    assert ["short", "long"] == [re.split(r"[-.]", name)[1] for name in clusters]


@pytest.mark.parametrize("variant", ISTIO)
def test_istio_asks_the_router_on_our_routes_only(variant: str) -> None:
    """The filter is on only on the routes `short` and `long`, and its name differs from Istio's own filters."""
    patches = istio_patches(variant)
    inserted = patches["HTTP_FILTER"]
    assert (True, "dualpool") == (inserted["disabled"], inserted["name"])
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
    enabled = {"dualpool": {"@type": kind, "overrides": {}}}
    on = {name: value.get("typed_per_filter_config") for name, value in patches.items()}
    assert {"short": enabled, "long": enabled} == {name: value for name, value in on.items() if value}


def test_istio_has_no_retries_on_the_default_route() -> None:
    """The default route disables the retries that Istio gives to routes without a setting, or overrides them."""
    for variant in ROUTED_BY_ISTIO:
        long = documents(f"{variant}/routes.yaml")["VirtualService", "llm"]["spec"]["http"][-1]
        assert ("long", {"attempts": 0}) == (long["name"], long["retries"])
    for variant in ROUTED_BY_THE_API:
        assert NO_RETRIES == istio_patches(variant)["long"]["route"]["retry_policy"]


def test_istio_asks_the_router_before_the_endpoint_picker() -> None:
    """With InferencePools our filter precedes the one that Istio adds; otherwise, Envoy's router filter."""
    before = {}
    for variant in ISTIO:
        patches = documents(variant)["EnvoyFilter", "dualpool"]["spec"]["configPatches"]
        (patch,) = (each for each in patches if each["applyTo"] == "HTTP_FILTER")
        assert "INSERT_BEFORE" == patch["patch"]["operation"]
        before[variant] = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
    picker, router = "envoy.filters.http.ext_proc", "envoy.filters.http.router"
    assert dict(zip(ISTIO, (router, router, router, picker), strict=True)) == before


def test_istio_routes_by_the_router_s_header(configuration: Configuration) -> None:
    """Routes have the names that the patches use; `short` matches the pool header; `long` is last."""
    match = {configuration.headers.pool: {"exact": configuration.pools[0].name}}
    for variant in ROUTED_BY_ISTIO:
        rules = documents(f"{variant}/routes.yaml")["VirtualService", "llm"]["spec"]["http"]
        assert ["upgrade", "short", "long"] == [rule["name"] for rule in rules]
        assert ([{"headers": match}], False) == (rules[1]["match"], "match" in rules[2])
    for variant, names in zip(ROUTED_BY_THE_API, (["upgrade", "short", "long"], ["short", "long"]), strict=True):
        rules = documents(variant)["HTTPRoute", "llm"]["spec"]["rules"]
        assert names == [rule["name"] for rule in rules]
        header = {"name": configuration.headers.pool, "value": configuration.pools[0].name}
        assert [header] == rules[-2]["matches"][0]["headers"]


@pytest.mark.parametrize("variant", REPAIRED)
def test_a_black_holed_short_pool_costs_a_second(variant: str) -> None:
    """The short pool's connect timeout is that of the files; Istio's default is ten times as long."""
    rule = documents(variant)["DestinationRule", "vllm-short"]["spec"]["trafficPolicy"]["connectionPool"]
    assert cluster(load("streamed"), "pool_short")["connect_timeout"] == rule["tcp"]["connectTimeout"]


@pytest.mark.parametrize("variant", ISTIO)
def test_istio_limits_concurrent_requests_at_the_router_as_the_file_does(variant: str) -> None:
    """The limits are those of envoy/streamed.yaml. Without them (Istio's default) a flood queues in the router."""
    pool = documents(f"{variant}/routes.yaml")["DestinationRule", "dualpool"]["spec"]["trafficPolicy"][
        "connectionPool"
    ]
    limits = cluster(load("streamed"), "dualpool")["circuit_breakers"]["thresholds"][0]
    assert limits["max_requests"] == pool["http"]["http2MaxRequests"]
    assert limits["max_pending_requests"] == pool["http"]["http1MaxPendingRequests"]


def test_envoy_gateway_has_the_settings_that_the_tests_run(configuration: Configuration) -> None:
    """Modes, stripped headers, retry and limits are those of envoy/buffered.yaml, in Envoy Gateway's fields."""
    gateway, document = documents("envoy-gateway"), load("buffered")
    processor = gateway["EnvoyExtensionPolicy", "dualpool"]["spec"]["extProc"][0]
    assert {"request": {"body": "Buffered"}, "response": {"body": "Streamed"}} == processor["processingMode"]
    assert (True, "500ms") == (processor["failOpen"], processor["messageTimeout"])
    untyped = ext_proc(document)["metadata_options"]["receiving_namespaces"]["untyped"]
    assert untyped == processor["metadata"]["writableNamespaces"]
    client = gateway["ClientTrafficPolicy", "llm"]["spec"]
    mutations = connection_manager(document)["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    assert [each["remove"] for each in mutations] == client["headers"]["earlyRequestHeaders"]["remove"]
    assert "16Mi" == client["connection"]["bufferLimit"]
    assert 16 << 20 < configuration.listen.max_message_bytes
    breaker = processor["backendSettings"]["circuitBreaker"]
    limits = cluster(document, "dualpool")["circuit_breakers"]["thresholds"][0]
    assert limits["max_requests"] == breaker["maxParallelRequests"]
    assert limits["max_pending_requests"] == breaker["maxPendingRequests"]
    retry = gateway["BackendTrafficPolicy", "llm-short"]["spec"]["retry"]
    policy = route(document, "short")["route"]["retry_policy"]
    assert policy["retry_on"] == ",".join(retry["retryOn"]["triggers"])
    assert policy["retriable_status_codes"] == retry["retryOn"]["httpStatusCodes"]
    assert (policy["num_retries"], 1) == (retry["numRetries"], retry["numAttemptsPerPriority"])
    assert "retry" not in gateway["BackendTrafficPolicy", "llm"]["spec"]
    short = gateway["BackendTrafficPolicy", "llm-short"]["spec"]["timeout"]["tcp"]["connectTimeout"]
    assert cluster(document, "pool_short")["connect_timeout"] == short


def test_envoy_gateway_asks_for_the_router_s_health(configuration: Configuration) -> None:
    """The health check asks for a service that the router answers for, often enough to notice its drain."""
    policy = documents("envoy-gateway")["EnvoyExtensionPolicy", "dualpool"]["spec"]["extProc"][0]
    check = policy["backendSettings"]["healthCheck"]["active"]
    assert "GRPC" == check["type"]
    assert check["grpc"]["service"] in NAMES
    assert float(check["interval"].removesuffix("s")) * 2 < configuration.drain_s


def test_envoy_gateway_logs_what_the_tests_read() -> None:
    """Every access log field has the same definition in envoy/buffered.yaml."""
    proxy = documents("envoy-gateway")["EnvoyProxy", "llm"]["spec"]["telemetry"]["accessLog"]["settings"][0]
    (log,) = connection_manager(load("buffered"))["access_log"]
    fields = log["typed_config"]["log_format"]["json_format"]
    assert proxy["format"]["json"].items() <= fields.items()


def test_envoy_gateway_s_patch_raises_the_limits_of_heads() -> None:
    """Settings without a field in Envoy Gateway are patched to the values of envoy/buffered.yaml."""
    patches = documents("envoy-gateway/patches")["EnvoyPatchPolicy", "llm"]["spec"]["jsonPatches"]
    manager = connection_manager(load("buffered"))
    for patch in patches:
        value: Any = manager
        for part in patch["operation"]["path"].partition("/typed_config/")[2].split("/"):
            value = value[part]
        assert value == patch["operation"]["value"]


def test_envoy_gateway_bypasses_what_its_buffer_cannot_hold(configuration: Configuration) -> None:
    """The bypass starts below the buffer limit, matches complete lengths, and is not targeted by our policy."""
    gateway = documents("envoy-gateway")
    (rule,) = gateway["HTTPRoute", "llm-very-large-body"]["spec"]["rules"]
    pattern = rule["matches"][0]["headers"][0]["value"]
    taken = [size for size in (9_999_999, 10_000_000, 16 << 20, 10**12) if re.fullmatch(pattern, str(size))]
    assert [10_000_000, 16 << 20, 10**12] == taken
    targets = gateway["EnvoyExtensionPolicy", "dualpool"]["spec"]["targetRefs"]
    assert ["llm", "llm-short"] == [target["name"] for target in targets]
    (upgrade,) = gateway["HTTPRoute", "llm-upgrade"]["spec"]["rules"]
    assert "upgrade" == upgrade["matches"][0]["headers"][0]["name"]
    (short,) = gateway["HTTPRoute", "llm-short"]["spec"]["rules"]
    assert [{"name": configuration.headers.pool, "value": "short"}] == short["matches"][0]["headers"]


def test_container_is_built_from_locked_versions() -> None:
    """The build's requirements have the versions of development, by hash; every copied file exists."""
    pins = dict(re.findall(r"^(\S+)==(\S+)", (DEPLOY / "build-requirements.txt").read_text(), re.MULTILINE))
    developed = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    assert {name: developed[name] for name in pins} == pins
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert 2 == dockerfile.count("--require-hashes")
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    ]
    assert [] == [name for name in copied if not (ROOT / name).exists()]
