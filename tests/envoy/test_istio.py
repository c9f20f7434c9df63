"""Istio's own translation of deploy/istio/, served by the real Envoy with the real router."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from extproc.cli.main import main
from tests.envoy.harness.building import addresses
from tests.envoy.harness.caller import Caller, Stack
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, Call, chat, chat_stream
from tests.envoy.harness.gateway import Envoy
from tests.envoy.harness.golden_istio import bootstrap, golden
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.promises import (
    CHAT,
    JSON,
    admits_large_heads,
    decides_and_learns,
    goes_long_without_router,
    repairs,
    strips_claims,
)
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess
from tests.golden.translate_istio import TRANSLATOR, VARIANTS, kept_at, question_digest, translated

# The variants in which Istio chooses endpoints itself, so that a refused request can be retried elsewhere.
REPAIRED = [name for name in VARIANTS if name != "inference-pools"]
Start = Callable[[str, RouterProcess, Path], Stack]


@pytest.fixture(scope="module")
def pickers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RouterProcess]]:
    """Run stand-ins for the pools' endpoint pickers, which return every byte and choose nothing."""
    running = {}
    for name in ("picker_short", "picker_long"):
        running[name] = RouterProcess(tmp_path_factory.mktemp(name), mode="off")
    yield running
    for each in running.values():
        each.kill()


@pytest.fixture(scope="module")
def start(pools: Pools, pickers: dict[str, RouterProcess]) -> Iterator[Start]:
    """Return a function that starts an Envoy with a variant's translation, in front of a given router."""
    running: list[Envoy] = []

    def started(variant: str, router: RouterProcess, folder: Path) -> Stack:
        places = addresses(router.address, pools) | {name: each.address for name, each in pickers.items()}
        running.append(Envoy(f"istio-{variant}", bootstrap(variant, places), folder))
        return Stack(running[-1], router, pools)

    yield started
    for envoy in running:
        envoy.terminate()


@pytest.fixture(scope="module")
def stacks(start: Start, router: RouterProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stack]:
    """Start a stack for each variant."""
    return {name: start(name, router, tmp_path_factory.mktemp(name)) for name in VARIANTS}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """Each variant, in turn."""
    name: str = request.param
    return name


@pytest.fixture
def caller(variant: str, stacks: dict[str, Stack]) -> Iterator[Caller]:
    """Clients of the variant's stack."""
    caller = Caller(stacks[variant])
    yield caller
    caller.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_translation_is_of_the_current_manifests(name: str) -> None:
    """The stored translation is of the current manifests; after a change, run `make golden`."""
    assert question_digest(name) == golden(name)["question_sha256"]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_checker_finds_no_trap_in_the_translation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`dualpool check envoy` finds no trap in the translated configuration."""
    assert 0 == main(["check", "envoy", str(kept_at(name))]), capsys.readouterr()


@pytest.mark.parametrize("call", [chat, chat_stream], ids=lambda call: call.__name__)
def test_goes_where_its_budget_fits_and_teaches(caller: Caller, call: Call) -> None:
    """Short requests go to the short pool, long ones to the long pool; the router learns from both responses."""
    decides_and_learns(caller, call)


def test_claims_of_clients_are_stripped(caller: Caller) -> None:
    """A long request that claims to be short goes long, with only the router's own headers on it."""
    strips_claims(caller)


def test_the_router_down(variant: str, start: Start, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Without a router, everything goes to the long pool, whatever a client claims."""
    router = RouterProcess(tmp_path)
    request.addfinalizer(router.kill)
    caller = Caller(start(variant, router, tmp_path))
    request.addfinalizer(caller.close)
    goes_long_without_router(router, caller)


@pytest.mark.parametrize("variant", REPAIRED)
def test_what_the_short_pool_refuses_the_long_pool_serves(caller: Caller) -> None:
    """The merged-in retry goes to the long pool after the short pool's first refusal."""
    repairs(caller)


@pytest.mark.parametrize("size", [64 << 10, 1 << 20, 8 << 20])
def test_bodies_of_the_default_route_arrive_whole(caller: Caller, size: int) -> None:
    """Istio's default retries are removed, so a body that is decided before its end is not sent twice."""
    body = chat_body(MODEL, "word " * (size // 5), max_tokens=16)
    response = caller.http.post(CHAT, content=body, headers=JSON)
    assert ("long", sha256(body).hexdigest()) == (
        response.headers["x-served-by"],
        response.headers["x-body-sha256"],
    )
    assert "1" == response.headers["x-envoy-attempt-count"]


def test_heads_at_envoy_s_default_limits(caller: Caller) -> None:
    """A request with 97 client headers leaves room for the router's."""
    admits_large_heads(caller)


@pytest.mark.parametrize("variant", ["inference-pools"])
def test_the_router_chooses_the_pool_and_its_picker_is_asked(
    caller: Caller, pickers: dict[str, RouterProcess]
) -> None:
    """Only the picker of the pool that the router chose is asked."""

    def asked() -> list[float]:
        return [each.metric("dualpool_streams_total") for each in pickers.values()]

    before = asked()
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [before[0] + 1, before[1]] == asked()
    assert "long" == chat(caller, LONG_TEXT)["x-served-by"]
    assert [before[0] + 1, before[1] + 1] == asked()


@pytest.mark.skipif(not TRANSLATOR.exists(), reason="the translator is built by `make golden`, in many minutes")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_new_translation_equals_the_stored_one(name: str) -> None:
    """A new run of Istio's translator gives the stored translation."""
    assert golden(name) == translated(name, TRANSLATOR)
