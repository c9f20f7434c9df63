"""For all tests."""

import os

from hypothesis import HealthCheck, settings

# As the command line sets it, before numpy is loaded: a second thread would spin for matrices as small as ours.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shared, noisy machine must not turn a slow example into a failure.
settings.register_profile("dualpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dualpool")
