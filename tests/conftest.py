"""For all tests."""

from hypothesis import settings

# A shared, noisy machine must not turn a slow example into a failure.
settings.register_profile("dualpool", deadline=None)
settings.load_profile("dualpool")
