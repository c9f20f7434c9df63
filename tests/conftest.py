"""Settings for all tests, and which of them coverage measures."""

import gc
import logging
import os
import re
from collections.abc import Generator, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, is_hypothesis_test, settings

from bench.mutation import ROOMS

# As set by the command line, before numpy is loaded: with matrices as small as ours a second thread only spins.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shared, noisy machine must not turn a slow example into a failure.
settings.register_profile("dualpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dualpool")

# So that assertions that fail in there show the values.
pytest.register_assert_rewrite("tests.envoy.harness.promises")

# As `source` in [tool.coverage.run].
MEASURED = ("core", "wire")
IMPORT = re.compile(r"^\s*(?:from|import) extproc\.(\w+)", re.MULTILINE)
MEASURING = pytest.StashKey["Measuring"]()


class Measuring:
    """Coverage, paused where it is not needed: it makes each step of Python two to four times as slow, even in
    code that is not measured.
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller  # pytest-cov's
        self._on = True
        self.switch(on=False)
        # In a process of xdist, pytest-cov starts two measurements, one inside the other, and forgets the outer
        # one, which would go on whenever the inner one is paused.
        while outer := Coverage.current():
            outer.stop()

    def switch(self, *, on: bool) -> None:
        """Measure from now on, or do not."""
        if on != self._on:
            self._on = on
            self._controller.resume() if on else self._controller.pause()


@cache
def is_measured(file: Path) -> bool:
    """Return whether the tests of a file are there to test core or wire: pure ones that import some of it, and
    nothing that is built on it.

    Lines that a server or a simulated fleet happens to execute do not count: core and wire have to be covered by
    their own tests.
    """
    rooms = set(IMPORT.findall(file.read_text("utf-8")))
    return file.parent.name == "unit" and not rooms.isdisjoint(MEASURED) and rooms <= ROOMS


def is_random(item: pytest.Item) -> bool:
    """Return whether hypothesis draws the inputs of a test. What is covered must not depend on what it draws; and
    coverage would slow down its own code, too.
    """
    return isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without coverage, after importing what is measured with it.

    With contexts (`bench/mutation/baseline.py`), everything is measured.
    """
    config = session.config
    plugin = config.pluginmanager.getplugin("_cov")
    if plugin is not None and plugin.cov_controller is not None and config.option.cov_context is None:
        # The process that only distributes the tests imports nothing.
        for package in () if config.pluginmanager.hasplugin("dsession") else MEASURED:
            path = import_module(f"extproc.{package}").__path__
            for module in walk_packages(path, f"extproc.{package}."):
                import_module(module.name)
        config.stash[MEASURING] = Measuring(plugin.cov_controller)
    # Collecting makes a million objects that stay, and no garbage; looking for some took a sixth of the time.
    gc.disable()
    try:
        return (yield)
    finally:
        # Nor does any later collection look through them.
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let each process of xdist begin at other files of a folder, so that they share the work of compiling them.

    In a fresh clone, each would otherwise compile all of them, at the same time as the others.
    """
    report = yield
    process = getattr(collector.config, "workerinput", None)
    if process is not None and isinstance(collector, pytest.Dir):
        found = report.result
        first = len(found) * int(process["workerid"].removeprefix("gw")) // process["workercount"]
        report.result = [*found[first:], *found[:first]]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests of each process by their files, whichever it has begun at; xdist requires the same order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test and its fixtures, or neither."""
    if measuring := item.config.stash.get(MEASURING, None):
        measuring.switch(on=is_measured(item.path) and not is_random(item))
    return (yield)


@pytest.fixture(autouse=True)
def _restored_log_levels() -> Iterator[None]:
    """Restore the levels of logging, which a router sets for its process: other tests would miss lines."""
    loggers = [logging.getLogger(name) for name in (None, "grpc", "httpx", "httpcore")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
