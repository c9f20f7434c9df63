"""The one object that says everything about how a request was placed; metrics, logs and headers listen to it."""

from dataclasses import dataclass
from enum import StrEnum

from extproc.core.errors import BodyFault
from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import Api
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.policy import Pool

__all__ = ["Decision", "Mode", "Reason"]


class Mode(StrEnum):
    """What the router does with its decisions."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # decides, counts and learns, but sets no header
    OFF = "off"  # passes everything through


class Reason(StrEnum):
    """Why a pool was chosen; a metric label and the value of the reason header."""

    FITS = "fits"
    TOO_LONG = "too_long"  # the budget fits no smaller pool
    UNSEEN_HISTORY = "unseen_history"  # or parts that cannot be measured, such as files
    NOT_UNDERSTOOD = "not_understood"
    EARLY = "early"  # so many bytes that no smaller pool could hold them; decided before the end
    CUT_OFF = "cut_off"  # the gateway gave only the first part of the body
    DEADLINE = "deadline"  # the body was not there in time


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one request goes, and why.

    `routed` is True when the pool header is set: a smaller pool than the default, in mode enforce. `estimate` and
    `budget` are None, and `model` is "", when the body was not seen whole or not understood. `learnable` says that
    usage will be in the response. The prompt's text is not in here: a decision lives as long as the response runs.
    """

    pool: Pool
    reason: Reason
    mode: Mode
    routed: bool
    api: Api
    model: str = ""
    estimate: Estimate | None = None
    budget: TokenBudget | None = None
    stream: bool = False
    learnable: bool = False
    fault: BodyFault | None = None
    body_bytes: int = 0
    text_bytes: int = 0
