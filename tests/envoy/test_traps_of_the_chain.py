"""The effects, on the real Envoy, of traps in the filters around the router's."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.envoy.harness.biting import Bitten, post, refusal
from tests.envoy.harness.building import Build, addresses
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.eavesdropper import Eavesdropper, header_names
from tests.envoy.harness.gateway import Document, Gateway, connection_manager, load, moved_to
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess
from tests.plain import NO_AUTHORITIES
from tests.traps.bitten import BITTEN, bitten
from tests.traps.bitten_chain import endpoint_picker


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    """Run an eavesdropper for the duration of the test."""
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.stop()


def test_envoy_refuses_a_filter_after_the_end(tmp_path: Path) -> None:
    """Envoy rejects the configuration, and names the filter that has to be last."""
    said = refusal(bitten("after-the-end"), tmp_path)
    assert "terminal filter named envoy.filters.http.router" in said
    assert "must be the last filter" in said


def test_envoy_refuses_a_chain_without_an_end(tmp_path: Path) -> None:
    """So it does where the router's filter has taken the place of the last one."""
    document = load("streamed")
    connection_manager(document)["http_filters"].pop()
    assert "the last (terminal) filter (envoy.filters.http.ext_proc)" in refusal(document, tmp_path)


def test_compressor_behind_the_router(
    build: Build, pools: Pools, eavesdropper: Eavesdropper, tmp_path: Path
) -> None:
    """The router sees a content-encoding on a response that the pool sent uncompressed."""
    gateway = Gateway("streamed", addresses(eavesdropper.address, pools), tmp_path, BITTEN["compressor-after"])
    try:
        httpx.get(
            f"{gateway.url}/v1/models", headers={"accept-encoding": "gzip"}, verify=NO_AUTHORITIES
        ).raise_for_status()
    finally:
        gateway.terminate()
    _, message = eavesdropper.messages
    assert "content-encoding" in header_names(message)


@pytest.mark.parametrize("before", [True, False])
def test_picker_before_the_router(
    build: Build,
    router: RouterProcess,
    eavesdropper: Eavesdropper,
    before: bool,  # noqa: FBT001
) -> None:
    """A picker before the router is asked before the decision; one after it sees the pool header."""

    def with_picker(document: Document) -> None:
        endpoint_picker(document, "picker", before=before)
        moved_to(document, "picker", eavesdropper.address)
        (picker,) = (each for each in connection_manager(document)["http_filters"] if each["name"] == "picker")
        # How the picker handles bodies does not matter here.
        picker["typed_config"]["processing_mode"] = {"request_body_mode": "NONE"}

    caller = build("streamed", change=with_picker, router=router)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    (message,) = eavesdropper.messages
    assert before == ("x-token-budget-pool" not in header_names(message))


def test_authentication_behind_the_router(bite: Bitten, router: RouterProcess) -> None:
    """A request that authentication refuses was already decided and counted."""
    before = router.metric("dualpool_requests_total")
    caller = bite("auth-after")
    assert 403 == post(caller).status_code
    assert before + 1 == router.metric("dualpool_requests_total")
