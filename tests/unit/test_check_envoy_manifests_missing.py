"""`dualpool check envoy` on manifests of which a part is not in the input, or has no effect: both are said."""

from pathlib import Path

import pytest

from extproc.cli.main import main
from tests.unit.test_check_envoy_manifests import ROOT

NO_ROUTES = "no routes (HTTPRoutes, or VirtualServices of Istio) are in the input, and so are not checked"


@pytest.mark.parametrize(
    "files",
    [
        ["envoy-gateway/policies.yaml", "envoy-gateway/patches/listener.yaml"],
        ["istio/gateway-api/envoyfilter.yaml"],
    ],
)
def test_routes_that_are_not_in_the_input(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Another control plane may generate them, as of an AIGatewayRoute; the rest is checked without alarms."""
    paths = [str(path) for name in files for path in ROOT.glob(f"deploy/{name.replace('listener', '*')}")]
    main(["check", "envoy", *paths])
    out = "".join(capsys.readouterr())
    assert NO_ROUTES in out
    assert "spoofable-header" not in out
    assert "head-limits" not in out


def test_routes_of_envoy_ai_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it makes of its own kind of routes is not known: each is named, beside the other routes' findings."""
    path = tmp_path / "route.yaml"
    path.write_text("apiVersion: aigateway.envoyproxy.io/v1\nkind: AIGatewayRoute\nmetadata: {name: llm}", "utf-8")
    paths = [str(path) for path in ROOT.glob("deploy/envoy-gateway/**/*.yaml")]
    assert 0 == main(["check", "envoy", str(path), *paths])
    said = 'the AIGatewayRoute "llm" is not read, and so its routes are not checked'
    assert f"not checked: {path}:1: {said}" in capsys.readouterr().out


def test_patches_of_waypoints(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Istio accepts them and applies none, so nothing asks the router."""
    path = tmp_path_factory.mktemp("waypoint") / "filter.yaml"
    text = (ROOT / "deploy/istio/gateway-api/envoyfilter.yaml").read_text("utf-8")
    path.write_text(text.replace("context: GATEWAY", "context: WAYPOINT"), "utf-8")
    assert 2 == main(["check", "envoy", str(path), str(ROOT / "deploy/istio/gateway-api/routes.yaml")])
    out = "".join(capsys.readouterr())
    assert "the patch (HTTP_FILTER) is for waypoints, to which Istio 1.31 applies none" in out


@pytest.mark.parametrize(("items", "said"), [("", "none of "), ("[]", "none of "), ("3", "items is not a list")])
def test_a_list_without_objects(items: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list may be empty or null, as what a cluster returns of a kind that it has none of."""
    path = tmp_path / "list.yaml"
    path.write_text(f"apiVersion: v1\nkind: List\nitems: {items}\n", "utf-8")
    main(["check", "envoy", str(path), str(ROOT / "envoy/streamed.yaml")])
    assert said in "".join(capsys.readouterr())
