"""The object that records how a request was placed; metrics, logs and headers are derived from it."""

from enum import StrEnum
from typing import Final

import msgspec

from extproc.core.errors import BodyFault
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import Stratum

__all__ = ["NO_HEAD", "Decision", "Mode"]

NO_HEAD: Final = RequestHead()


class Mode(StrEnum):
    """What the router does with its decisions."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # decides, counts and learns, but sets no header
    OFF = "off"  # forwards everything unchanged


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where one request goes, and why.

    `routed` is True when the pool header is set: a smaller pool than the default, in mode enforce. `estimate` and
    `budget` are None, and `model` is "", if the body was not seen completely or not understood. `learnable` says
    that the response will contain usage. The prompt's text is not included, because a decision lives until the
    response ends. `counted` is the result of counting the text with a tokenizer, None if that was not tried; the
    estimate is based on it unless counting was given up. `stratum` is the request's part of the traffic, None
    without an estimate. `head` matches logs and traces with the gateway's; it does not affect the placement.
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
    head: RequestHead = NO_HEAD
    counted: Counted | None = None
    stratum: Stratum | None = None
