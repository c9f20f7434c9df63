"""Settings for all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# As set by the command line, before numpy is loaded: with matrices as small as ours a second thread only spins.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shared, noisy machine must not turn a slow example into a failure.
settings.register_profile("dualpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dualpool")

# So that assertions that fail in there show the values.
pytest.register_assert_rewrite("tests.envoy.harness.promises")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Exclude the tests of planner and evaluation from coverage, which makes each step three times as slow.

    Core has to be covered by its own tests; lines that a simulated fleet happens to execute do not count.
    """
    for item in items:
        if item.path.name.startswith(("test_planning_", "test_evaluation")):
            item.add_marker(pytest.mark.no_cover)
