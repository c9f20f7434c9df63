"""An upgrade in Kubernetes: today's router with the ConfigMap of 0.1.0, by the steps that the changelog gives."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from extproc.config.loading import parse
from tests.grpc.served import App
from tests.plain import NO_AUTHORITIES

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
# The settings of 0.1.0's ConfigMap (deploy/kubernetes/configmap.yaml).
SETTINGS = """
mode: shadow
pools:
  - {name: short, max_budget_tokens: 8192}
  - {name: long, max_budget_tokens: 65536}
drain_s: 15
"""
# The kubelet probes the pod's address, which is not that of `localhost`.
POD = "127.0.0.2"


def line_to_add() -> str:
    """Return the line that the changelog says to add."""
    text = " ".join(CHANGELOG.read_text().split())
    found = re.search(r"Add `(admin: [^`]+)`", text)
    assert found
    return found[1]


@pytest.mark.parametrize("is_added", [True, False])
def test_probes_of_an_upgraded_pod(*, is_added: bool) -> None:
    """With the line that the changelog names the kubelet reaches /healthz, and without it nothing but the pod."""
    admin = line_to_add() if is_added else 'admin: {address: "127.0.0.1:9090"}'
    here = parse(f"listen: {{address: '127.0.0.1:0'}}\n{admin.replace(':9090', ':0')}{SETTINGS}")
    assert is_added or parse(SETTINGS).admin.address == parse(admin).admin.address, "the default"

    async def scenario() -> bool:
        app = App(here)
        await app.start()
        try:
            async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
                response = await client.get(f"http://{POD}:{app.admin_address.rpartition(':')[2]}/healthz")
        except httpx.ConnectError:
            return False
        finally:
            await app.stop()
        return response.status_code == httpx.codes.OK

    assert is_added == asyncio.run(scenario())
