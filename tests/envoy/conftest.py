"""Fixtures: the real Envoy, the real router and emulated pools, shared by all tests that do not disturb them.

Tests that kill or misconfigure something use `build` to get a stack of their own.
"""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.envoy.harness.biting import Bitten
from tests.envoy.harness.building import Build, addresses
from tests.envoy.harness.caller import Caller, Stack
from tests.envoy.harness.gateway import Document, Gateway
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN
from tests.traps.bitten import MODES as MODES_OF_TRAPS

MODES = ("streamed", "buffered", "full-duplex")


@pytest.fixture(scope="session")
def pools() -> Iterator[Pools]:
    """Two pools that respond without delay."""
    pools = Pools()
    yield pools
    pools.stop()


@pytest.fixture(scope="session")
def slow_pools() -> Iterator[Pools]:
    """Two pools with responses so slow that they still go on after a stall: 25 tokens per second."""
    pools = Pools(speed=25)
    yield pools
    pools.stop()


@pytest.fixture(scope="session")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """Run the router of all shared gateways; fail at the end if any exception was raised in it."""
    router = RouterProcess(tmp_path_factory.mktemp("router"))
    yield router
    eventually(lambda: router.metric("dualpool_streams_open") == 0, "all streams have ended")
    assert 0 == router.metric("dualpool_exceptions_total"), router.log_tail()
    router.terminate()


@pytest.fixture(scope="session")
def stacks(
    tmp_path_factory: pytest.TempPathFactory, router: RouterProcess, pools: Pools
) -> Iterator[Callable[[str], Stack]]:
    """Return a function that gives the shared stack of a mode; its Envoy is started on first use."""
    running: dict[str, Stack] = {}

    def stack_of(mode: str) -> Stack:
        if mode not in running:
            gateway = Gateway(mode, addresses(router.address, pools), tmp_path_factory.mktemp(mode))
            running[mode] = Stack(gateway, router, pools)
        return running[mode]

    yield stack_of
    for stack in running.values():
        stack.gateway.terminate()


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each of the configurations in `envoy/`, in turn."""
    name: str = request.param
    return name


@pytest.fixture
def caller(mode: str, stacks: Callable[[str], Stack]) -> Iterator[Caller]:
    """Clients of the mode's shared stack."""
    caller = Caller(stacks(mode))
    yield caller
    caller.close()


@pytest.fixture
def build(tmp_path: Path, pools: Pools) -> Iterator[Build]:
    """Build stacks that belong to this test alone."""
    build = Build(tmp_path, pools)
    yield build
    build.end()


@pytest.fixture
def bite(build: Build, router: RouterProcess) -> Bitten:
    """Start an Envoy that has one trap, in front of the shared router and, by default, the shared pools."""

    def start(trap: str, then: Callable[[Document], None] | None = None, pools: Pools | None = None) -> Caller:
        def change(document: Document) -> None:
            BITTEN[trap](document)
            if then is not None:
                then(document)

        return build(MODES_OF_TRAPS.get(trap, "streamed"), change=change, pools=pools, router=router)

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the logs of Envoy and the router to the report of a failed test."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            callers = value.callers if isinstance(value, Build) else [value] if isinstance(value, Caller) else []
            for process in (part for each in callers for part in (each.stack.gateway, each.stack.router)):
                report.sections.append((f"end of {process.err}", process.log_tail()))
    return report
