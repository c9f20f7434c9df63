"""Estimators of prompt tokens from bytes, learned from usage, all behind one protocol (protocol.py)."""

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.protocol import Estimator
from extproc.core.estimator.settings import EstimatorSettings

__all__ = ["make_estimator"]


def make_estimator(settings: EstimatorSettings) -> Estimator:
    """Return the estimator that the settings select."""
    return ByteClassEstimator(settings) if settings.kind == "byteclass" else EmaEstimator(settings)
