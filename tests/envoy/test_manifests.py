"""What is in `deploy/`: as valid and alike as can be checked without a cluster."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc.config.loading import parse
from extproc.config.schema import Configuration
from extproc.core.placing.decision import Mode
from extproc.server.app import LAST_STREAMS_S
from extproc.server.listening import HEALTH_NAMES
from tests.envoy.harness.gateway import connection_manager, ext_proc, load, virtual_host

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent


def documents(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the documents of a file or folder, by kind and name."""
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
    """Return the configuration of the ConfigMap, as the router reads it."""
    return parse(kubernetes["ConfigMap", "dualpool"]["data"]["dualpool.yaml"])


def test_nothing_is_routed_before_someone_has_looked(configuration: Configuration) -> None:
    """What is applied first only watches: the mode that deploy/README.md begins with."""
    assert Mode.SHADOW is configuration.mode


def test_pod_has_time_to_drain(pod: dict[str, Any], configuration: Configuration) -> None:
    """The grace period outlasts the drain and the last streams; the readiness probe hears of the drain in it."""
    assert configuration.drain_s + LAST_STREAMS_S + 5 <= pod["terminationGracePeriodSeconds"]
    readiness = pod["containers"][0]["readinessProbe"]
    noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert noticed_s * 2 <= configuration.drain_s


def test_probes_ask_for_what_the_router_responses(pod: dict[str, Any], configuration: Configuration) -> None:
    """Ports are those of the router's configuration, and the probed health service is one of its names."""
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert configuration.listen.address.endswith(f":{ports['grpc-ext-proc']}")
    assert configuration.admin.address.endswith(f":{ports['http-admin']}")
    probe = container["readinessProbe"]["grpc"]
    assert ports["grpc-ext-proc"] == probe["port"]
    assert probe["service"] in HEALTH_NAMES
    for name in ("startupProbe", "livenessProbe"):
        assert {"path": "/healthz", "port": "http-admin"} == container[name]["httpGet"]


def test_pod_is_confined(pod: dict[str, Any]) -> None:
    """The pod meets the restricted Pod Security Standard, as the image's user does."""
    container = pod["containers"][0]["securityContext"]
    assert (True, "RuntimeDefault") == (
        pod["securityContext"]["runAsNonRoot"],
        pod["securityContext"]["seccompProfile"]["type"],
    )
    assert (False, ["ALL"]) == (container["allowPrivilegeEscalation"], container["capabilities"]["drop"])
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile


def test_selectors_find_the_pods(kubernetes: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Services, disruption budget and deployment select the labels that the pods carry; ports are named alike."""
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
    """Nothing that is in the folder is forgotten."""
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kubernetes["Kustomization", ""]["resources"])


def istio_patches() -> dict[str, Any]:
    """Return the values that Istio merges into Envoy's configuration, by what they apply to."""
    patches = documents("istio")["EnvoyFilter", "dualpool"]["spec"]["configPatches"]
    return {patch["applyTo"]: patch["patch"]["value"] for patch in patches}


def test_istio_merges_what_the_tests_run() -> None:
    """Every value in the EnvoyFilter is that of envoy/streamed.yaml, which runs on the real Envoy."""
    patches, document = istio_patches(), load("streamed")
    manager, routes = connection_manager(document), virtual_host(document)["routes"]
    merged = patches["NETWORK_FILTER"]["typed_config"]
    assert {key: manager[key] for key in merged} == merged
    filter_ = patches["HTTP_FILTER"]["typed_config"]
    service = {
        "grpc_service": {"envoy_grpc": {"cluster_name": "outbound|9002||dualpool.dualpool.svc.cluster.local"}}
    }
    assert ext_proc(document) | service == filter_
    assert routes[1]["route"] == patches["HTTP_ROUTE"]["route"]
    aggregate = document["static_resources"]["clusters"][2]
    clusters = patches["CLUSTER"]["cluster_type"]["typed_config"].pop("clusters")
    aggregate["cluster_type"]["typed_config"].pop("clusters")
    assert aggregate == patches["CLUSTER"]
    assert ["short", "long"] == [re.split(r"[-.]", name)[1] for name in clusters]
    for key, value in patches["VIRTUAL_HOST"].items():
        assert virtual_host(document)[key] == value


def test_istio_routes_by_the_router_s_header(configuration: Configuration) -> None:
    """The first route matches the pool header, and carries the name that the retry is merged into."""
    short, long = documents("istio")["VirtualService", "llm"]["spec"]["http"]
    match = {configuration.headers.pool: {"exact": configuration.pools[0].name}}
    assert ([{"headers": match}], "short") == (short["match"], short["name"])
    assert "match" not in long


def test_envoy_gateway_says_the_same_as_the_files_the_tests_run(configuration: Configuration) -> None:
    """Modes, stripped headers, retry and limits are those of envoy/buffered.yaml, in Envoy Gateway's words."""
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
    retry = gateway["BackendTrafficPolicy", "llm-short"]["spec"]["retry"]
    policy = virtual_host(document)["routes"][1]["route"]["retry_policy"]
    assert policy["retry_on"] == ",".join(retry["retryOn"]["triggers"])
    assert policy["retriable_status_codes"] == retry["retryOn"]["httpStatusCodes"]
    assert (policy["num_retries"], 1) == (retry["numRetries"], retry["numAttemptsPerPriority"])


def test_envoy_gateway_by_passes_what_its_buffer_cannot_hold(configuration: Configuration) -> None:
    """The by-pass begins below the buffer limit, matches on whole lengths, and no policy of ours names it."""
    gateway = documents("envoy-gateway")
    (rule,) = gateway["HTTPRoute", "llm-very-large-body"]["spec"]["rules"]
    pattern = rule["matches"][0]["headers"][0]["value"]
    taken = [size for size in (9_999_999, 10_000_000, 16 << 20, 10**12) if re.fullmatch(pattern, str(size))]
    assert [10_000_000, 16 << 20, 10**12] == taken
    targets = gateway["EnvoyExtensionPolicy", "dualpool"]["spec"]["targetRefs"]
    assert ["llm", "llm-short"] == [target["name"] for target in targets]
    (short,) = gateway["HTTPRoute", "llm-short"]["spec"]["rules"]
    assert [{"name": configuration.headers.pool, "value": "short"}] == short["matches"][0]["headers"]


def test_container_is_built_from_locked_versions() -> None:
    """What builds the wheel has the versions that development has, by hash; what is copied exists."""
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
