"""For all tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

# As the command line sets it, before numpy is loaded: a second thread would spin for matrices as small as ours.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shared, noisy machine must not turn a slow example into a failure.
settings.register_profile("dualpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dualpool")

# So that what fails in there says with which values.
pytest.register_assert_rewrite("tests.envoy.harness.promises")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the planner's tests out of coverage: each step of a simulation would take three times as long.

    Core is to be held by tests of its own; what a simulated fleet happens to reach of it counts for nothing.
    """
    for item in items:
        if item.path.name.startswith("test_planning_"):
            item.add_marker(pytest.mark.no_cover)
